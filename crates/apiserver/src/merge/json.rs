//! JSON patches (RFC 6902), bounded as upstream bounds them.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/patch.go`, applyJSPatch.

use api::Failure;
use json_patch::{Patch, PatchOperation};
use serde_json::Value;
use std::fmt::Display;

/// Upstream's JSONPatchMaxCopyBytes: each copy may double the document.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// serde_json reads nothing deeper, and whatever walks a document, dropping it included, recurses.
const DEPTH_MAX: usize = 128;

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
    let (mut copied, mut depths) = (0, Depths::of(document));
    for step in &patch.0 {
        depths.take(document, step).map_err(|why| wrong(&why))?;
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

/// How deep a document is at most, step by step.
struct Depths {
    most: usize,
    /// How often the bound was not good enough, and the document had to be looked at.
    looks: usize,
}

/// Each walks the whole document.
const LOOKS_MAX: usize = 100;

impl Depths {
    fn of(document: &Value) -> Depths {
        Depths { most: depth(document), looks: 0 }
    }

    /// Judges a step before it is done.
    fn take(&mut self, document: &Value, step: &PatchOperation) -> Result<(), String> {
        let below = |path: &str| path.matches('/').count();
        let above = below(step.path().as_str());
        let (most, from) = match step {
            PatchOperation::Add(it) => (above + depth(&it.value), None),
            PatchOperation::Replace(it) => (above + depth(&it.value), None),
            PatchOperation::Copy(it) => (above + self.most, Some(it.from.as_str())),
            PatchOperation::Move(it) => (above + self.most, Some(it.from.as_str())),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
        };
        let most = most.saturating_sub(from.map_or(0, below));
        if most <= DEPTH_MAX {
            self.most = self.most.max(most);
            return Ok(());
        }
        self.looks += 1;
        let moved = from.and_then(|it| document.pointer(it));
        let most = from.map_or(most, |_| moved.map_or(0, |it| above + depth(it)));
        if most > DEPTH_MAX || self.looks > LOOKS_MAX {
            return Err(format!("what it makes is nested deeper than {DEPTH_MAX}"));
        }
        self.most = depth(document).max(most);
        Ok(())
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
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
        // Each doubles the depth and copies little.
        let deeper: Vec<Value> = (0..17)
            .map(|n| {
                let path = format!("/data{}", "/a".repeat(1 << n));
                json!({"op": "copy", "from": "/data", "path": path})
            })
            .collect();
        let patch = read(&serde_json::to_vec(&deeper).unwrap()).unwrap();
        let failure = apply(&mut json!({"data": {"k": "v"}}), &patch).unwrap_err();
        assert!(failure.to_string().contains("nested deeper than"), "{failure}");
        let mut document = json!({"data": {"k": "v"}});
        apply(&mut document, &read(&serde_json::to_vec(&copies[..3]).unwrap()).unwrap()).unwrap();
        assert_eq!(document["data"]["a2"]["a1"]["a0"]["k"], "v");
    }
}
