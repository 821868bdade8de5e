//! What bindings consist of: the role that they name, and those who get it.
//!
//! Upstream: `pkg/apis/rbac/validation/validation.go`, ValidateRoleBinding and ValidateRoleBindingSubject;
//! `pkg/apis/rbac/v1/{defaults,helpers}.go`.

use super::GROUP;
use crate::{
    field::{Errors, quoted},
    k8s::api::rbac::v1::{RoleRef, Subject},
    meta::{
        absent::{fill, text},
        names,
    },
};

pub(super) fn default(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    fill(&mut role.api_group, GROUP);
    for subject in subjects.iter_mut().flatten() {
        if matches!(subject.kind.as_str(), "User" | "Group") {
            fill(&mut subject.api_group, GROUP);
        }
    }
}

pub(super) fn validate(
    role: &RoleRef,
    kinds: &[&str],
    subjects: &[Subject],
    namespaced: bool,
    errors: &mut Errors,
) {
    if text(&role.api_group) != GROUP {
        errors.not_supported("roleRef.apiGroup", text(&role.api_group), &[GROUP]);
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.not_supported("roleRef.kind", &role.kind, kinds);
    }
    match role.name.as_str() {
        "" => errors.required("roleRef.name", ""),
        name => names::path_segment("roleRef.name", name, errors),
    }
    for (n, it) in subjects.iter().enumerate() {
        subject(&format!("subjects[{n}]"), it, namespaced, errors);
    }
}

fn subject(path: &str, subject: &Subject, namespaced: bool, errors: &mut Errors) {
    if subject.name.is_empty() {
        errors.required(format!("{path}.name"), "");
    }
    let group = text(&subject.api_group);
    let of_group = format!("{path}.apiGroup");
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                names::dns_subdomain(format!("{path}.name"), &subject.name, errors);
            }
            if !group.is_empty() {
                errors.not_supported(of_group, group, &[""]);
            }
            if !namespaced && text(&subject.namespace).is_empty() {
                errors.required(format!("{path}.namespace"), "");
            }
        }
        "User" | "Group" if group != GROUP => errors.not_supported(of_group, group, &[GROUP]),
        "User" | "Group" => {}
        other => {
            let known = ["Group", "ServiceAccount", "User"];
            errors.not_supported(format!("{path}.kind"), other, &known);
        }
    }
}

/// A binding names its role for good: those who could change that could give themselves any role.
pub(super) fn validate_update(role: &RoleRef, old: &RoleRef, errors: &mut Errors) {
    if role != old {
        let shown = format!(
            "{{\"apiGroup\":{},\"kind\":{},\"name\":{}}}",
            quoted(text(&role.api_group)),
            quoted(&role.kind),
            quoted(&role.name)
        );
        errors.invalid("roleRef", shown, "cannot change roleRef");
    }
}

/// Names of one kind of subject, as the wide columns print them.
pub(super) fn named(subjects: &Option<Vec<Subject>>, kind: &str) -> String {
    let those = subjects.iter().flatten().filter(|it| it.kind == kind);
    let shown = those.map(|it| match text(&it.namespace) {
        namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
            format!("{namespace}/{}", it.name)
        }
        _ => it.name.clone(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

pub(super) fn shown(role: &RoleRef) -> String {
    format!("{}/{}", role.kind, role.name)
}
