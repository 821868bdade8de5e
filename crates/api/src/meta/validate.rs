//! What every object's metadata must be, and what may not change in it.
//!
//! The name itself is each kind's affair ([`crate::Kind::validate_name`]).
//! Upstream: `apimachinery/pkg/api/validation/objectmeta.go`.

use super::{LabelSelector, ObjectMeta, OwnerReference, absent::list, names};
use crate::field::{Errors, quoted};

/// Says what is wrong with an object's metadata, the name's form aside.
pub fn validate(meta: &ObjectMeta, namespaced: bool, errors: &mut Errors) {
    if meta.name.as_deref().unwrap_or_default().is_empty() {
        errors.required("metadata.name", "name or generateName is required");
    }
    match (namespaced, meta.namespace.as_deref().unwrap_or_default()) {
        (true, "") => errors.required("metadata.namespace", ""),
        (true, namespace) => names::dns_label("metadata.namespace", namespace, errors),
        (false, "") => {}
        (false, _) => errors.forbidden("metadata.namespace", "not allowed on this type"),
    }
    names::not_negative("metadata.generation", meta.generation.unwrap_or(0), errors);
    validate_lists(meta, errors);
    validate_finalizers(list(&meta.finalizers), errors);
}

/// Says which changes from `old` are not allowed.
pub fn validate_update(meta: &ObjectMeta, old: &ObjectMeta, errors: &mut Errors) {
    if old.deletion_timestamp.is_some() {
        let before = list(&old.finalizers);
        let mut added: Vec<String> = list(&meta.finalizers).to_vec();
        added.retain(|it| !before.contains(it));
        if !added.is_empty() {
            added.sort();
            let added: Vec<String> = added.iter().map(|it| quoted(it)).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden("metadata.finalizers", detail);
        }
    }
    let mut same = |field: &str, value: &Option<String>, before: &Option<String>| {
        let value = value.as_deref().unwrap_or_default();
        if value != before.as_deref().unwrap_or_default() {
            errors.invalid(format!("metadata.{field}"), quoted(value), "field is immutable");
        }
    };
    same("name", &meta.name, &old.name);
    same("namespace", &meta.namespace, &old.namespace);
    same("uid", &meta.uid, &old.uid);
    validate_lists(meta, errors);
}

/// Labels and annotations of a template: the only metadata that it hands on.
pub(crate) fn validate_template(path: &str, meta: Option<&ObjectMeta>, errors: &mut Errors) {
    let Some(meta) = meta else { return };
    if let Some(annotations) = &meta.annotations {
        names::annotations(format!("{path}.annotations"), annotations, errors);
    }
    if let Some(labels) = &meta.labels {
        names::labels(format!("{path}.labels"), labels, errors);
    }
}

/// Says what is wrong with a label selector.
pub fn label_selector(path: &str, selector: &LabelSelector, errors: &mut Errors) {
    if let Some(labels) = &selector.match_labels {
        names::labels(format!("{path}.matchLabels"), labels, errors);
    }
    for (n, it) in list(&selector.match_expressions).iter().enumerate() {
        let path = format!("{path}.matchExpressions[{n}]");
        let values = list(&it.values);
        match (it.operator.as_str(), values.len()) {
            ("In" | "NotIn", 0) => errors.required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            ("Exists" | "DoesNotExist", 1..) => errors.forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (operator, _) => errors.invalid(
                format!("{path}.operator"),
                quoted(operator),
                "not a valid selector operator",
            ),
        }
        names::qualified_name(format!("{path}.key"), &it.key, errors);
        for (n, value) in values.iter().enumerate() {
            names::label_value(format!("{path}.values[{n}]"), value, errors);
        }
    }
}

fn validate_lists(meta: &ObjectMeta, errors: &mut Errors) {
    if let Some(labels) = &meta.labels {
        names::labels("metadata.labels", labels, errors);
    }
    if let Some(annotations) = &meta.annotations {
        names::annotations("metadata.annotations", annotations, errors);
    }
    validate_owners(list(&meta.owner_references), errors);
}

fn validate_owners(owners: &[OwnerReference], errors: &mut Errors) {
    let path = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for owner in owners {
        let fields = [
            ("apiVersion", &owner.api_version, "version must not be empty"),
            ("kind", &owner.kind, "must not be empty"),
            ("name", &owner.name, "must not be empty"),
            ("uid", &owner.uid, "must not be empty"),
        ];
        for (field, value, detail) in fields {
            if value.is_empty() {
                errors.invalid(format!("{path}.{field}"), quoted(value), detail);
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.invalid(path, shown(owner), detail);
        }
        if owner.controller != Some(true) {
            continue;
        }
        let this = format!("{}/{}", owner.kind, owner.name);
        match &controller {
            None => controller = Some(this),
            Some(first) => {
                let all: Vec<String> = owners.iter().map(shown).collect();
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                errors.invalid(path, format!("[{}]", all.join(",")), detail);
            }
        }
    }
}

fn shown(owner: &OwnerReference) -> String {
    serde_json::to_string(owner).expect("API objects are plain data")
}

fn validate_finalizers(finalizers: &[String], errors: &mut Errors) {
    for finalizer in finalizers {
        names::qualified_name("metadata.finalizers", finalizer, errors);
    }
    let (orphan, foreground) = (crate::deletion::ORPHAN, crate::deletion::FOREGROUND);
    let has = |name: &str| finalizers.iter().any(|it| it == name);
    if has(orphan) && has(foreground) {
        let all: Vec<String> = finalizers.iter().map(|it| quoted(it)).collect();
        let detail = format!("finalizer {orphan} and {foreground} cannot be both set");
        errors.invalid("metadata.finalizers", format!("[{}]", all.join(",")), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    fn wrong(value: Value, namespaced: bool) -> String {
        let mut errors = Errors::default();
        validate(&meta(value), namespaced, &mut errors);
        errors.message()
    }

    #[test]
    fn says_what_is_wrong_with_metadata() {
        assert_eq!(wrong(json!({"name": "a", "namespace": "ns"}), true), "");
        assert_eq!(wrong(json!({"name": "a"}), true), "metadata.namespace: Required value");
        assert_eq!(
            wrong(json!({"namespace": "ns"}), false),
            "[metadata.name: Required value: name or generateName is required, \
             metadata.namespace: Forbidden: not allowed on this type]"
        );
        let owner = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        let two = wrong(json!({"name": "a", "ownerReferences": [owner("x"), owner("y")]}), false);
        assert!(two.ends_with("Found \"true\" in references for Pod/x and Pod/y"), "{two}");
        let both = json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]});
        assert_eq!(
            wrong(both, false),
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: \
             finalizer orphan and foregroundDeletion cannot be both set"
        );
    }

    #[test]
    fn a_deleted_object_takes_no_new_finalizers() {
        let mut errors = Errors::default();
        let deletion = "2026-01-01T00:00:00Z";
        let old = meta(json!({"name": "a", "deletionTimestamp": deletion, "finalizers": ["a/b"]}));
        let new = meta(json!({"name": "b", "finalizers": ["a/b", "a/c"]}));
        validate_update(&new, &old, &mut errors);
        assert_eq!(
            errors.message(),
            "[metadata.finalizers: Forbidden: no new finalizers can be added if the object is being \
             deleted, found new finalizers []string{\"a/c\"}, \
             metadata.name: Invalid value: \"b\": field is immutable]"
        );
    }
}
