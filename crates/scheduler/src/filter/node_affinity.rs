//! Node selector and required node affinity. Upstream: `plugins/nodeaffinity`.

use crate::pod::Place;
use api::core::{
    node::matches_selector_terms,
    v1::{Node, PodSpec},
};

pub(super) fn filter(place: &Place<'_>) -> Vec<String> {
    match chooses(&place.request.spec, place.node) {
        true => Vec::new(),
        false => vec!["node(s) didn't match Pod's node affinity/selector".to_owned()],
    }
}

/// Whether the pod's own words let it go to the node.
pub(crate) fn chooses(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &String| node.metadata.labels.as_ref().and_then(|it| it.get(key));
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|it| it.node_affinity.as_ref());
    let required =
        affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    let wanted = required.is_none_or(|it| matches_selector_terms(node, &it.node_selector_terms));
    selected && wanted
}
