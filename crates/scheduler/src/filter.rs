//! What rules a node out. Each answers with upstream's reasons; none means that the node passes.

mod node_affinity;
mod node_name;
mod pod_affinity;
mod ports;
mod resources;
mod taints;
mod topology_spread;
mod unschedulable;

use crate::pod::Place;
pub(crate) use pod_affinity::Neighbours;
pub(crate) use topology_spread::Spread;

pub(crate) type Filter = fn(&Place<'_>) -> Vec<String>;

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
