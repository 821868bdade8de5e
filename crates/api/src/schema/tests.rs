//! The definitions of every kind at once.

use super::*;

fn all() -> Map<String, Value> {
    let mut definitions = Definitions::default();
    for kind in crate::kinds() {
        for version in &kind.served {
            definitions.list(kind, version);
        }
    }
    let served = [(String::new(), "v1".to_owned()), ("apps".to_owned(), "v1".to_owned())];
    for which in [
        Companion::Binding,
        Companion::DeleteOptions,
        Companion::Eviction,
        Companion::LocalSubjectAccessReview,
        Companion::Scale,
        Companion::SelfSubjectAccessReview,
        Companion::SelfSubjectReview,
        Companion::SelfSubjectRulesReview,
        Companion::Status,
        Companion::SubjectAccessReview,
        Companion::TokenRequest,
        Companion::TokenReview,
    ] {
        definitions.companion(which, &served);
    }
    definitions.finish()
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str));
            object.values().for_each(|it| references(it, found));
        }
        Value::Array(items) => items.iter().for_each(|it| references(it, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_to_a_definition() {
    let all = all();
    let mut found = Vec::new();
    all.values().for_each(|it| references(it, &mut found));
    assert!(found.len() > 200);
    for it in found {
        let name = it.strip_prefix(REFERENCE).unwrap_or_else(|| panic!("a reference to {it}"));
        assert!(all.contains_key(name), "{name}");
    }
}

#[test]
fn nothing_stands_beside_a_reference() {
    fn check(value: &Value) {
        match value {
            Value::Object(object) => {
                assert!(!object.contains_key("$ref") || object.len() == 1, "{value}");
                object.values().for_each(check);
            }
            Value::Array(items) => items.iter().for_each(check),
            _ => {}
        }
    }
    all().values().for_each(check);
}

#[test]
fn every_kind_in_every_version_says_which_it_is() {
    let all = all();
    for kind in crate::kinds() {
        for version in &kind.served {
            for name in [kind.kind.clone(), format!("{}List", kind.kind)] {
                let tag = tag(&kind.group, version, &name);
                let has = |it: &Value| {
                    it[GROUP_VERSION_KIND].as_array().is_some_and(|it| it.contains(&tag))
                };
                assert_eq!(all.values().filter(|it| has(it)).count(), 1, "{tag}");
            }
        }
    }
}

#[test]
fn a_kind_within_a_kind_says_which_it_is() {
    let mut definitions = Definitions::default();
    let set = crate::kinds().iter().find(|it| it.kind == "StatefulSet").unwrap();
    definitions.kind(set, "v1");
    let claim = &definitions.finish()["io.k8s.api.core.v1.PersistentVolumeClaim"];
    assert_eq!(claim[GROUP_VERSION_KIND], json!([tag("", "v1", "PersistentVolumeClaim")]));
}

#[test]
fn merged_lists_name_their_keys() {
    let all = all();
    let field =
        |of: &str, name: &str| &all[&format!("io.k8s.api.core.v1.{of}")]["properties"][name];
    let containers = field("PodSpec", "containers");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
    let volumes = field("PodSpec", "volumes");
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let ports = field("ServiceSpec", "ports");
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["port", "protocol"]));
}

/// A row of the table for a field that is gone would say nothing, silently.
#[test]
fn every_fact_is_about_a_field_that_there_is() {
    let all = all();
    let marks = ["list-type", "map-type", "patch-strategy"].map(|it| format!("x-kubernetes-{it}"));
    let marked = all
        .iter()
        .filter(|it| !it.0.contains(".v1beta1."))
        .filter_map(|it| it.1["properties"].as_object())
        .flat_map(|it| it.values())
        .filter(|field| marks.iter().any(|it| field.get(it).is_some()))
        .count();
    assert_eq!(marked, facts::count());
}

#[test]
fn what_is_filled_in_need_not_be_sent() {
    let all = all();
    assert!(all["io.k8s.api.core.v1.LocalObjectReference"].get("required").is_none());
    assert_eq!(all["io.k8s.api.core.v1.SecretKeySelector"]["required"], json!(["key"]));
    assert!(all["io.k8s.api.core.v1.Pod"].get("required").is_none());
    assert_eq!(all["io.k8s.api.storage.v1.VolumeAttachment"]["required"], json!(["spec"]));
}

#[test]
fn a_version_that_differs_in_name_only_has_a_definition_of_its_own() {
    let class = crate::kinds().iter().find(|it| it.kind == "StorageClass").unwrap();
    let mut definitions = Definitions::default();
    definitions.list(class, "v1beta1");
    let definitions = definitions.finish();
    assert!(definitions.contains_key("io.k8s.api.storage.v1beta1.StorageClass"));
    assert!(!definitions.contains_key("io.k8s.api.storage.v1.StorageClass"));
}
