//! Where a pod may and wants to go: affinity, tolerations, spreading.

use crate::{
    core::node,
    field::{Errors, quoted},
    k8s::api::core::v1::{Affinity, PodAffinityTerm, PodSpec, Toleration, WeightedPodAffinityTerm},
    meta::{
        absent::{list, text},
        names,
        validate::label_selector,
    },
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(path: &str, affinity: &Affinity, errors: &mut Errors) {
    if let Some(it) = &affinity.node_affinity {
        let path = format!("{path}.nodeAffinity");
        if let Some(selector) = &it.required_during_scheduling_ignored_during_execution {
            node::validate_selector(&format!("{path}.{REQUIRED}"), selector, errors);
        }
        let preferred = list(&it.preferred_during_scheduling_ignored_during_execution);
        for (n, term) in preferred.iter().enumerate() {
            let path = format!("{path}.{PREFERRED}[{n}]");
            weight(&path, term.weight, errors);
            node::validate_term(&format!("{path}.preference"), &term.preference, errors);
        }
    }
    if let Some(it) = &affinity.pod_affinity {
        let required = list(&it.required_during_scheduling_ignored_during_execution);
        let preferred = list(&it.preferred_during_scheduling_ignored_during_execution);
        pods(&format!("{path}.podAffinity"), required, preferred, errors);
    }
    if let Some(it) = &affinity.pod_anti_affinity {
        let required = list(&it.required_during_scheduling_ignored_during_execution);
        let preferred = list(&it.preferred_during_scheduling_ignored_during_execution);
        pods(&format!("{path}.podAntiAffinity"), required, preferred, errors);
    }
}

fn pods(
    path: &str,
    required: &[PodAffinityTerm],
    preferred: &[WeightedPodAffinityTerm],
    errors: &mut Errors,
) {
    for (n, it) in required.iter().enumerate() {
        term(&format!("{path}.{REQUIRED}[{n}]"), it, errors);
    }
    for (n, it) in preferred.iter().enumerate() {
        let path = format!("{path}.{PREFERRED}[{n}]");
        weight(&path, it.weight, errors);
        term(&format!("{path}.podAffinityTerm"), &it.pod_affinity_term, errors);
    }
}

fn term(path: &str, term: &PodAffinityTerm, errors: &mut Errors) {
    if let Some(selector) = &term.label_selector {
        label_selector(&format!("{path}.labelSelector"), selector, errors);
    }
    if let Some(selector) = &term.namespace_selector {
        label_selector(&format!("{path}.namespaceSelector"), selector, errors);
    }
    for namespace in list(&term.namespaces) {
        names::dns_label(format!("{path}.namespace"), namespace, errors);
    }
    topology_key(path, &term.topology_key, errors);
}

fn topology_key(path: &str, key: &str, errors: &mut Errors) {
    let path = format!("{path}.topologyKey");
    if key.is_empty() {
        errors.required(&path, "can not be empty");
    }
    names::qualified_name(path, key, errors);
}

fn weight(path: &str, weight: i32, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.invalid(format!("{path}.weight"), weight, "must be in the range 1-100");
    }
}

pub(crate) fn tolerations(path: &str, tolerations: &[Toleration], errors: &mut Errors) {
    for (n, it) in tolerations.iter().enumerate() {
        let path = format!("{path}[{n}]");
        let (key, operator, value) = (text(&it.key), text(&it.operator), text(&it.value));
        let at = format!("{path}.operator");
        if !key.is_empty() {
            names::qualified_name(format!("{path}.key"), key, errors);
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&at, quoted(operator), detail);
        }
        if it.toleration_seconds.is_some() && text(&it.effect) != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(format!("{path}.effect"), quoted(text(&it.effect)), detail);
        }
        match operator {
            "Equal" | "" => names::label_value(&at, value, errors),
            "Exists" if value.is_empty() => {}
            "Exists" => {
                errors.invalid(
                    &at,
                    quoted(value),
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Lt" | "Gt" => {
                errors.not_supported(&at, operator, &["Equal", "Exists", "Lt", "Gt"]);
            }
            other => errors.not_supported(&at, other, &["Equal", "Exists"]),
        }
        if !text(&it.effect).is_empty() {
            node::validate_effect(format!("{path}.effect"), text(&it.effect), errors);
        }
    }
}

pub(super) fn spread(path: &str, spec: &PodSpec, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (n, it) in list(&spec.topology_spread_constraints).iter().enumerate() {
        let path = format!("{path}[{n}]");
        if it.max_skew <= 0 {
            let detail = "must be greater than zero";
            errors.invalid(format!("{path}.maxSkew"), it.max_skew, detail);
        }
        match it.topology_key.as_str() {
            "" => errors.required(format!("{path}.topologyKey"), "can not be empty"),
            key => names::qualified_name(format!("{path}.topologyKey"), key, errors),
        }
        let answers = ["DoNotSchedule", "ScheduleAnyway"];
        if !answers.contains(&it.when_unsatisfiable.as_str()) {
            let path = format!("{path}.whenUnsatisfiable");
            errors.not_supported(path, &it.when_unsatisfiable, &answers);
        }
        let pair = (&it.topology_key, &it.when_unsatisfiable);
        if seen.contains(&pair) {
            let shown = format!("{{{}, {}}}", it.topology_key, it.when_unsatisfiable);
            errors.duplicate(format!("{path}.{{topologyKey, whenUnsatisfiable}}"), quoted(&shown));
        }
        seen.push(pair);
        if let Some(selector) = &it.label_selector {
            label_selector(&format!("{path}.labelSelector"), selector, errors);
        }
    }
}
