//! Room for what the pod requests. Upstream: `plugins/noderesources/fit.go`.

use super::Refused;
use crate::pod::Place;
use api::meta::Exact;

pub(super) fn filter(place: &Place<'_>) -> Result<(), Refused> {
    let mut refused = Refused { whys: Vec::new(), for_good: false };
    let most = place.has.get("pods").map_or(i64::MAX, |it| it.units());
    if i64::try_from(place.pods.len()).unwrap_or(i64::MAX) >= most {
        refused.whys.push("Too many pods".to_owned());
    }
    for (resource, wanted) in &place.request.wants {
        if *wanted > Exact::ZERO && *wanted > place.free(resource) {
            refused.whys.push(format!("Insufficient {resource}"));
            // More than the whole node: nobody's leaving helps.
            refused.for_good |= *wanted > place.has.get(resource).copied().unwrap_or_default();
        }
    }
    if refused.whys.is_empty() { Ok(()) } else { Err(refused) }
}
