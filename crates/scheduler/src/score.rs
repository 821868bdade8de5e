//! Which of the nodes that pass is the best: the weighted sum of these, each from 0 to 100 for each node. Upstream:
//! `apis/config/v1/default_plugins.go`, the weights.

mod least_allocated;
mod node_affinity;
mod pod_affinity;
mod taints;
mod topology_spread;

use crate::pod::Place;

pub(crate) use pod_affinity::Leanings;
pub(crate) use topology_spread::Soft;

type Score = fn(&[Place<'_>]) -> Vec<i64>;

static SCORES: &[(i64, Score)] = &[
    (1, least_allocated::score),
    (2, node_affinity::score),
    (2, pod_affinity::score),
    (3, taints::score),
    (2, topology_spread::score),
];

/// For each of the places.
pub(crate) fn scores(places: &[Place<'_>]) -> Vec<i64> {
    let mut sums = vec![0; places.len()];
    for (weight, score) in SCORES {
        for (sum, points) in sums.iter_mut().zip(score(places)) {
            *sum += weight * points;
        }
    }
    sums
}
