//! Annotations of a pod that mean something to the server, and those that fields have taken over from.
//!
//! Upstream: `pkg/apis/core/validation/validation.go` (ValidatePodSpecificAnnotations and Updates,
//! validateSeccompAnnotationsAndFields, validateAppArmorAnnotationsAndFieldsMatchOnCreate), 1.36.

use super::update::MIRROR;
use crate::{
    core::volume_source::descending,
    field::{Errors, quoted},
    k8s::api::core::v1::{AppArmorProfile, Container, PodSpec, SeccompProfile},
    meta::{
        ObjectMeta,
        absent::{list, text},
    },
};
use std::collections::BTreeMap;

/// Before the name of a container: its AppArmor profile.
pub(in crate::core::pod) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF: &str = "container.seccomp.security.alpha.kubernetes.io/";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Says what is wrong with the annotations of a pod or template, and which do not say what the fields say.
pub(super) fn validate(
    path: &str,
    annotations: Option<&BTreeMap<String, String>>,
    spec_path: &str,
    spec: &PodSpec,
    errors: &mut Errors,
) {
    let Some(annotations) = annotations else { return };
    specific(path, annotations, spec, errors);
    fields(spec_path, annotations, spec, errors);
}

fn specific(
    path: &str,
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
    errors: &mut Errors,
) {
    if let Some(value) = annotations.get(MIRROR)
        && text(&spec.node_name).is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(format!("{path}[{MIRROR}]"), quoted(value), detail);
    }
    if let Some(cost) = annotations.get(DELETION_COST)
        && !is_cost(cost)
    {
        errors.invalid(format!("{path}[{DELETION_COST}]"), quoted(cost), "must be a 32bit integer");
    }
    for (key, value) in annotations {
        if key == SECCOMP || key.starts_with(SECCOMP_OF) {
            seccomp(&format!("{path}.{key}"), value, errors);
        }
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        let at = format!("{path}[{key}]");
        if !containers("", spec).any(|(_, it)| it.name == name) {
            errors.invalid(&at, quoted(name), "container not found");
        }
        let known = ["", "runtime/default", "unconfined"];
        if !known.contains(&value.as_str()) && !value.starts_with("localhost/") {
            let detail = format!("invalid AppArmor profile name: {}", quoted(value));
            errors.invalid(at, quoted(value), detail);
        }
    }
}

/// A whole number without a sign or zeros in front of it, that is not needed.
fn is_cost(text: &str) -> bool {
    let starts = matches!(text.as_bytes(), [b'-' | b'1'..=b'9', ..] | [b'0']);
    starts && text.parse::<i32>().is_ok()
}

fn seccomp(path: &str, profile: &str, errors: &mut Errors) {
    match profile.strip_prefix("localhost/") {
        Some(file) => descending(path, file, errors),
        None if ["runtime/default", "docker/default", "unconfined"].contains(&profile) => {}
        None => errors.invalid(path, quoted(profile), "must be a valid seccomp profile"),
    }
}

/// The containers that are there from the start, with their paths.
fn containers<'a>(
    path: &str,
    spec: &'a PodSpec,
) -> impl Iterator<Item = (String, &'a Container)> + use<'a> {
    let path = path.to_owned();
    let both =
        [("initContainers", list(&spec.init_containers)), ("containers", &spec.containers[..])];
    both.into_iter().flat_map(move |(field, all)| {
        let path = path.clone();
        all.iter().enumerate().map(move |(n, it)| (format!("{path}.{field}[{n}]"), it))
    })
}

fn fields(path: &str, annotations: &BTreeMap<String, String>, spec: &PodSpec, errors: &mut Errors) {
    let context = spec.security_context.as_ref();
    if let Some(profile) = context.and_then(|it| it.seccomp_profile.as_ref()) {
        same_seccomp(&format!("{path}.securityContext"), annotations.get(SECCOMP), profile, errors);
    }
    let of_pod = context.and_then(|it| it.app_armor_profile.as_ref());
    for (path, container) in containers(path, spec) {
        let path = format!("{path}.securityContext");
        let context = container.security_context.as_ref();
        if let Some(profile) = context.and_then(|it| it.seccomp_profile.as_ref()) {
            let key = format!("{SECCOMP_OF}{}", container.name);
            same_seccomp(&path, annotations.get(&key), profile, errors);
        }
        let profile = context.and_then(|it| it.app_armor_profile.as_ref());
        let key = format!("{APP_ARMOR}{}", container.name);
        if let (Some(profile), Some(value)) = (profile.or(of_pod), annotations.get(&key)) {
            same_app_armor(&format!("{path}.appArmorProfile"), value, profile, errors);
        }
    }
}

fn same_seccomp(
    path: &str,
    annotation: Option<&String>,
    profile: &SeccompProfile,
    errors: &mut Errors,
) {
    let Some(annotation) = annotation else { return };
    let path = format!("{path}.seccompProfile");
    let other_type = "seccomp type in annotation and field must match";
    let (kind, file) = (profile.type_.as_str(), text(&profile.localhost_profile));
    let fits = match kind {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => ["runtime/default", "docker/default"].contains(&annotation.as_str()),
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    if !fits {
        errors.forbidden(format!("{path}.type"), other_type);
    } else if kind == "Localhost" && annotation.strip_prefix("localhost/") != Some(file) {
        let detail = "seccomp profile in annotation and field must match";
        errors.forbidden(format!("{path}.localhostProfile"), detail);
    }
}

fn same_app_armor(path: &str, annotation: &str, profile: &AppArmorProfile, errors: &mut Errors) {
    let kind = match annotation.strip_prefix("localhost/") {
        Some(_) => "Localhost",
        None if annotation == "unconfined" => "Unconfined",
        None if annotation == "runtime/default" => "RuntimeDefault",
        None => "",
    };
    if kind != profile.type_ {
        let detail = "apparmor type in annotation and field must match";
        errors.forbidden(format!("{path}.type"), detail);
    } else if kind == "Localhost"
        && annotation.strip_prefix("localhost/") != profile.localhost_profile.as_deref()
    {
        let detail = "apparmor profile in annotation and field must match";
        errors.forbidden(format!("{path}.localhostProfile"), detail);
    }
}

/// Annotations that a pod keeps as it was made.
pub(super) fn validate_update(now: &ObjectMeta, before: &ObjectMeta, errors: &mut Errors) {
    let empty = BTreeMap::new();
    let now = now.annotations.as_ref().unwrap_or(&empty);
    let before = before.annotations.as_ref().unwrap_or(&empty);
    let mut told = |key: &String, verb: &str| {
        let path = format!("metadata.annotations[{key}]");
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(path, format!("may not {verb} AppArmor annotations"));
        } else if key == MIRROR {
            errors.forbidden(path, format!("may not {verb} mirror pod annotation"));
        }
    };
    for (key, _) in before.iter().filter(|(key, value)| now.get(*key) != Some(value)) {
        told(key, "remove or update");
    }
    for key in now.keys().filter(|key| !before.contains_key(*key)) {
        told(key, "add");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(annotations: Value, spec: Value, expected: &str) {
        let annotations: BTreeMap<String, String> = serde_json::from_value(annotations).unwrap();
        let mut errors = Errors::default();
        let spec = serde_json::from_value(spec).unwrap();
        validate("metadata.annotations", Some(&annotations), "spec", &spec, &mut errors);
        assert_eq!(errors.message(), expected);
    }

    #[test]
    fn annotations_that_the_server_reads_are_well_formed() {
        let spec = json!({"containers": [{"name": "c"}]});
        for (key, value, expected) in [
            (
                MIRROR,
                "x",
                "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
            ),
            (
                DELETION_COST,
                "01",
                "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"01\": must be a 32bit integer",
            ),
            (DELETION_COST, "-5", ""),
            (
                SECCOMP,
                "odd",
                "metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"odd\": must be a valid seccomp profile",
            ),
        ] {
            check(json!({key: value}), spec.clone(), expected);
        }
        let key = format!("{APP_ARMOR}d");
        check(
            json!({&key: "odd"}),
            spec,
            &format!(
                "[metadata.annotations[{key}]: Invalid value: \"d\": container not found, \
                metadata.annotations[{key}]: Invalid value: \"odd\": invalid AppArmor profile name: \"odd\"]"
            ),
        );
    }

    #[test]
    fn annotations_and_fields_say_the_same() {
        let spec = json!({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"appArmorProfile": {"type": "Unconfined"}}}]});
        check(
            json!({SECCOMP: "unconfined", format!("{APP_ARMOR}c"): "runtime/default"}),
            spec.clone(),
            "[spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match, \
             spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match]",
        );
        check(json!({SECCOMP: "runtime/default", format!("{APP_ARMOR}c"): "unconfined"}), spec, "");
    }

    #[test]
    fn a_mirror_is_born_one() {
        let meta = |annotations: Value| -> ObjectMeta {
            serde_json::from_value(json!({"name": "p", "annotations": annotations})).unwrap()
        };
        let mut errors = Errors::default();
        validate_update(&meta(json!({MIRROR: "x"})), &meta(json!({})), &mut errors);
        validate_update(&meta(json!({})), &meta(json!({MIRROR: "x"})), &mut errors);
        let path = "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not";
        assert_eq!(
            errors.message(),
            format!(
                "[{path} add mirror pod annotation, {path} remove or update mirror pod annotation]"
            )
        );
    }
}
