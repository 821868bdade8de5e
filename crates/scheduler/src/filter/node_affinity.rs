//! Node selector and required node affinity. Upstream: `plugins/nodeaffinity`.

use crate::pod::Place;
use api::core::node::is_chosen_by;

pub(super) fn filter(place: &Place<'_>) -> Vec<String> {
    match is_chosen_by(place.node, &place.request.spec) {
        true => Vec::new(),
        false => vec!["node(s) didn't match Pod's node affinity/selector".to_owned()],
    }
}
