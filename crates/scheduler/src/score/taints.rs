//! Fewer soft taints that the pod does not tolerate are better. Upstream: `plugins/tainttoleration`, Score and
//! NormalizeScore.

use crate::pod::Place;
use api::core::{pod::tolerates, v1::Toleration};

pub(super) fn score(places: &[Place<'_>]) -> Vec<i64> {
    let counts: Vec<i64> = places.iter().map(count).collect();
    let most = counts.iter().max().copied().unwrap_or(0);
    let at = |count: i64| if most == 0 { 100 } else { 100 - 100 * count / most };
    counts.into_iter().map(at).collect()
}

fn count(place: &Place<'_>) -> i64 {
    let tolerations = place.request.spec.tolerations.iter().flatten();
    let is_soft = |it: &&Toleration| {
        it.effect.as_deref().is_none_or(|it| it.is_empty() || it == "PreferNoSchedule")
    };
    let soft: Vec<&Toleration> = tolerations.filter(is_soft).collect();
    let taints = place.node.spec.iter().filter_map(|it| it.taints.as_ref()).flatten();
    let disliked = taints
        .filter(|it| it.effect == "PreferNoSchedule" && !soft.iter().any(|by| tolerates(by, it)));
    i64::try_from(disliked.count()).unwrap_or(i64::MAX / 100)
}
