//! Room for what the pod requests. Upstream: `plugins/noderesources/fit.go`.

use crate::pod::Place;
use api::meta::Exact;

pub(super) fn filter(place: &Place<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    let most = place.has.get("pods").map_or(i64::MAX, |it| it.units());
    if i64::try_from(place.pods.len()).unwrap_or(i64::MAX) >= most {
        reasons.push("Too many pods".to_owned());
    }
    for (resource, wanted) in &place.request.wants {
        if *wanted > Exact::ZERO && *wanted > place.free(resource) {
            reasons.push(format!("Insufficient {resource}"));
        }
    }
    reasons
}
