//! What containers and pods ask for: names, amounts, requests below limits.

use crate::{
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
    let fixed = |name: &str| name.starts_with("hugepages-") || !is_native(name);
    for (field, amounts) in [("limits", limits), ("requests", requests)] {
        for (resource, amount) in amounts {
            let at = format!("{path}.{field}[{resource}]");
            name(&at, resource, errors);
            let Some(exact) = quantity::read(&at, amount, errors) else { continue };
            if exact < Exact::ZERO {
                errors.invalid(&at, quoted(&amount.0), "must be greater than or equal to 0");
            }
            if !is_native(resource) && Exact::from_units(exact.units()) != exact {
                errors.invalid(&at, quoted(&amount.0), "must be an integer");
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
    if has(&|it| it.starts_with("hugepages-")) && !has(&|it| it == "cpu" || it == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Names without a prefix, and those of the project itself.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// The name of something that a container can ask for.
pub(super) fn validate_container_resource(path: &str, name: &str, errors: &mut Errors) {
    let before = errors.0.len();
    names::qualified_name(path, name, errors);
    if errors.0.len() > before || name.contains('/') {
        return;
    }
    let standard = ["cpu", "memory", "ephemeral-storage"];
    if standard.contains(&name) || name.starts_with("hugepages-") {
        return;
    }
    let detail = "must be a standard resource type or fully qualified";
    let elsewhere = ["storage", "pods", "services", "secrets", "configmaps"];
    if !elsewhere.contains(&name) {
        errors.invalid(path, quoted(name), detail);
    }
    errors.invalid(path, quoted(name), "must be a standard resource for containers");
}

/// The name of something that a pod as a whole can ask for.
pub(super) fn validate_pod_resource(path: &str, name: &str, errors: &mut Errors) {
    if name != "cpu" && name != "memory" && !name.starts_with("hugepages-") {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

pub(super) fn claims(
    path: &str,
    resources: &ResourceRequirements,
    spec: &PodSpec,
    errors: &mut Errors,
) {
    let known: Vec<&str> = list(&spec.resource_claims).iter().map(|it| it.name.as_str()).collect();
    for (n, it) in list(&resources.claims).iter().enumerate() {
        let path = format!("{path}[{n}]");
        if it.name.is_empty() {
            errors.required(path, "");
        } else if !known.contains(&it.name.as_str()) {
            let detail = match known.is_empty() {
                true => " which is empty".to_owned(),
                false => format!(": {}", known.join(", ")),
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{detail}");
            errors.push(Reason::NotFound, path, Some(quoted(&it.name)), detail);
        }
    }
}
