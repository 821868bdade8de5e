//! What a ResourceQuota must be, and what may not change in it.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, ValidateResourceQuota and Update.

use crate::{
    core::resource_name,
    field::{Errors, quoted},
    k8s::{
        api::core::v1::{ResourceQuota, ResourceQuotaSpec},
        apimachinery::pkg::api::resource::Quantity,
    },
    meta::{Exact, absent::list, quantity},
};
use std::collections::{BTreeMap, BTreeSet};

type List = Option<BTreeMap<String, Quantity>>;

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Scopes that an object is in or not, without a value.
const PLAIN: [&str; 5] =
    ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "Terminating"];

const OPPOSITES: [[&str; 2]; 2] =
    [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

/// Compute resources of pods, besides their number.
const COMPUTE: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

pub(super) fn validate(quota: &ResourceQuota, errors: &mut Errors) {
    let empty = ResourceQuotaSpec::default();
    let spec = quota.spec.as_ref().unwrap_or(&empty);
    amounts("spec.hard", &spec.hard, errors);
    scopes(spec, errors);
    scope_selector(spec, errors);
}

pub(super) fn validate_update(quota: &ResourceQuota, old: &ResourceQuota, errors: &mut Errors) {
    let scopes = |it: &ResourceQuota| -> BTreeSet<String> {
        it.spec.iter().flat_map(|it| list(&it.scopes)).cloned().collect()
    };
    if scopes(quota) != scopes(old) {
        let shown = quota.spec.as_ref().map(|it| list(&it.scopes)).unwrap_or_default();
        errors.invalid("spec.scopes", json(&shown), "field is immutable");
    }
}

pub(super) fn validate_status(quota: &ResourceQuota, errors: &mut Errors) {
    let Some(status) = &quota.status else { return };
    amounts("status.hard", &status.hard, errors);
    amounts("status.used", &status.used, errors);
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("API objects are plain data")
}

fn amounts(path: &str, amounts: &List, errors: &mut Errors) {
    for (name, amount) in amounts.iter().flatten() {
        let at = format!("{path}[{name}]");
        resource_name::of_quota(&at, name, errors);
        let Some(exact) = quantity::read(&at, amount, errors) else { continue };
        if exact < Exact::ZERO {
            errors.invalid(&at, quoted(&amount.0), "must be greater than or equal to 0");
        }
        if resource_name::is_whole(name) && Exact::from_units(exact.units()) != exact {
            errors.invalid(&at, quoted(&amount.0), "must be an integer");
        }
    }
}

/// Whether objects that a resource counts can be in a scope.
fn applies(scope: &str, resource: &str) -> bool {
    let of_pods = resource == "pods" || COMPUTE.contains(&resource);
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => of_pods,
        _ => true,
    }
}

fn scopes(spec: &ResourceQuotaSpec, errors: &mut Errors) {
    let scopes = list(&spec.scopes);
    let shown = json(&scopes);
    for scope in scopes {
        if !SCOPES.contains(&scope.as_str()) {
            errors.invalid("spec.scopes", &shown, "unsupported scope");
        }
        for _ in misapplied(spec, scope) {
            errors.invalid("spec.scopes", &shown, "unsupported scope applied to resource");
        }
    }
    if conflict(&scopes.iter().map(String::as_str).collect::<Vec<_>>()) {
        errors.invalid("spec.scopes", &shown, "conflicting scopes");
    }
}

fn misapplied<'a>(
    spec: &'a ResourceQuotaSpec,
    scope: &'a str,
) -> impl Iterator<Item = &'a String> + use<'a> {
    let names = spec.hard.iter().flat_map(|it| it.keys());
    names.filter(move |it| resource_name::is_of_quotas(it) && !applies(scope, it))
}

fn conflict(scopes: &[&str]) -> bool {
    OPPOSITES.iter().any(|pair| pair.iter().all(|it| scopes.contains(it)))
}

fn scope_selector(spec: &ResourceQuotaSpec, errors: &mut Errors) {
    let Some(selector) = &spec.scope_selector else { return };
    let path = "spec.scopeSelector.matchExpressions";
    let expressions = list(&selector.match_expressions);
    for it in expressions {
        let scope = it.scope_name.as_str();
        if !SCOPES.contains(&scope) {
            errors.invalid(format!("{path}.scopeName"), quoted(scope), "unsupported scope");
        }
        for _ in misapplied(spec, scope) {
            errors.invalid(path, json(selector), "unsupported scope applied to resource");
        }
        let operator = it.operator.as_str();
        if PLAIN.contains(&scope) && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(format!("{path}.operator"), quoted(operator), detail);
        }
        let values = list(&it.values);
        match (operator, values.is_empty()) {
            ("In" | "NotIn", true) => errors.required(
                format!("{path}.values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            ("Exists" | "DoesNotExist", false) => errors.invalid(
                format!("{path}.values"),
                json(&values),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => errors.invalid(
                format!("{path}.operator"),
                quoted(other),
                "not a valid selector operator",
            ),
        }
    }
    if conflict(&expressions.iter().map(|it| it.scope_name.as_str()).collect::<Vec<_>>()) {
        errors.invalid(path, json(&list(&spec.scopes)), "conflicting scopes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, codec::from_value};
    use serde_json::{Value, json};

    fn quota(spec: Value) -> ResourceQuota {
        let mut quota: ResourceQuota =
            from_value(&json!({"metadata": {"name": "q"}, "spec": spec})).unwrap();
        Kind::default(&mut quota);
        quota
    }

    fn wrong(spec: Value) -> String {
        let mut errors = Errors::default();
        validate(&quota(spec), &mut errors);
        errors.message()
    }

    #[test]
    fn limits_what_it_knows() {
        assert_eq!(
            wrong(json!({"hard": {"pods": "3", "count/pods": "3", "requests.cpu": "1500m"}})),
            ""
        );
        assert_eq!(
            wrong(json!({"hard": {"pods": "1500m"}})),
            "spec.hard[pods]: Invalid value: \"1500m\": must be an integer"
        );
        assert_eq!(
            wrong(json!({"hard": {"secrets": "-1"}})),
            "spec.hard[secrets]: Invalid value: \"-1\": must be greater than or equal to 0"
        );
        assert_eq!(
            wrong(json!({"hard": {"nonsense": "1"}})),
            "[spec.hard[nonsense]: Invalid value: \"nonsense\": must be a standard resource type or fully qualified, \
             spec.hard[nonsense]: Invalid value: \"nonsense\": must be a standard resource for quota]"
        );
    }

    #[test]
    fn scopes_fit_what_is_limited_and_each_other() {
        assert_eq!(wrong(json!({"hard": {"pods": "3"}, "scopes": ["BestEffort"]})), "");
        assert_eq!(
            wrong(json!({"hard": {"cpu": "3"}, "scopes": ["BestEffort"]})),
            "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"
        );
        assert_eq!(
            wrong(json!({"scopes": ["Terminating", "NotTerminating"]})),
            "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"
        );
        let selector =
            json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]});
        assert_eq!(
            wrong(json!({"scopeSelector": selector})),
            "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
        );
    }

    #[test]
    fn warns_of_requests_beyond_limits() {
        let of = |hard: Value| quota(json!({"hard": hard})).warnings(None).join("; ");
        assert_eq!(of(json!({"cpu": "1", "limits.cpu": "2"})), "");
        assert_eq!(
            of(json!({"cpu": "3", "limits.cpu": "2", "requests.ephemeral-storage": "2Gi",
                "limits.ephemeral-storage": "1Gi"})),
            "ResourceQuota cpu (3) should be less than limits.cpu (2); \
             ResourceQuota requests.ephemeral-storage (2Gi) should be less than limits.ephemeral-storage (1Gi)"
        );
    }

    #[test]
    fn scopes_stay() {
        let mut errors = Errors::default();
        let new = quota(json!({"scopes": ["Terminating"]}));
        validate_update(&new, &quota(json!({})), &mut errors);
        assert_eq!(
            errors.message(),
            "spec.scopes: Invalid value: [\"Terminating\"]: field is immutable"
        );
    }
}
