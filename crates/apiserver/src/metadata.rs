//! The rules for metadata that hold for objects of every kind.
//!
//! Upstream: `apimachinery/pkg/api/validation/objectmeta.go`, `apiserver/pkg/registry/rest/update.go`.

use api::{
    AnyKind, Errors, deletion,
    field::quoted,
    meta::{ObjectMeta, names},
};
use std::collections::{BTreeMap, BTreeSet};

/// 256 KiB over all keys and values of the annotations.
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

/// Labels and annotations: an optional DNS prefix, a slash, and a name of at most 63 characters.
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What is wrong with the metadata of an object in itself.
pub(crate) fn validate(kind: &AnyKind, meta: &ObjectMeta, errors: &mut Errors) {
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.required("metadata.name", "name or generateName is required"),
        name => kind.rules.validate_name(name, errors),
    }
    match (kind.is_namespaced(), meta.namespace.as_deref().unwrap_or_default()) {
        (true, "") => errors.required("metadata.namespace", ""),
        (true, namespace) => names::dns_label("metadata.namespace", namespace, errors),
        (false, "") => {}
        (false, _) => errors.forbidden("metadata.namespace", "not allowed on this type"),
    }
    for (key, value) in meta.labels.iter().flatten() {
        qualified_name("metadata.labels", key, key, errors);
        label_value("metadata.labels", value, errors);
    }
    let annotations = meta.annotations.iter().flatten();
    for (key, _) in annotations.clone() {
        qualified_name("metadata.annotations", key, &key.to_lowercase(), errors);
    }
    if annotations.map(|(key, value)| key.len() + value.len()).sum::<usize>() > ANNOTATION_BYTES_MAX
    {
        errors.too_long("metadata.annotations", ANNOTATION_BYTES_MAX);
    }
    owners(meta, errors);
    finalizers(meta, errors);
}

/// What may not change.
pub(crate) fn validate_update(meta: &ObjectMeta, old: &ObjectMeta, errors: &mut Errors) {
    if old.deletion_timestamp.is_none() {
        return;
    }
    let had: BTreeSet<&String> = old.finalizers.iter().flatten().collect();
    let has: BTreeSet<&String> = meta.finalizers.iter().flatten().collect();
    let extra: Vec<String> = has.difference(&had).map(|it| quoted(it)).collect();
    if !extra.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            extra.join(", ")
        );
        errors.forbidden("metadata.finalizers", why);
    }
}

/// What no author may write, as it was.
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

fn owners(meta: &ObjectMeta, errors: &mut Errors) {
    let path = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for owner in meta.owner_references.iter().flatten() {
        if owner.api_version.is_empty() || owner.api_version.ends_with('/') {
            let value = quoted(&owner.api_version);
            errors.invalid(format!("{path}.apiVersion"), value, "version must not be empty");
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.invalid(format!("{path}.{field}"), "\"\"", "must not be empty");
            }
        }
        if (owner.api_version.as_str(), owner.kind.as_str()) == ("v1", "Event") {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.invalid(path, quoted(&owner.name), why);
        }
        if owner.controller == Some(true) {
            let name = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    errors.invalid(path, quoted(&name), why);
                }
                None => controller = Some(name),
            }
        }
    }
}

fn finalizers(meta: &ObjectMeta, errors: &mut Errors) {
    let path = "metadata.finalizers";
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    for finalizer in finalizers {
        qualified_name(path, finalizer, finalizer, errors);
    }
    let has = |finalizer: &str| finalizers.iter().any(|it| it == finalizer);
    if has(deletion::ORPHAN) && has(deletion::FOREGROUND) {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(path, format!("{finalizers:?}"), why);
    }
}

fn qualified_name(path: &str, shown: &str, text: &str, errors: &mut Errors) {
    let mut wrong = |why: &str| errors.invalid(path, quoted(shown), why);
    let mut parts = text.splitn(3, '/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    if third.is_some() {
        wrong(
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        );
        return;
    }
    let (prefix, name) = match second {
        Some(name) => (Some(first), name),
        None => (None, first),
    };
    match prefix {
        Some("") => wrong("prefix part must be non-empty"),
        Some(prefix) if prefix.len() > 253 || !prefix.split('.').all(names::is_label) => {
            wrong(&format!("prefix part {}", names::DNS_SUBDOMAIN));
        }
        Some(_) | None => {}
    }
    if name.is_empty() {
        wrong("name part must be non-empty");
    } else if name.len() > 63 {
        wrong("name part must be no more than 63 characters");
    }
    if !is_word(name) {
        wrong(QUALIFIED);
    }
}

fn label_value(path: &str, value: &str, errors: &mut Errors) {
    if value.len() > 63 {
        errors.invalid(path, quoted(value), "must be no more than 63 characters");
    }
    if !value.is_empty() && !is_word(value) {
        errors.invalid(path, quoted(value), LABEL_VALUE);
    }
}

/// Letters and digits at both ends, `-_.` between them too.
fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |it: &u8| it.is_ascii_alphanumeric() || b"-_.".contains(it);
    let edge = |it: Option<&u8>| it.is_some_and(u8::is_ascii_alphanumeric);
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}
