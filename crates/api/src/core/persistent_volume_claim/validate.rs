//! What a PersistentVolumeClaim must be, and what may not change in it.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, ValidatePersistentVolumeClaimSpec and Update.

use super::{BOUND, CLASS_ANNOTATION, phase, volume_name};
use crate::{
    Object,
    core::resource_name,
    field::{Errors, quoted},
    k8s::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec},
    meta::{
        Exact,
        absent::{list, same, text},
        difference::difference,
        names, quantity,
        validate::label_selector,
    },
};

/// Says what is wrong with a spec wherever it stands: in a claim or in a template.
pub(crate) fn validate_spec(path: &str, spec: &PersistentVolumeClaimSpec, errors: &mut Errors) {
    let modes = list(&spec.access_modes);
    if modes.is_empty() {
        errors.required(format!("{path}.accessModes"), "at least 1 access mode is required");
    }
    if let Some(selector) = &spec.selector {
        label_selector(&format!("{path}.selector"), selector, errors);
    }
    validate_modes(&format!("{path}.accessModes"), modes, errors);
    let requests = spec.resources.as_ref().and_then(|it| it.requests.as_ref());
    let at = format!("{path}.resources[storage]");
    match requests.and_then(|it| it.get("storage")) {
        None => errors.required(at, ""),
        Some(amount) => {
            if let Some(exact) = quantity::read(&at, amount, errors) {
                if exact <= Exact::ZERO {
                    errors.invalid(at, quoted(&amount.0), "must be greater than zero");
                } else if Exact::from_units(exact.units()) != exact {
                    errors.invalid(at, quoted(&amount.0), "must be an integer");
                }
            }
        }
    }
    let class = text(&spec.storage_class_name);
    if !class.is_empty() {
        names::dns_subdomain(format!("{path}.storageClassName"), class, errors);
    }
    let modes = ["Block", "Filesystem"];
    if let Some(mode) = spec.volume_mode.as_deref().filter(|it| !modes.contains(it)) {
        errors.not_supported(format!("{path}.volumeMode"), mode, &modes);
    }
    validate_sources(path, spec, errors);
    let class = text(&spec.volume_attributes_class_name);
    if !class.is_empty() {
        names::dns_subdomain(format!("{path}.volumeAttributesClassName"), class, errors);
    }
}

/// Known access modes, of which ReadWriteOncePod stands alone.
pub(crate) fn validate_modes(path: &str, modes: &[String], errors: &mut Errors) {
    let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.iter().filter(|it| !known.contains(&it.as_str())) {
        errors.not_supported(path, mode, &known);
    }
    let has = |alone: bool| {
        let known = modes.iter().filter(|it| known.contains(&it.as_str()));
        known.filter(|it| (*it == "ReadWriteOncePod") == alone).count() > 0
    };
    if has(true) && has(false) {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn validate_sources(path: &str, spec: &PersistentVolumeClaimSpec, errors: &mut Errors) {
    let mut one = |field: &str, group: &Option<String>, kind: &str, name: &str| {
        let path = format!("{path}.{field}");
        for (field, value) in [("name", name), ("kind", kind)] {
            if value.is_empty() {
                errors.required(format!("{path}.{field}"), "");
            }
        }
        match text(group) {
            "" if kind != "PersistentVolumeClaim" => errors.invalid(
                path,
                quoted(kind),
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ),
            "" => {}
            group => names::dns_subdomain(format!("{path}.apiGroup"), group, errors),
        }
    };
    if let Some(it) = &spec.data_source {
        one("dataSource", &it.api_group, &it.kind, &it.name);
    }
    let Some(source) = &spec.data_source_ref else { return };
    one("dataSourceRef", &source.api_group, &source.kind, &source.name);
    let elsewhere = text(&source.namespace);
    if !elsewhere.is_empty() {
        names::dns_label(format!("{path}.dataSourceRef.namespace"), elsewhere, errors);
    }
    let Some(old) = &spec.data_source else { return };
    let equal =
        (&old.api_group, &old.kind, &old.name) == (&source.api_group, &source.kind, &source.name);
    let at = quoted(&format!("{path}.dataSource"));
    if !elsewhere.is_empty() {
        errors.invalid(path, at, "may not be specified when dataSourceRef.namespace is specified");
    } else if !equal {
        errors.invalid(path, at, "must match dataSourceRef");
    }
}

pub(super) fn validate_update(
    claim: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    errors: &mut Errors,
) {
    let (Some(spec), Some(before)) = (&claim.spec, &old.spec) else { return };
    let (mut now, mut then) = (spec.clone(), before.clone());
    if volume_name(old).is_empty() {
        // Binding names the volume, once.
        then.volume_name.clone_from(&now.volume_name);
    }
    let annotation = old.annotation(CLASS_ANNOTATION);
    let named = now.storage_class_name.as_deref();
    let moved = then.storage_class_name.is_none()
        && annotation.is_some()
        && named == annotation
        && claim.annotation(CLASS_ANNOTATION).is_none_or(|it| Some(it) == annotation);
    if moved {
        now.storage_class_name = None;
    } else {
        if claim.annotation(CLASS_ANNOTATION).unwrap_or_default() != annotation.unwrap_or_default()
        {
            let value = quoted(claim.annotation(CLASS_ANNOTATION).unwrap_or_default());
            let path = format!("metadata.annotations.{CLASS_ANNOTATION}");
            errors.invalid(path, value, "field is immutable");
        }
        let fits = annotation.is_none() || annotation == named;
        if then.storage_class_name.is_none() && named.is_some() && fits {
            // The default class is filled in later, once there is one.
            then.storage_class_name.clone_from(&now.storage_class_name);
        }
    }
    if phase(claim) == BOUND {
        let requests = |it: &PersistentVolumeClaimSpec| {
            it.resources.as_ref()?.requests.as_ref()?.get("storage").cloned()
        };
        let size = requests(&then);
        let resources = now.resources.as_mut().and_then(|it| it.requests.as_mut());
        if let (Some(requests), Some(size)) = (resources, size) {
            requests.insert("storage".to_owned(), size);
        }
        now.volume_attributes_class_name.clone_from(&then.volume_attributes_class_name);
    }
    if !same(&now, &then) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden("spec", format!("{detail}\n{}", difference(&then, &now)));
    }
    let (size, before_size) = (super::requested(claim), super::requested(old));
    let held = || old.status.as_ref()?.capacity.as_ref()?.get("storage");
    let held = held().map(Exact::of).unwrap_or_default();
    if size < before_size && size <= held {
        let detail = "field can not be less than status.capacity";
        errors.forbidden("spec.resources.requests.storage", detail);
    }
    if spec.volume_mode != before.volume_mode {
        let value = spec.volume_mode.as_deref().map_or_else(|| "null".to_owned(), quoted);
        errors.invalid("volumeMode", value, "field is immutable");
    }
    let applied =
        old.status.as_ref().and_then(|it| it.current_volume_attributes_class_name.as_ref());
    if spec.volume_attributes_class_name != before.volume_attributes_class_name && applied.is_some()
    {
        let path = "spec.volumeAttributesClassName";
        let when = "is forbidden when status.currentVolumeAttributesClassName is not nil";
        match spec.volume_attributes_class_name.as_deref() {
            None => errors.forbidden(path, format!("update to nil {when}")),
            Some("") => errors.forbidden(path, format!("update to empty string {when}")),
            Some(_) => {}
        }
    }
}

pub(super) fn validate_status(claim: &PersistentVolumeClaim, errors: &mut Errors) {
    let capacity = claim.status.as_ref().and_then(|it| it.capacity.as_ref());
    for (name, amount) in capacity.into_iter().flatten() {
        let path = format!("status.capacity[{name}]");
        let Some(exact) = quantity::read(&path, amount, errors) else { continue };
        if exact < Exact::ZERO {
            errors.invalid(path, exact.units(), "must be a valid resource quantity");
        }
    }
    let Some(status) = &claim.status else { return };
    let path = "status.allocatedResourceStatuses";
    for (name, state) in status.allocated_resource_statuses.iter().flatten() {
        validate_resource(path, name, errors);
        if !RESIZING.contains(&state.as_str()) {
            // Upstream shows the resource here, not the status.
            errors.not_supported(path, name, &RESIZING);
        }
    }
    let path = "status.allocatedResources";
    for (name, amount) in status.allocated_resources.iter().flatten() {
        if !validate_resource(path, name, errors) {
            continue;
        }
        let path = format!("{path}[{name}]");
        let Some(exact) = quantity::read(&path, amount, errors) else { continue };
        if exact < Exact::ZERO {
            errors.invalid(path, exact.units(), "must be a valid resource quantity");
        } else if Exact::from_units(exact.units()) != exact {
            errors.invalid(path, quoted(&amount.0), "must be an integer");
        }
    }
}

/// How far a change of size or attributes has come.
const RESIZING: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// A resource that a claim has: storage, or somebody's own.
fn validate_resource(path: &str, name: &str, errors: &mut Errors) -> bool {
    let before = errors.0.len();
    names::qualified_name(path, name, errors);
    if errors.0.len() == before && resource_name::is_native(name) && name != "storage" {
        errors.not_supported(path, name, &["storage"]);
    }
    errors.0.len() == before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, codec::from_value};
    use serde_json::{Value, json};

    fn claim(changes: Value) -> PersistentVolumeClaim {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "2Gi"}}});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let mut claim =
            from_value(&json!({"metadata": {"name": "c", "namespace": "ns"}, "spec": spec}))
                .unwrap();
        <PersistentVolumeClaim as Kind>::default(&mut claim);
        claim
    }

    fn sized(size: &str) -> Value {
        json!({"storageClassName": "s", "volumeName": "v",
            "resources": {"requests": {"storage": size}}})
    }

    fn bound(size: &str) -> PersistentVolumeClaim {
        let mut claim = claim(sized(size));
        let status = json!({"phase": "Bound", "capacity": {"storage": "2Gi"}});
        claim.status = serde_json::from_value(status).unwrap();
        claim
    }

    fn changed(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> String {
        let mut errors = Errors::default();
        new.validate_update(old, &mut errors);
        errors.message()
    }

    #[test]
    fn a_claim_says_how_much_and_how() {
        for (changes, expected) in [
            (json!({}), ""),
            (
                json!({"accessModes": []}),
                "spec.accessModes: Required value: at least 1 access mode is required",
            ),
            (json!({"resources": {}}), "spec.resources[storage]: Required value"),
            (
                json!({"resources": {"requests": {"storage": "-1Gi"}}}),
                "spec.resources[storage]: Invalid value: \"-1Gi\": must be greater than zero",
            ),
            (
                json!({"resources": {"requests": {"storage": "x"}}}),
                "spec.resources[storage]: Invalid value: \"x\": quantities must match the regular \
                 expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                json!({"volumeMode": "Tape"}),
                "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
            ),
            (
                json!({"dataSource": {"kind": "Secret", "name": "x"}}),
                "spec.dataSource: Invalid value: \"Secret\": must be 'PersistentVolumeClaim' when \
                 referencing the default apiGroup",
            ),
            (
                json!({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
                "spec.selector.matchExpressions[0].values: Required value: must be specified when \
                 `operator` is 'In' or 'NotIn'",
            ),
        ] {
            let mut errors = Errors::default();
            claim(changes).validate(&mut errors);
            assert_eq!(errors.message(), expected);
        }
    }

    #[test]
    fn only_the_size_of_a_bound_claim_may_grow() {
        let start = "spec: Forbidden: spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for bound claims\n@@ ";
        assert_eq!(changed(&bound("3Gi"), &bound("2Gi")), "");
        assert_eq!(
            changed(&bound("1Gi"), &bound("2Gi")),
            "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
        );
        let pending = claim(json!({}));
        let grown = claim(json!({"resources": {"requests": {"storage": "3Gi"}}}));
        assert!(changed(&grown, &pending).starts_with(start));
        let mut moved = bound("2Gi");
        moved.spec.as_mut().unwrap().volume_name = Some("w".to_owned());
        assert!(changed(&moved, &bound("2Gi")).starts_with(start));
    }

    #[test]
    fn only_known_sources_are_kept() {
        for (spec, kept) in [
            (json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}}), true),
            (json!({"dataSource": {"kind": "Secret", "name": "x"}}), false),
            (json!({"dataSourceRef": {"kind": "Odd", "apiGroup": "a.b", "name": "x"}}), true),
            (
                json!({"dataSourceRef": {"kind": "Odd", "apiGroup": "a.b", "name": "x", "namespace": "n"}}),
                false,
            ),
        ] {
            let mut claim = claim(spec);
            claim.prepare_create();
            let spec = claim.spec.unwrap();
            assert_eq!((spec.data_source.is_some(), spec.data_source_ref.is_some()), (kept, kept));
        }
    }

    #[test]
    fn a_status_says_how_far_a_resize_has_come() {
        let mut claim = bound("2Gi");
        claim.status = serde_json::from_value(json!({
            "allocatedResourceStatuses": {"storage": "Odd", "cpu": "NodeResizePending"},
            "allocatedResources": {"storage": "1500m"}}))
        .unwrap();
        let mut errors = Errors::default();
        claim.validate_status(&claim, &mut errors);
        assert_eq!(
            errors.message(),
            "[status.allocatedResourceStatuses: Unsupported value: \"cpu\": supported values: \"storage\", \
             status.allocatedResourceStatuses: Unsupported value: \"storage\": supported values: \
             \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \
             \"NodeResizeInfeasible\", \"NodeResizePending\", \
             status.allocatedResources[storage]: Invalid value: \"1500m\": must be an integer]"
        );
    }

    #[test]
    fn a_class_may_be_filled_in_and_a_volume_named_once() {
        let pending = claim(json!({}));
        assert_eq!(changed(&claim(json!({"volumeName": "v"})), &pending), "");
        assert_eq!(changed(&claim(json!({"storageClassName": "s"})), &pending), "");
        let other = claim(json!({"storageClassName": "t"}));
        assert!(!changed(&other, &claim(json!({"storageClassName": "s"}))).is_empty());
    }
}
