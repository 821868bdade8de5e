//! Where a DaemonSet's pods belong: which nodes they may run on, and the pod that names one of them.
//!
//! Upstream: `pkg/controller/daemon/util/daemonset_util.go` (1.36).

use crate::pod_template;
use api::{
    apps::{stateful_set::REVISION_LABEL, v1::DaemonSet},
    core::{
        node::is_chosen_by,
        pod::{node_name, tolerates},
        v1::{
            Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
            Pod, PodSpec, Toleration,
        },
    },
};
use world::World;

/// What a set's pod is to do on a node.
#[derive(Clone, Copy)]
pub(super) struct Verdict {
    /// A pod should be there.
    pub(super) runs: bool,
    /// A pod that is there may stay.
    pub(super) keeps: bool,
}

/// What every pod of a DaemonSet puts up with: (key, effect). It belongs to its node, however that fares.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

pub(super) fn verdict(set: &DaemonSet, node: &Node) -> Verdict {
    let mut spec = set.spec.as_ref().and_then(|it| it.template.spec.clone()).unwrap_or_default();
    tolerate(&mut spec);
    let named = spec.node_name.as_deref().unwrap_or_default();
    let is_named = named.is_empty() || Some(named) == node.metadata.name.as_deref();
    if !is_named || !is_chosen_by(node, &spec) {
        return Verdict { runs: false, keeps: false };
    }
    let taints = node.spec.as_ref().and_then(|it| it.taints.as_deref()).unwrap_or_default();
    let hurts = |effects: &[&str]| {
        taints
            .iter()
            .filter(|it| effects.contains(&it.effect.as_str()))
            .any(|taint| !spec.tolerations.iter().flatten().any(|it| tolerates(it, taint)))
    };
    Verdict { runs: !hurts(&["NoSchedule", "NoExecute"]), keeps: !hurts(&["NoExecute"]) }
}

fn tolerate(spec: &mut PodSpec) {
    let on_host = spec.host_network == Some(true);
    let network = on_host.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// A pod for one node.
pub(super) fn pod(world: &World, set: &DaemonSet, revision: &str, node: &str, nth: usize) -> Pod {
    let template = set.spec.as_ref().map(|it| it.template.clone()).unwrap_or_default();
    let mut pod = pod_template::pod(world, set, &template, nth);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    tolerate(spec);
    bind_to(spec, node);
    pod
}

/// The one node takes the place of every other requirement on the node: they hold already.
fn bind_to(spec: &mut PodSpec, node: &str) {
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let of_nodes: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
    let terms = NodeSelector { node_selector_terms: vec![term] };
    of_nodes.required_during_scheduling_ignored_during_execution = Some(terms);
}

/// The node that a pod runs on, or is to.
pub(super) fn node_of(pod: &Pod) -> &str {
    let named = || {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let fields = required.node_selector_terms.iter().filter_map(|it| it.match_fields.as_ref());
        let field = fields.flatten().find(|it| it.key == "metadata.name")?;
        field.values.as_ref()?.first().map(String::as_str)
    };
    match node_name(pod) {
        "" => named().unwrap_or_default(),
        node => node,
    }
}
