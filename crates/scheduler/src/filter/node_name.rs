//! A pod that names its node. Upstream: `plugins/nodename`.

use crate::pod::Place;
use api::Object;

pub(super) fn filter(place: &Place<'_>) -> Vec<String> {
    match place.request.spec.node_name.as_deref() {
        None | Some("") => Vec::new(),
        Some(name) if name == place.node.name() => Vec::new(),
        Some(_) => vec!["node(s) didn't match the requested node name".to_owned()],
    }
}
