//! Taints that a pod does not tolerate. Upstream: `plugins/tainttoleration`.

use crate::pod::Place;
use api::core::{
    pod::tolerates,
    v1::{PodSpec, Taint},
};

pub(super) fn filter(place: &Place<'_>) -> Vec<String> {
    let taints = place.node.spec.iter().filter_map(|it| it.taints.as_ref()).flatten();
    let mut hard = taints.filter(|it| matches!(it.effect.as_str(), "NoSchedule" | "NoExecute"));
    match hard.any(|it| !is_tolerated(&place.request.spec, it)) {
        true => vec!["node(s) had untolerated taint(s)".to_owned()],
        false => Vec::new(),
    }
}

pub(super) fn is_tolerated(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations.iter().flatten().any(|it| tolerates(it, taint))
}
