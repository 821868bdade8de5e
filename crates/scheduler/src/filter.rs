//! What rules a node out, with upstream's reasons, and whether the leaving of other pods could change it.

mod node_affinity;
mod node_name;
mod pod_affinity;
mod ports;
mod resources;
mod taints;
mod topology_spread;
mod unschedulable;

use crate::pod::Place;
pub(crate) use pod_affinity::{Neighbours, Selects, is_there, value};
pub(crate) use topology_spread::Spread;

pub(crate) type Filter = fn(&Place<'_>) -> Result<(), Refused>;

/// Why a node is ruled out.
pub(crate) struct Refused {
    pub(crate) whys: Vec<String>,
    /// Also without the other pods of the node. Upstream: `UnschedulableAndUnresolvable`.
    pub(crate) for_good: bool,
}

impl Refused {
    pub(crate) fn for_now(why: impl Into<String>) -> Refused {
        Refused { whys: vec![why.into()], for_good: false }
    }

    pub(crate) fn for_good(why: impl Into<String>) -> Refused {
        Refused { whys: vec![why.into()], for_good: true }
    }
}

/// In upstream's order: the first that refuses gives the reason.
pub(crate) static FILTERS: &[Filter] = &[
    unschedulable::filter,
    node_name::filter,
    taints::filter,
    node_affinity::filter,
    ports::filter,
    resources::filter,
    topology_spread::filter,
    pod_affinity::filter,
];
