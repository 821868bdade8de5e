//! The node with the most left. Upstream: `plugins/noderesources/least_allocated.go`.

use crate::pod::Place;
use api::meta::Exact;

/// What a container without requests is counted as, so that such pods spread too. Upstream's figures.
const CPU_MILLI: i64 = 100;
const MEMORY_BYTES: i64 = 200 << 20;

pub(super) fn score(places: &[Place<'_>]) -> Vec<i64> {
    places.iter().map(at).collect()
}

fn at(place: &Place<'_>) -> i64 {
    let share = |resource: &str, least: Exact| {
        let has = place.has.get(resource).copied().unwrap_or_default().0;
        let wants = place.request.wants.get(resource).copied().unwrap_or_default().max(least);
        let count = i128::try_from(place.pods.len()).unwrap_or(0);
        let used = place.used.get(resource).copied().unwrap_or_default().0.max(least.0 * count);
        if has <= 0 { 0 } else { ((has - used - wants.0).max(0) * 100 / has) as i64 }
    };
    let cpu = share("cpu", Exact(Exact::from_units(CPU_MILLI).0 / 1000));
    let memory = share("memory", Exact::from_units(MEMORY_BYTES));
    (cpu + memory) / 2
}
