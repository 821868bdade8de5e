//! Which of the nodes that pass is the best: the sum of these, each from 0 to 100.

mod least_allocated;
mod node_affinity;
mod taints;

use crate::pod::Place;

pub(crate) type Score = fn(&Place<'_>) -> i64;

pub(crate) static SCORES: &[Score] = &[least_allocated::score, node_affinity::score, taints::score];
