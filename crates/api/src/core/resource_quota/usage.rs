//! What one object uses of a quota: which of its resources, how much, and in which scopes.
//!
//! Upstream: `pkg/quota/v1/evaluator/core`, `apiserver/pkg/quota/v1/generic/evaluator.go`.

use super::{hard, spec};
use crate::{
    AnyKind, Erased,
    core::{persistent_volume_claim as claims, pod, resource_name::HUGE_PAGES},
    k8s::api::core::v1::{
        Container, PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuota,
        ScopedResourceSelectorRequirement, Service, WeightedPodAffinityTerm,
    },
    meta::{
        Exact,
        absent::{list, text},
        quantity, timestamp_of,
    },
};
use std::collections::{BTreeMap, BTreeSet};
use stdx::Timestamp;

/// Amounts by the names that a quota gives them.
pub type Usage = BTreeMap<String, Exact>;

const ONE: Exact = Exact(1_000_000_000);

/// Before the name of a resource: what claims of that class use.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Kinds that were counted by their plural before there was `count/`.
const PLAIN_COUNTS: [&str; 4] =
    ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// What of a pod must be said by each container when a quota limits it.
const MUST_BE_SAID: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// A group and a plural.
pub type CountedKind = (String, String);

/// `count/pods`, `count/statefulsets.apps`
fn count_of(kind: &AnyKind) -> String {
    format!("count/{}", kind.qualified())
}

/// Whether objects of a kind can be charged at all: events are not.
pub fn is_charged(kind: &AnyKind) -> bool {
    kind.is_namespaced() && kind.plural != "events"
}

/// Whether a quota that limits `name` is about objects of the kind.
fn is_about(kind: &AnyKind, name: &str) -> bool {
    if name.starts_with("count/") {
        return name == count_of(kind);
    }
    if !kind.group.is_empty() {
        return false;
    }
    match kind.plural.as_str() {
        "pods" => is_of_pods(name),
        "persistentvolumeclaims" => {
            let plain = name.split_once(OF_CLASS).map_or(name, |it| it.1);
            matches!(plain, "persistentvolumeclaims" | "requests.storage")
        }
        "services" => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        plural => PLAIN_COUNTS.contains(&plural) && name == plural,
    }
}

fn is_of_pods(name: &str) -> bool {
    let plain = name.strip_prefix("requests.").unwrap_or(name);
    matches!(plain.strip_prefix("limits.").unwrap_or(plain), "cpu" | "memory" | "ephemeral-storage")
        || name == "pods"
        || plain.starts_with(HUGE_PAGES)
        // Devices: only what is requested is limited.
        || plain.len() < name.len() && plain.contains('/') && !plain.contains("kubernetes.io/")
}

/// The resources that a quota limits and objects of the kind use.
pub fn names_about(quota: &ResourceQuota, kind: &AnyKind) -> Vec<String> {
    hard(quota).into_keys().filter(|it| is_about(kind, it)).collect()
}

/// Kinds that the quota's `count/` names are about, other than by their own rules.
pub fn counted_kinds(quota: &ResourceQuota) -> BTreeSet<CountedKind> {
    let counts = hard(quota).into_keys();
    let counts = counts.filter_map(|it| it.strip_prefix("count/").map(str::to_owned));
    let split = |it: String| match it.split_once('.') {
        Some((plural, group)) => (group.to_owned(), plural.to_owned()),
        None => (String::new(), it),
    };
    counts.map(split).collect()
}

/// Whether the object is in every scope of the quota.
pub fn covers(quota: &ResourceQuota, object: &dyn Erased) -> bool {
    let spec = spec(quota);
    let plain = list(&spec.scopes).iter().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".to_owned(),
        values: None,
    });
    let selector = spec.scope_selector.unwrap_or_default();
    let mut all = plain.chain(selector.match_expressions.unwrap_or_default());
    let object = object.as_any();
    all.all(|it| match (object.downcast_ref(), object.downcast_ref()) {
        (Some(pod), _) => pod_is_in(pod, &it),
        (_, Some(claim)) => claim_is_in(claim, &it),
        (None, None) => false,
    })
}

fn pod_is_in(pod: &Pod, scope: &ScopedResourceSelectorRequirement) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ends = spec.active_deadline_seconds.is_some_and(|it| it >= 0);
    let best_effort = || pod::qos_class(spec) == "BestEffort";
    match scope.scope_name.as_str() {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = text(&spec.priority_class_name);
            selects(scope, &[class].into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>())
        }
        "CrossNamespacePodAffinity" => looks_abroad(pod),
        _ => false,
    }
}

fn claim_is_in(claim: &PersistentVolumeClaim, scope: &ScopedResourceSelectorRequirement) -> bool {
    if scope.scope_name != "VolumeAttributesClass" {
        return false;
    }
    let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
    let wanted = spec.and_then(|it| it.volume_attributes_class_name.as_deref());
    let current = status.and_then(|it| it.current_volume_attributes_class_name.as_deref());
    let modifying = status.and_then(|it| it.modify_volume_status.as_ref());
    let target = modifying.and_then(|it| it.target_volume_attributes_class_name.as_deref());
    let names = [wanted, current, target].into_iter().flatten();
    selects(scope, &names.filter(|it| !it.is_empty()).collect::<Vec<_>>())
}

/// Whether a requirement holds for something that has these values.
fn selects(scope: &ScopedResourceSelectorRequirement, own: &[&str]) -> bool {
    let values = list(&scope.values);
    let listed = |it: &&str| values.iter().any(|value| value == it);
    match scope.operator.as_str() {
        "In" => own.iter().any(listed),
        "NotIn" => own.is_empty() || own.iter().any(|it| !listed(it)),
        "Exists" => !own.is_empty(),
        "DoesNotExist" => own.is_empty(),
        _ => false,
    }
}

/// Whether the pod's affinity is about pods of other namespaces.
fn looks_abroad(pod: &Pod) -> bool {
    let abroad =
        |it: &PodAffinityTerm| !list(&it.namespaces).is_empty() || it.namespace_selector.is_some();
    let any = |required: &Option<Vec<PodAffinityTerm>>,
               preferred: &Option<Vec<WeightedPodAffinityTerm>>| {
        list(required).iter().any(abroad)
            || list(preferred).iter().any(|it| abroad(&it.pod_affinity_term))
    };
    let Some(affinity) = pod.spec.as_ref().and_then(|it| it.affinity.as_ref()) else {
        return false;
    };
    affinity.pod_affinity.as_ref().is_some_and(|it| {
        any(
            &it.required_during_scheduling_ignored_during_execution,
            &it.preferred_during_scheduling_ignored_during_execution,
        )
    }) || affinity.pod_anti_affinity.as_ref().is_some_and(|it| {
        any(
            &it.required_during_scheduling_ignored_during_execution,
            &it.preferred_during_scheduling_ignored_during_execution,
        )
    })
}

/// What the object uses, by every name that a quota may give it.
pub fn quota_usage(kind: &AnyKind, object: &dyn Erased, now: Timestamp) -> Usage {
    let mut usage = Usage::from([(count_of(kind), ONE)]);
    let object = object.as_any();
    if let Some(pod) = object.downcast_ref::<Pod>() {
        of_pod(pod, now, &mut usage);
    } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
        of_claim(claim, &mut usage);
    } else if let Some(service) = object.downcast_ref::<Service>() {
        of_service(service, &mut usage);
    } else if kind.group.is_empty() && PLAIN_COUNTS.contains(&kind.plural.as_str()) {
        usage.insert(kind.plural.clone(), ONE);
    }
    usage
}

fn of_pod(pod: &Pod, now: Timestamp, usage: &mut Usage) {
    if has_ended(pod, now) {
        return;
    }
    let Some(spec) = &pod.spec else { return };
    usage.insert("pods".to_owned(), ONE);
    for (name, amount) in pod::requests(spec) {
        if name.contains('/') && !name.contains("kubernetes.io/") {
            usage.insert(format!("requests.{name}"), amount);
        } else if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with(HUGE_PAGES)
        {
            usage.insert(format!("requests.{name}"), amount);
            usage.insert(name, amount);
        }
    }
    for (name, amount) in pod::limits(spec) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
}

/// A pod that is over, or should have been long ago, is not held against its namespace.
fn has_ended(pod: &Pod, now: Timestamp) -> bool {
    let meta = &pod.metadata;
    let late = meta.deletion_timestamp.as_ref().zip(meta.deletion_grace_period_seconds);
    let late = late.is_some_and(|(at, grace)| {
        now.seconds() > timestamp_of(at).seconds().saturating_add(grace)
    });
    pod::is_terminal(pod) || late
}

fn of_claim(claim: &PersistentVolumeClaim, usage: &mut Usage) {
    let spec = claim.spec.as_ref().and_then(|it| it.resources.as_ref());
    let asked = spec.and_then(|it| it.requests.as_ref()?.get("storage")).map(Exact::of);
    let status = claim.status.as_ref().and_then(|it| it.allocated_resources.as_ref());
    let allocated = status.and_then(|it| it.get("storage")).map(Exact::of);
    // Whole bytes; a growth that is under way counts although it was taken back since.
    let storage = asked.map(|it| Exact::from_units(it.max(allocated.unwrap_or_default()).units()));
    let mut charge = |prefix: &str| {
        usage.insert(format!("{prefix}persistentvolumeclaims"), ONE);
        if let Some(storage) = storage {
            usage.insert(format!("{prefix}requests.storage"), storage);
        }
    };
    charge("");
    if let Some(class) = claims::class(claim).filter(|it| !it.is_empty()) {
        charge(&format!("{class}{OF_CLASS}"));
    }
}

fn of_service(service: &Service, usage: &mut Usage) {
    let Some(spec) = &service.spec else { return };
    let ports = list(&spec.ports);
    let count = |number: usize| Exact::from_units(i64::try_from(number).unwrap_or(i64::MAX));
    let asked = ports.iter().filter(|it| it.node_port.unwrap_or(0) != 0).count();
    let (node_ports, balancers) = match text(&spec.type_) {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if spec.allocate_load_balancer_node_ports == Some(false) => (asked, 1),
        "LoadBalancer" => (ports.len(), 1),
        _ => (0, 0),
    };
    usage.insert("services".to_owned(), ONE);
    usage.insert("services.nodeports".to_owned(), count(node_ports));
    usage.insert("services.loadbalancers".to_owned(), count(balancers));
}

/// What a pod's containers must say for the quota to count it: `cpu for: a,b; memory for: a`.
/// Empty if nothing is missing, or the object is no pod.
pub fn missing(names: &[String], object: &dyn Erased) -> String {
    let Some(pod) = object.as_any().downcast_ref::<Pod>() else { return String::new() };
    let Some(spec) = &pod.spec else { return String::new() };
    let whole = spec.resources.as_ref();
    if whole.is_some_and(|it| it.requests.is_some() || it.limits.is_some()) {
        return String::new();
    }
    let says = |container: &Container, name: &str| {
        let resources = container.resources.as_ref();
        let (list, name) = match name.strip_prefix("limits.") {
            Some(name) => (resources.and_then(|it| it.limits.as_ref()), name),
            None => (
                resources.and_then(|it| it.requests.as_ref()),
                name.strip_prefix("requests.").unwrap_or(name),
            ),
        };
        list.is_some_and(|it| it.contains_key(name))
    };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let containers: Vec<&Container> = containers.collect();
    let mut found = Vec::new();
    for name in MUST_BE_SAID.iter().filter(|it| names.iter().any(|name| name == *it)) {
        let silent = containers.iter().filter(|it| !says(it, name));
        let silent: BTreeSet<&str> = silent.map(|it| it.name.as_str()).collect();
        if !silent.is_empty() {
            let silent: Vec<&str> = silent.into_iter().collect();
            found.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    found.join("; ")
}

/// `pods=1,requests.cpu=500m`
pub fn shown(usage: &Usage) -> String {
    let one = |(name, amount): (&String, &Exact)| format!("{name}={}", quantity::shortest(*amount));
    usage.iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, kind_of};
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    fn pod(spec: Value, status: Value) -> Pod {
        from_value(&json!({"metadata": {"name": "p"}, "spec": spec, "status": status})).unwrap()
    }

    fn container(resources: Value) -> Value {
        json!({"containers": [{"name": "c", "resources": resources}]})
    }

    fn quota(spec: Value) -> ResourceQuota {
        from_value(&json!({"metadata": {"name": "q"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_uses_what_it_asks_for_until_it_has_ended() {
        let spec = container(
            json!({"requests": {"cpu": "500m", "example.com/gpu": "2"}, "limits": {"memory": "1Gi"}}),
        );
        let kind = kind_of::<Pod>();
        assert_eq!(
            shown(&quota_usage(kind, &pod(spec.clone(), json!({})), NOW)),
            "count/pods=1,cpu=500m,limits.memory=1Gi,pods=1,requests.cpu=500m,requests.example.com/gpu=2"
        );
        let over = pod(spec, json!({"phase": "Succeeded"}));
        assert_eq!(shown(&quota_usage(kind, &over, NOW)), "count/pods=1");
    }

    #[test]
    fn a_claim_counts_for_its_class_too() {
        let claim: PersistentVolumeClaim = from_value(&json!({"metadata": {"name": "c"},
            "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": "2Gi"}}}))
        .unwrap();
        assert_eq!(
            shown(&quota_usage(kind_of::<PersistentVolumeClaim>(), &claim, NOW)),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=2Gi,persistentvolumeclaims=1,requests.storage=2Gi"
        );
    }

    #[test]
    fn a_balancer_has_node_ports_before_it_gets_them() {
        let service: Service = from_value(&json!({"metadata": {"name": "s"},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}}))
        .unwrap();
        assert_eq!(
            shown(&quota_usage(kind_of::<Service>(), &service, NOW)),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"
        );
    }

    #[test]
    fn names_say_which_kinds_they_are_about() {
        let names = json!({"pods": "1", "requests.storage": "1", "gold.storageclass.storage.k8s.io/requests.storage": "1",
            "count/statefulsets.apps": "1", "requests.example.com/gpu": "1", "services": "1", "secrets": "1"});
        let quota = quota(json!({"hard": names}));
        assert_eq!(names_about(&quota, kind_of::<Pod>()), ["pods", "requests.example.com/gpu"]);
        assert_eq!(
            names_about(&quota, kind_of::<PersistentVolumeClaim>()),
            ["gold.storageclass.storage.k8s.io/requests.storage", "requests.storage"]
        );
        assert_eq!(
            names_about(&quota, kind_of::<crate::apps::v1::StatefulSet>()),
            ["count/statefulsets.apps"]
        );
        let counted = counted_kinds(&quota);
        assert_eq!(counted, BTreeSet::from([("apps".to_owned(), "statefulsets".to_owned())]));
    }

    #[test]
    fn scopes_choose_pods() {
        let is_in = |scopes: Value, pod: &Pod| covers(&quota(scopes), pod);
        let plain = pod(container(json!({})), json!({}));
        assert!(is_in(json!({"scopes": ["BestEffort", "NotTerminating"]}), &plain));
        assert!(!is_in(json!({"scopes": ["NotBestEffort"]}), &plain));
        let class = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        let mut spec = container(json!({}));
        spec["priorityClassName"] = "high".into();
        let high = pod(spec, json!({}));
        assert!(is_in(class("In", json!(["high"])), &high));
        assert!(!is_in(class("In", json!(["high"])), &plain));
        assert!(is_in(class("Exists", json!(null)), &high));
        assert!(is_in(class("NotIn", json!(["high"])), &plain));
    }

    #[test]
    fn says_which_containers_are_silent() {
        let silent = pod(container(json!({"requests": {"cpu": "1"}})), json!({}));
        let names = ["cpu", "limits.cpu", "memory", "pods"].map(str::to_owned);
        assert_eq!(missing(&names, &silent), "limits.cpu for: c; memory for: c");
    }
}
