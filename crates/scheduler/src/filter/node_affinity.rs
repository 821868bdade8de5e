//! Node selector and required node affinity. Upstream: `plugins/nodeaffinity`.

use super::Refused;
use crate::pod::Place;
use api::core::node::is_chosen_by;

pub(super) fn filter(place: &Place<'_>) -> Result<(), Refused> {
    match is_chosen_by(place.node, &place.request.spec) {
        true => Ok(()),
        false => Err(Refused::for_good("node(s) didn't match Pod's node affinity/selector")),
    }
}
