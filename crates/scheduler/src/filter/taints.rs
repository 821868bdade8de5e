//! Taints that a pod does not tolerate. Upstream: `plugins/tainttoleration`.

use super::Refused;
use crate::pod::Place;
use api::core::{
    pod::tolerates,
    v1::{PodSpec, Taint},
};

pub(super) fn filter(place: &Place<'_>) -> Result<(), Refused> {
    let taints = place.node.spec.iter().filter_map(|it| it.taints.as_ref()).flatten();
    let mut hard = taints.filter(|it| matches!(it.effect.as_str(), "NoSchedule" | "NoExecute"));
    match hard.any(|it| !is_tolerated(&place.request.spec, it)) {
        true => Err(Refused::for_good("node(s) had untolerated taint(s)")),
        false => Ok(()),
    }
}

pub(super) fn is_tolerated(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations.iter().flatten().any(|it| tolerates(it, taint))
}
