//! A node that is closed for new pods. Upstream: `plugins/nodeunschedulable`.

use super::taints::{Taint, tolerates};
use crate::pod::Place;

pub(super) fn filter(place: &Place<'_>) -> Vec<String> {
    let closed = place.node.spec.as_ref().and_then(|it| it.unschedulable).unwrap_or(false);
    let taint = Taint { key: "node.kubernetes.io/unschedulable", value: "", effect: "NoSchedule" };
    if closed && !tolerates(&place.request.spec, &taint) {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    Vec::new()
}
