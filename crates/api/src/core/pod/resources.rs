//! What a pod asks of a node, and the quality of service that follows.
//!
//! Upstream: `component-helpers/resource/helpers.go`, `pkg/apis/core/helper/qos/qos.go`.

use crate::{
    k8s::{
        api::core::v1::{Container, PodSpec, ResourceRequirements},
        apimachinery::pkg::api::resource::Quantity,
    },
    meta::Exact,
};
use std::collections::BTreeMap;

/// Amounts by resource name: `cpu`, `memory`, `ephemeral-storage`, `hugepages-2Mi`, …
pub type Amounts = BTreeMap<String, Exact>;

type List = Option<BTreeMap<String, Quantity>>;

/// What must be free on a node for the pod: its containers together, or the greediest moment of its
/// init containers if that is more, and the overhead.
pub fn requests(spec: &PodSpec) -> Amounts {
    total(spec, |it| &it.requests)
}

/// What the pod may use at most; a resource without a limit is not listed.
pub fn limits(spec: &PodSpec) -> Amounts {
    total(spec, |it| &it.limits)
}

fn total(spec: &PodSpec, list: fn(&ResourceRequirements) -> &List) -> Amounts {
    let of = |container: &Container| amounts(container.resources.as_ref().map(list));
    let mut running = Amounts::new();
    for container in &spec.containers {
        add(&mut running, &of(container));
    }
    // Sidecars run beside what starts after them; plain init containers run one at a time.
    let mut sidecars = Amounts::new();
    let mut starting = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let mut now = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut running, &now);
            add(&mut sidecars, &now);
            now = sidecars.clone();
        } else {
            add(&mut now, &sidecars);
        }
        raise(&mut starting, &now);
    }
    raise(&mut running, &starting);
    for (name, amount) in amounts(spec.resources.as_ref().map(list)) {
        running.insert(name, amount);
    }
    add(&mut running, &amounts(Some(&spec.overhead)));
    running
}

fn amounts(list: Option<&List>) -> Amounts {
    let entries = list.into_iter().flatten().flatten();
    entries.map(|(name, quantity)| (name.clone(), Exact::of(quantity))).collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = *entry + *amount;
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = most.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// `BestEffort` without any request or limit for cpu and memory; `Guaranteed` when every container
/// has limits for both and requests equal to them; else `Burstable`.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let init = spec.init_containers.iter().flatten();
    let each: Vec<Option<&ResourceRequirements>> = match &spec.resources {
        Some(whole) => vec![Some(whole)],
        None => spec.containers.iter().chain(init).map(|it| it.resources.as_ref()).collect(),
    };
    let (mut requests, mut limits, mut guaranteed) = (Amounts::new(), Amounts::new(), true);
    for resources in each {
        let counted = |list: Option<&List>| {
            let mut counted = amounts(list);
            let counts = |name: &str| name == "cpu" || name == "memory";
            counted.retain(|name, amount| counts(name) && *amount > Exact::ZERO);
            counted
        };
        add(&mut requests, &counted(resources.map(|it| &it.requests)));
        let limited = counted(resources.map(|it| &it.limits));
        guaranteed &= limited.len() == 2;
        add(&mut limits, &limited);
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    fn asks(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn asks_for_the_containers_or_the_greediest_start() {
        let mut sidecar = asks("100m");
        sidecar["restartPolicy"] = "Always".into();
        let cpu = |value: Value| requests(&spec(value))["cpu"].milli();
        assert_eq!(cpu(json!({"containers": [asks("1"), asks("500m")]})), 1500);
        assert_eq!(cpu(json!({"containers": [asks("1")], "initContainers": [asks("3")]})), 3000);
        let mixed = json!({"containers": [asks("1")], "initContainers": [sidecar, asks("3")],
            "overhead": {"cpu": "10m"}});
        assert_eq!(cpu(mixed), 3110);
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let of = |resources: Value| {
            qos_class(&spec(json!({"containers": [{"name": "c", "resources": resources}]})))
        };
        let full = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "0"}})), "BestEffort");
        assert_eq!(of(json!({"requests": full, "limits": full})), "Guaranteed");
        assert_eq!(of(json!({"limits": full})), "Burstable");
        assert_eq!(of(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}})), "Burstable");
    }
}
