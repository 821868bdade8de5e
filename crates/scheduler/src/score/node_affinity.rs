//! Preferred node affinity. Upstream: `plugins/nodeaffinity`, Score.

use crate::pod::Place;
use api::core::node::matches_term;

pub(super) fn score(places: &[Place<'_>]) -> Vec<i64> {
    places.iter().map(at).collect()
}

fn at(place: &Place<'_>) -> i64 {
    let affinity = place.request.spec.affinity.as_ref().and_then(|it| it.node_affinity.as_ref());
    let preferred =
        affinity.map(|it| it.preferred_during_scheduling_ignored_during_execution.iter());
    let terms: Vec<_> = preferred.into_iter().flatten().flatten().collect();
    let whole: i64 = terms.iter().map(|it| i64::from(it.weight)).sum();
    let hit = terms.iter().filter(|it| matches_term(place.node, &it.preference));
    let hit: i64 = hit.map(|it| i64::from(it.weight)).sum();
    if whole <= 0 { 0 } else { hit * 100 / whole }
}
