//! What containers and pods ask for: names, amounts, requests below limits.

use crate::{
    core::resource_name::{self, HUGE_PAGES},
    field::{Errors, Reason, quoted},
    k8s::api::core::v1::{PodSpec, ResourceRequirements},
    meta::{Exact, absent::list, names, quantity},
};
use std::collections::BTreeMap;

/// Says what is wrong with requests and limits.
pub(super) fn validate_resources(
    path: &str,
    resources: &ResourceRequirements,
    name: fn(&str, &str, &mut Errors),
    errors: &mut Errors,
) {
    let empty = BTreeMap::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    let fixed = |name: &str| name.starts_with(HUGE_PAGES) || !resource_name::is_native(name);
    for (field, amounts) in [("limits", limits), ("requests", requests)] {
        for (resource, amount) in amounts {
            let at = format!("{path}.{field}[{resource}]");
            name(&at, resource, errors);
            let Some(exact) = quantity::read(&at, amount, errors) else { continue };
            if exact < Exact::ZERO {
                errors.invalid(&at, quoted(&amount.0), "must be greater than or equal to 0");
            }
            if resource_name::is_whole(resource) && Exact::from_units(exact.units()) != exact {
                errors.invalid(&at, quoted(&amount.0), "must be an integer");
            }
            if !are_whole_pages(resource, exact) {
                let detail = format!("{} is not positive integer multiple of {resource}", amount.0);
                errors.invalid(&at, quoted(&amount.0), detail);
            }
            if field == "limits" {
                continue;
            }
            let at = format!("{path}.requests");
            match limits.get(resource) {
                Some(limit) if fixed(resource) && Exact::of(limit) != exact => {
                    let detail = format!("must be equal to {resource} limit of {}", limit.0);
                    errors.invalid(at, quoted(&amount.0), detail);
                }
                Some(limit) if exact > Exact::of(limit) => {
                    let detail =
                        format!("must be less than or equal to {resource} limit of {}", limit.0);
                    errors.invalid(at, quoted(&amount.0), detail);
                }
                None if fixed(resource) => {
                    let detail = "Limit must be set for non overcommitable resources";
                    errors.required(format!("{path}.limits"), detail);
                }
                Some(_) | None => {}
            }
        }
    }
    let has = |test: &dyn Fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|it| test(it));
    if has(&|it| it.starts_with(HUGE_PAGES)) && !has(&|it| it == "cpu" || it == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Whether an amount of huge pages is whole pages: `hugepages-2Mi` come by 2Mi.
fn are_whole_pages(name: &str, amount: Exact) -> bool {
    let Some(size) = name.strip_prefix(HUGE_PAGES).and_then(Exact::parse) else { return true };
    let bytes = size.units();
    bytes > 0 && Exact::from_units(bytes) == size && amount.units() % bytes == 0
}

/// The name of something that a pod as a whole can ask for.
pub(super) fn validate_pod_resource(path: &str, name: &str, errors: &mut Errors) {
    let before = errors.0.len();
    resource_name::any(path, name, errors);
    if errors.0.len() > before {
        return;
    }
    if name != "cpu" && name != "memory" && !name.starts_with(HUGE_PAGES) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

pub(super) fn claims(
    path: &str,
    resources: &ResourceRequirements,
    spec: &PodSpec,
    errors: &mut Errors,
) {
    let mut known: Vec<&str> =
        list(&spec.resource_claims).iter().map(|it| it.name.as_str()).collect();
    known.sort_unstable();
    let mut seen: Vec<String> = Vec::new();
    for (n, it) in list(&resources.claims).iter().enumerate() {
        let path = format!("{path}[{n}]");
        let (name, request) = (it.name.as_str(), it.request.as_deref().unwrap_or_default());
        if name.is_empty() {
            errors.required(path, "");
            continue;
        }
        let key = match request {
            "" => name.to_owned(),
            request => format!("{name}/{request}"),
        };
        if seen.iter().any(|it| it == name) {
            errors.duplicate(&path, quoted(name));
        } else {
            if !request.is_empty() {
                names::dns_label(format!("{path}.request"), request, errors);
            }
            let part = |it: &&String| request.is_empty() && it.starts_with(&format!("{name}/"));
            if seen.contains(&key) || seen.iter().any(|it| part(&it)) {
                errors.duplicate(&path, quoted(&key));
            }
            seen.push(key);
        }
        if !known.contains(&name) {
            let detail = match known.is_empty() {
                true => " which is empty".to_owned(),
                false => format!(": {}", known.join(", ")),
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{detail}");
            errors.push(Reason::NotFound, path, Some(quoted(name)), detail);
        }
    }
}

/// The claims for devices that a pod names.
pub(super) fn pod_claims(path: &str, spec: &PodSpec, errors: &mut Errors) {
    let all = list(&spec.resource_claims);
    for (n, it) in all.iter().enumerate() {
        let path = format!("{path}[{n}]");
        if it.name.is_empty() {
            errors.required(format!("{path}.name"), "");
        } else if all[..n].iter().any(|other| other.name == it.name) {
            errors.duplicate(format!("{path}.name"), quoted(&it.name));
        } else {
            names::dns_label(format!("{path}.name"), &it.name, errors);
        }
        let (claim, template) = (&it.resource_claim_name, &it.resource_claim_template_name);
        let shown = || {
            let of = |it: &Option<String>| it.as_deref().map_or("null".to_owned(), quoted);
            let (name, claim, template) = (quoted(&it.name), of(claim), of(template));
            format!(
                "{{\"Name\":{name},\"ResourceClaimName\":{claim},\"ResourceClaimTemplateName\":{template}}}"
            )
        };
        match (claim, template) {
            (Some(_), Some(_)) => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&path, shown(), detail);
            }
            (None, None) => {
                let detail =
                    "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid(&path, shown(), detail);
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        for (field, name) in [("resourceClaimName", claim), ("resourceClaimTemplateName", template)]
        {
            if let Some(name) = name {
                names::dns_subdomain(format!("{path}.{field}"), name, errors);
            }
        }
    }
}
