//! A new pod's own labels, as its selectors of other pods take them.
//!
//! Upstream: `pkg/registry/core/pod/strategy.go` (mutatePodAffinity, mutateTopologySpreadConstraints), 1.36.

use crate::{
    k8s::api::core::v1::{Pod, PodAffinityTerm},
    meta::{LabelSelector, LabelSelectorRequirement, absent::list},
};
use std::collections::BTreeMap;

/// Adds to selectors what `matchLabelKeys` and `mismatchLabelKeys` name.
pub(super) fn merge(pod: &mut Pod) {
    let own = pod.metadata.labels.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else { return };
    if let Some(affinity) = &mut spec.affinity {
        if let Some(it) = &mut affinity.pod_affinity {
            let preferred = &mut it.preferred_during_scheduling_ignored_during_execution;
            let preferred = preferred.iter_mut().flatten().map(|it| &mut it.pod_affinity_term);
            let required = &mut it.required_during_scheduling_ignored_during_execution;
            preferred.chain(required.iter_mut().flatten()).for_each(|it| term(it, &own));
        }
        if let Some(it) = &mut affinity.pod_anti_affinity {
            let preferred = &mut it.preferred_during_scheduling_ignored_during_execution;
            let preferred = preferred.iter_mut().flatten().map(|it| &mut it.pod_affinity_term);
            let required = &mut it.required_during_scheduling_ignored_during_execution;
            preferred.chain(required.iter_mut().flatten()).for_each(|it| term(it, &own));
        }
    }
    for it in spec.topology_spread_constraints.iter_mut().flatten() {
        let keys = list(&it.match_label_keys).to_vec();
        it.label_selector.iter_mut().for_each(|it| add(it, &keys, "In", &own));
    }
}

fn term(term: &mut PodAffinityTerm, own: &BTreeMap<String, String>) {
    let Some(selector) = &mut term.label_selector else { return };
    add(selector, list(&term.match_label_keys), "In", own);
    add(selector, list(&term.mismatch_label_keys), "NotIn", own);
}

fn add(
    selector: &mut LabelSelector,
    keys: &[String],
    operator: &str,
    own: &BTreeMap<String, String>,
) {
    for key in keys {
        let Some(value) = own.get(key) else { continue };
        selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Errors, Kind, codec};
    use serde_json::json;

    #[test]
    fn selectors_take_values_from_the_pods_own_labels() {
        let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "zone",
            "matchLabelKeys": ["hash", "none"], "mismatchLabelKeys": ["tenant"]});
        let spread = json!({"labelSelector": {}, "topologyKey": "zone", "maxSkew": 1,
            "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["hash"]});
        let mut pod: Pod = codec::from_value(&json!({
            "metadata": {"name": "p", "namespace": "ns", "labels": {"hash": "h", "tenant": "t"}},
            "spec": {"containers": [{"name": "c", "image": "i"}],
                "topologySpreadConstraints": [spread], "affinity": {"podAffinity":
                    {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}}))
        .unwrap();
        Kind::default(&mut pod);
        pod.prepare_create();
        let spec = codec::to_value(&pod)["spec"].clone();
        let affinity = &spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            [0]["labelSelector"];
        assert_eq!(
            affinity["matchExpressions"],
            json!([{"key": "hash", "operator": "In", "values": ["h"]},
                {"key": "tenant", "operator": "NotIn", "values": ["t"]}])
        );
        assert_eq!(
            spec["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"][0]["key"],
            "hash"
        );
        let mut errors = Errors::default();
        pod.validate(&mut errors);
        assert_eq!(errors.message(), "");
    }
}
