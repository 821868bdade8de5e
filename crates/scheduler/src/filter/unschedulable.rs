//! A node that is closed for new pods. Upstream: `plugins/nodeunschedulable`.

use super::Refused;
use super::taints::is_tolerated;
use crate::pod::Place;
use api::core::{node::is_unschedulable, v1::Taint};

pub(super) fn filter(place: &Place<'_>) -> Result<(), Refused> {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    match is_unschedulable(place.node) && !is_tolerated(&place.request.spec, &taint) {
        true => Err(Refused::for_good("node(s) were unschedulable")),
        false => Ok(()),
    }
}
