//! JSON patches (RFC 6902), bounded as upstream bounds them.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/patch.go`, applyJSPatch.

use api::Failure;
use json_patch::Patch;
use serde_json::Value;

/// Each operation may copy the whole document: upstream takes no more than this many.
const OPERATIONS_MAX: usize = 10_000;

pub(super) fn read(body: &[u8]) -> Result<Patch, Failure> {
    let wrong =
        |error: serde_json::Error| Failure::bad_request(format!("error decoding patch: {error}"));
    // Of a field that a step names twice the last one counts, as everywhere.
    let steps: Value = serde_json::from_slice(body).map_err(wrong)?;
    let patch: Patch = serde_json::from_value(steps).map_err(wrong)?;
    if patch.0.len() > OPERATIONS_MAX {
        let why = format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            patch.0.len()
        );
        return Err(Failure::new(413, "RequestEntityTooLarge", why));
    }
    Ok(patch)
}

pub(super) fn apply(document: &mut Value, patch: &Patch) -> Result<(), Failure> {
    json_patch::patch(document, patch).map_err(|error| {
        Failure::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {error}"),
        )
    })
}
