//! The history of a set's template: from a set to a ControllerRevision and back.
//!
//! Upstream: `pkg/controller/history/controller_history.go`, `stateful_set_utils.go` (getPatch,
//! ApplyRevision). The name is made of our own hash: nothing but equality hangs on it.

use crate::{
    codec,
    k8s::{
        api::apps::v1::ControllerRevision,
        apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
    },
    kind::Object,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// On each revision: the hash that is in its name.
pub const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The template as the patch that a revision keeps: it puts the template back as a whole.
pub fn template_patch<T: Object>(set: &T) -> Value {
    let mut template = codec::to_value(set)["spec"]["template"].take();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// A revision of this set's template, unowned: the caller says who controls it.
pub fn revision_of<T: Object>(set: &T, number: i64, collisions: i32) -> ControllerRevision {
    let data = template_patch(set);
    let hash = hash(&data, collisions);
    let template = data["spec"]["template"]["metadata"]["labels"].as_object();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = template.into_iter().flatten().map(|(key, value)| (key.clone(), text(value)));
    let mut labels: BTreeMap<String, String> = labels.collect();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", set.name())),
            namespace: set.metadata().namespace.clone(),
            labels: Some(labels),
            annotations: set.metadata().annotations.clone(),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

/// Whether two revisions hold the same template.
pub fn same_template(a: &ControllerRevision, b: &ControllerRevision) -> bool {
    a.data == b.data
}

/// The set with the template that it had at a revision.
pub fn at_revision<T: Object>(set: &T, revision: &ControllerRevision) -> T {
    let mut value = codec::to_value(set);
    let template = revision.data.as_ref().map(|it| it.0["spec"]["template"].clone());
    if let Some(Value::Object(mut template)) = template {
        template.remove("$patch");
        value["spec"]["template"] = Value::Object(template);
    }
    codec::from_value(&value).unwrap_or_else(|_| set.clone())
}

/// FNV-1a over the document, in letters that make no words.
pub(super) fn hash(data: &Value, collisions: i32) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = data.to_string();
    let salt = if collisions == 0 { Vec::new() } else { collisions.to_le_bytes().to_vec() };
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
    let hash = text.as_bytes().iter().chain(&salt).fold(2_166_136_261, step);
    let letter = |it: u8| char::from(LETTERS[usize::from(it) % LETTERS.len()]);
    hash.to_string().bytes().map(letter).collect()
}
