//! Fewer soft taints are better. Upstream: `plugins/tainttoleration`, Score.

use crate::pod::Place;

pub(super) fn score(places: &[Place<'_>]) -> Vec<i64> {
    places.iter().map(at).collect()
}

fn at(place: &Place<'_>) -> i64 {
    let taints = place.node.spec.iter().filter_map(|it| it.taints.as_ref()).flatten();
    let soft = taints.filter(|it| it.effect == "PreferNoSchedule").count();
    100 / (1 + i64::try_from(soft).unwrap_or(99))
}
