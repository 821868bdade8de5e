//! A pod that names its node. Upstream: `plugins/nodename`.

use super::Refused;
use crate::pod::Place;
use api::Object;

pub(super) fn filter(place: &Place<'_>) -> Result<(), Refused> {
    match place.request.spec.node_name.as_deref() {
        None | Some("") => Ok(()),
        Some(name) if name == place.node.name() => Ok(()),
        Some(_) => Err(Refused::for_good("node(s) didn't match the requested node name")),
    }
}
