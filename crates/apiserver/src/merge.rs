//! Patches: what kinds there are, and how each changes a document.

mod json;
mod strategic;

use api::{Failure, schema::Shapes};
use http::{HeaderMap, header};
use json_patch::PatchOperation;
use serde_json::Value;

pub(crate) enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7396.
    Merge(Value),
    Strategic(Value),
}

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Whether the body is a configuration to be applied, which is no patch.
pub(crate) fn is_apply(headers: &HeaderMap) -> bool {
    media_type(headers) == "application/apply-patch+yaml"
}

fn media_type(headers: &HeaderMap) -> &str {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

impl Patch {
    pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Patch, Failure> {
        let wrong = |error: serde_json::Error| {
            Failure::bad_request(format!("error decoding patch: {error}"))
        };
        match media_type(headers) {
            "application/json-patch+json" => json::read(body).map(Patch::Json),
            "application/merge-patch+json" => {
                serde_json::from_slice(body).map_err(wrong).and_then(object).map(Patch::Merge)
            }
            "application/strategic-merge-patch+json" => {
                serde_json::from_slice(body).map_err(wrong).and_then(object).map(Patch::Strategic)
            }
            _ => Err(Failure::new(
                415,
                "UnsupportedMediaType",
                format!(
                    "the body of the request was in an unknown format - accepted media types include: {ACCEPTED}"
                ),
            )),
        }
    }

    /// Fields of its steps that mean nothing: `[0].vaule`. What else is in a patch is judged with the object.
    pub(crate) fn unknown(&self, body: &[u8]) -> Vec<String> {
        let Patch::Json(_) = self else { return Vec::new() };
        let steps: Vec<serde_json::Map<String, Value>> =
            serde_json::from_slice(body).unwrap_or_default();
        let is_known = |it: &str| matches!(it, "op" | "path" | "from" | "value");
        let mut unknown = Vec::new();
        for (nth, step) in steps.iter().enumerate() {
            let odd = step.keys().filter(|it| !is_known(it));
            unknown.extend(odd.map(|it| format!("[{nth}].{it}")));
        }
        unknown
    }

    /// Whether it reads or writes `metadata.managedFields`, which are large and mostly left alone.
    pub(crate) fn is_about_owners(&self) -> bool {
        const LIST: &str = "/metadata/managedFields";
        let touches = |it: String| LIST.starts_with(&it) || it.starts_with(LIST);
        match self {
            Patch::Json(patch) => patch.0.iter().any(|it| {
                let from = match it {
                    PatchOperation::Move(it) => Some(it.from.to_string()),
                    PatchOperation::Copy(it) => Some(it.from.to_string()),
                    _ => None,
                };
                touches(it.path().to_string()) || from.is_some_and(touches)
            }),
            Patch::Merge(patch) | Patch::Strategic(patch) => {
                let says = |it: &Value| it.get("$patch").is_some();
                says(patch)
                    || patch.get("metadata").is_some_and(|it| {
                        !it.is_object() || says(it) || it.get("managedFields").is_some()
                    })
            }
        }
    }

    /// Changes a document of the kind with these shapes.
    pub(crate) fn apply(&self, shapes: &Shapes, document: &mut Value) -> Result<(), Failure> {
        match self {
            Patch::Json(patch) => json::apply(document, patch),
            Patch::Merge(patch) => {
                json_patch::merge(document, patch);
                Ok(())
            }
            Patch::Strategic(patch) => strategic::merge(document, patch, shapes)
                .map_err(|error| Failure::bad_request(error.to_string())),
        }
    }
}

fn object(patch: Value) -> Result<Value, Failure> {
    match patch.is_object() {
        true => Ok(patch),
        false => Err(Failure::bad_request("error decoding patch: the patch is not a JSON object")),
    }
}
