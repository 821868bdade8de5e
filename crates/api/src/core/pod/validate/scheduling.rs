//! Where a pod may and wants to go: affinity, tolerations, spreading.

use crate::{
    core::node,
    field::{Errors, quoted},
    k8s::api::core::v1::{
        Affinity, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint,
        WeightedPodAffinityTerm,
    },
    meta::{
        LabelSelector,
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
            node::validate_term(&format!("{path}.preference"), &term.preference, false, errors);
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
    let (keys, others) = (list(&term.match_label_keys), list(&term.mismatch_label_keys));
    label_keys(path, keys, others, term.label_selector.as_ref(), errors);
    let path = format!("{path}.topologyKey");
    if term.topology_key.is_empty() {
        errors.required(&path, "can not be empty");
    }
    names::qualified_name(path, &term.topology_key, errors);
}

/// Keys whose values a new pod's selectors take from its own labels.
fn label_keys(
    path: &str,
    keys: &[String],
    others: &[String],
    selector: Option<&LabelSelector>,
    errors: &mut Errors,
) {
    for (field, keys) in [("matchLabelKeys", keys), ("mismatchLabelKeys", others)] {
        let path = format!("{path}.{field}");
        if selector.is_none() && !keys.is_empty() {
            errors.forbidden(path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (n, key) in keys.iter().enumerate() {
            names::qualified_name(format!("{path}[{n}]"), key, errors);
        }
    }
    // What the keys gave has been merged into the selector: once is theirs, twice is one too many.
    let labels = selector.and_then(|it| it.match_labels.as_ref());
    let mut seen: Vec<&String> = labels.into_iter().flatten().map(|it| it.0).collect();
    for it in selector.map(|it| list(&it.match_expressions)).unwrap_or_default() {
        if let Some(n) = keys.iter().rposition(|key| *key == it.key)
            && seen.contains(&&it.key)
        {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.invalid(format!("{path}[{n}]"), quoted(&it.key), detail);
        }
        seen.push(&it.key);
    }
    for (n, key) in keys.iter().enumerate().filter(|it| others.contains(it.1)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.invalid(format!("{path}.matchLabelKeys[{n}]"), quoted(key), detail);
    }
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
            "Equal" | "" => names::label_value_whole(&at, value, errors),
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
    let all = list(&spec.topology_spread_constraints);
    for (n, it) in all.iter().enumerate() {
        let path = format!("{path}[{n}]");
        positive(format!("{path}.maxSkew"), it.max_skew, errors);
        if it.topology_key.is_empty() {
            errors.required(format!("{path}.topologyKey"), "can not be empty");
        }
        let answers = ["DoNotSchedule", "ScheduleAnyway"];
        if !answers.contains(&it.when_unsatisfiable.as_str()) {
            let path = format!("{path}.whenUnsatisfiable");
            errors.not_supported(path, &it.when_unsatisfiable, &answers);
        }
        let again = |other: &TopologySpreadConstraint| {
            other.topology_key == it.topology_key
                && other.when_unsatisfiable == it.when_unsatisfiable
        };
        if all[n + 1..].iter().any(again) {
            let shown = format!("{{{}, {}}}", it.topology_key, it.when_unsatisfiable);
            errors.duplicate(format!("{path}.{{topologyKey, whenUnsatisfiable}}"), quoted(&shown));
        }
        if let Some(least) = it.min_domains {
            let path = format!("{path}.minDomains");
            positive(path.clone(), least, errors);
            if it.when_unsatisfiable != "DoNotSchedule" {
                let detail = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    it.when_unsatisfiable
                );
                errors.invalid(path, least, detail);
            }
        }
        let policies = [
            ("nodeAffinityPolicy", &it.node_affinity_policy),
            ("nodeTaintsPolicy", &it.node_taints_policy),
        ];
        for (field, policy) in policies {
            let known = ["Honor", "Ignore"];
            if let Some(policy) = policy.as_deref().filter(|it| !known.contains(it)) {
                errors.not_supported(format!("{path}.{field}"), policy, &known);
            }
        }
        label_keys(&path, list(&it.match_label_keys), &[], it.label_selector.as_ref(), errors);
        if let Some(selector) = &it.label_selector {
            label_selector(&format!("{path}.labelSelector"), selector, errors);
        }
    }
}

fn positive(path: String, number: i32, errors: &mut Errors) {
    if number <= 0 {
        errors.invalid(path, number, "must be greater than zero");
    }
}
