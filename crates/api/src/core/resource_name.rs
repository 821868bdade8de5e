//! Names of what can be asked for, counted and limited: `cpu`, `requests.storage`, `count/pods`.
//!
//! Upstream: `pkg/apis/core/helper/helpers.go`, `pkg/apis/core/validation/validation.go`.

use crate::{
    field::{Errors, quoted},
    meta::names,
};

/// What a quota may name without a prefix. Sorted.
const OF_QUOTAS: [&str; 19] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// Of those, the ones that count objects. Sorted.
const COUNTS: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

pub(crate) const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";

/// Names without a prefix, and those of the project itself.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a quota knows the name, prefixed ones aside.
pub(crate) fn is_of_quotas(name: &str) -> bool {
    OF_QUOTAS.binary_search(&name).is_ok() || is_huge_pages_of_quotas(name)
}

/// Whether only whole numbers make sense.
pub(crate) fn is_whole(name: &str) -> bool {
    COUNTS.binary_search(&name).is_ok() || !is_native(name) && !name.starts_with(REQUESTS)
}

fn is_huge_pages_of_quotas(name: &str) -> bool {
    name.strip_prefix(REQUESTS).unwrap_or(name).starts_with(HUGE_PAGES)
}

/// Any resource.
pub(crate) fn any(path: &str, name: &str, errors: &mut Errors) {
    let before = errors.0.len();
    names::qualified_name(path, name, errors);
    let plain = errors.0.len() == before && !name.contains('/');
    if plain && name != "storage" && !is_of_quotas(name) {
        let detail = "must be a standard resource type or fully qualified";
        errors.invalid(path, quoted(name), detail);
    }
}

/// What a quota can limit.
pub(crate) fn of_quota(path: &str, name: &str, errors: &mut Errors) {
    any(path, name, errors);
    if !name.contains('/') && !is_of_quotas(name) {
        errors.invalid(path, quoted(name), "must be a standard resource for quota");
    }
}

/// What a container can ask for.
pub(crate) fn of_container(path: &str, name: &str, errors: &mut Errors) {
    any(path, name, errors);
    let standard = ["cpu", "memory", "ephemeral-storage"];
    if !name.contains('/') {
        if !standard.contains(&name) && !name.starts_with(HUGE_PAGES) {
            errors.invalid(path, quoted(name), "must be a standard resource for containers");
        }
    } else if !is_native(name) && name.starts_with(REQUESTS) {
        errors.invalid(path, quoted(name), "doesn't follow extended resource name standard");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted() {
        assert!(OF_QUOTAS.is_sorted());
        assert!(COUNTS.is_sorted());
    }

    #[test]
    fn quotas_know_more_names_than_containers() {
        let wrong = |check: fn(&str, &str, &mut Errors), name: &str| {
            let mut errors = Errors::default();
            check("hard", name, &mut errors);
            errors.0.len()
        };
        for name in [
            "pods",
            "requests.storage",
            "count/pods",
            "gold.storageclass.storage.k8s.io/requests.storage",
        ] {
            assert_eq!(wrong(of_quota, name), 0, "{name}");
        }
        assert_eq!(wrong(of_quota, "storage"), 1);
        assert_eq!(wrong(of_quota, "nonsense"), 2);
        assert_eq!(wrong(of_container, "cpu"), 0);
        assert_eq!(wrong(of_container, "pods"), 1);
        assert_eq!(wrong(of_container, "hugepages-2Mi"), 0);
    }
}
