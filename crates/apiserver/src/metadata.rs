//! What no author may write of an object's metadata.
//!
//! Upstream: `apiserver/pkg/registry/rest/{meta,update}.go`.

use api::{AnyKind, Errors, meta, meta::ObjectMeta};
use std::collections::BTreeMap;

/// What is wrong with the metadata of an object in itself, its name included.
pub(crate) fn validate(kind: &AnyKind, meta: &ObjectMeta, errors: &mut Errors) {
    if let Some(name) = meta.name.as_deref().filter(|it| !it.is_empty()) {
        kind.rules.validate_name(name, errors);
    }
    meta::validate::validate(meta, kind.is_namespaced(), errors);
}

/// Puts back what is not the author's to change.
pub(crate) fn keep(meta: &mut ObjectMeta, old: &ObjectMeta) {
    meta.name.clone_from(&old.name);
    meta.namespace.clone_from(&old.namespace);
    meta.uid.clone_from(&old.uid);
    meta.creation_timestamp.clone_from(&old.creation_timestamp);
    meta.deletion_timestamp.clone_from(&old.deletion_timestamp);
    meta.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    meta.generation = old.generation;
    meta.managed_fields = None;
    meta.self_link = None;
    tidy(meta);
}

/// Empty maps and lists are absent ones.
pub(crate) fn tidy(meta: &mut ObjectMeta) {
    let empty =
        |map: &Option<BTreeMap<String, String>>| map.as_ref().is_some_and(BTreeMap::is_empty);
    if empty(&meta.labels) {
        meta.labels = None;
    }
    if empty(&meta.annotations) {
        meta.annotations = None;
    }
    if meta.finalizers.as_ref().is_some_and(Vec::is_empty) {
        meta.finalizers = None;
    }
    if meta.owner_references.as_ref().is_some_and(Vec::is_empty) {
        meta.owner_references = None;
    }
    if meta.generate_name.as_ref().is_some_and(String::is_empty) {
        meta.generate_name = None;
    }
}
