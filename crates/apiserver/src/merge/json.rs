//! JSON patches (RFC 6902), bounded as upstream bounds them.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/patch.go`, applyJSPatch.

use api::Failure;
use json_patch::{Patch, PatchOperation};
use serde_json::Value;
use std::fmt::Display;

/// Upstream's JSONPatchMaxCopyBytes: each copy may double the document.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

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
    let wrong = |why: &dyn Display| {
        let why = format!("the server rejected our request due to an error in our request: {why}");
        Failure::new(422, "Invalid", why)
    };
    let mut copied = 0;
    for step in &patch.0 {
        if let PatchOperation::Copy(copy) = step {
            copied += document.pointer(copy.from.as_str()).map_or(0, |it| it.to_string().len());
            if copied > COPIED_BYTES_MAX {
                let why = format!("its copies come to more than {COPIED_BYTES_MAX} bytes");
                return Err(wrong(&why));
            }
        }
        json_patch::patch(document, std::slice::from_ref(step)).map_err(|error| wrong(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn copies_of_copies_do_not_grow_without_end() {
        let copies: Vec<Value> = (0..40)
            .map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/a{n}")}))
            .collect();
        let patch = read(&serde_json::to_vec(&copies).unwrap()).unwrap();
        let mut document = json!({"data": {"k": "v"}});
        let failure = apply(&mut document, &patch).unwrap_err();
        assert!(failure.to_string().contains("copies come to more than"), "{failure}");
        let mut document = json!({"data": {"k": "v"}});
        apply(&mut document, &read(&serde_json::to_vec(&copies[..3]).unwrap()).unwrap()).unwrap();
        assert_eq!(document["data"]["a2"]["a1"]["a0"]["k"], "v");
    }
}
