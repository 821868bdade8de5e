//! The variables of a container, and the fields of a pod that variables and files show.

use crate::{
    core::volume_source::{need, no_backsteps},
    field::{Errors, quoted},
    k8s::api::core::v1::{EnvFromSource, EnvVar, ObjectFieldSelector, ResourceFieldSelector},
    meta::{Exact, absent::text, names, quantity},
};

/// Fields of a pod that its variables may show.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Amounts of a container that files and variables may show.
const AMOUNTS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn variable(path: &str, it: &EnvVar, errors: &mut Errors) {
    match it.name.as_str() {
        "" => errors.required(format!("{path}.name"), ""),
        name => names::variable(format!("{path}.name"), name, errors),
    }
    let Some(from) = &it.value_from else { return };
    let path = format!("{path}.valueFrom");
    let mut count = 0;
    if let Some(field) = &from.field_ref {
        count += 1;
        field_ref(&format!("{path}.fieldRef"), field, &FIELDS, errors);
    }
    if let Some(field) = &from.resource_field_ref {
        count += 1;
        resource_ref(&format!("{path}.resourceFieldRef"), field, false, errors);
    }
    let keys = [
        ("configMapKeyRef", from.config_map_key_ref.as_ref().map(|it| (&it.name, &it.key))),
        ("secretKeyRef", from.secret_key_ref.as_ref().map(|it| (&it.name, &it.key))),
    ];
    for (field, key) in keys {
        let Some((name, key)) = key else { continue };
        count += 1;
        names::dns_subdomain(format!("{path}.{field}.name"), name, errors);
        match key.as_str() {
            "" => errors.required(format!("{path}.{field}.key"), ""),
            key => names::config_key(format!("{path}.{field}.key"), key, errors),
        }
    }
    if let Some(file) = &from.file_key_ref {
        count += 1;
        let path = format!("{path}.fileKeyRef");
        match file.key.as_str() {
            "" => errors.required(format!("{path}.key"), ""),
            key => names::variable(format!("{path}.key"), key, errors),
        }
        match file.volume_name.as_str() {
            "" => errors.required(format!("{path}.volumeName"), ""),
            name => names::dns_label(format!("{path}.volumeName"), name, errors),
        }
        need(&path, "path", &file.path, errors);
        no_backsteps(format!("{path}.path"), &file.path, errors);
    }
    let detail = match count {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if !text(&it.value).is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.invalid(path, "\"\"", detail);
}

pub(super) fn variables(path: &str, sources: &[EnvFromSource], errors: &mut Errors) {
    for (n, it) in sources.iter().enumerate() {
        let at = format!("{path}[{n}]");
        if !text(&it.prefix).is_empty() {
            names::variable(format!("{at}.prefix"), text(&it.prefix), errors);
        }
        let named = [
            ("configMapRef", it.config_map_ref.as_ref().map(|it| it.name.as_str())),
            ("secretRef", it.secret_ref.as_ref().map(|it| it.name.as_str())),
        ];
        let mut count = 0;
        for (field, name) in named {
            count += usize::from(name.is_some());
            match name {
                None => {}
                Some("") => errors.required(format!("{at}.{field}.name"), ""),
                Some(name) => names::dns_subdomain(format!("{at}.{field}.name"), name, errors),
            }
        }
        match count {
            0 => errors.invalid(path, "\"\"", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => {
                errors.invalid(path, "\"\"", "may not have more than one field specified at a time")
            }
        }
    }
}

/// A field of the pod: one of a list, or one label or annotation.
pub(super) fn field_ref(
    path: &str,
    field: &ObjectFieldSelector,
    known: &[&str],
    errors: &mut Errors,
) {
    if text(&field.api_version).is_empty() {
        errors.required(format!("{path}.apiVersion"), "");
        return;
    }
    let at = format!("{path}.fieldPath");
    let name = field.field_path.as_str();
    let keyed = name.strip_suffix("']").and_then(|it| it.split_once("['"));
    match (name, keyed) {
        ("", _) => errors.required(at, ""),
        (_, Some(("metadata.annotations", key))) => {
            names::qualified_name(path, &key.to_lowercase(), errors);
        }
        (_, Some(("metadata.labels", key))) => names::qualified_name(path, key, errors),
        (_, Some((field, _))) => {
            errors.invalid(path, quoted(field), "does not support subscript");
        }
        (name, None) if known.contains(&name) => {}
        (name, None) if FIELDS.contains(&name) || super::volume::FIELDS.contains(&name) => {
            errors.not_supported(at, name, known);
        }
        (name, None) => {
            let detail = format!("error converting fieldPath: field label not supported: {name}");
            errors.invalid(at, quoted(name), detail);
        }
    }
}

/// An amount of a container.
pub(super) fn resource_ref(
    path: &str,
    field: &ResourceFieldSelector,
    in_volume: bool,
    errors: &mut Errors,
) {
    let name = field.resource.as_str();
    let pages = ["requests.hugepages-", "limits.hugepages-"];
    if in_volume && text(&field.container_name).is_empty() {
        errors.required(format!("{path}.containerName"), "");
    } else if name.is_empty() {
        errors.required(format!("{path}.resource"), "");
    } else if !AMOUNTS.contains(&name) && !pages.iter().any(|it| name.starts_with(it)) {
        errors.not_supported(format!("{path}.resource"), name, &AMOUNTS);
    }
    let Some(divisor) = &field.divisor else { return };
    let at = format!("{path}.divisor");
    let Some(amount) = quantity::read(&at, divisor, errors) else { return };
    let bytes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (known, what): (&[&str], &str) = match name {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"], "cpu"),
        "limits.memory" | "requests.memory" => (&bytes, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (&bytes, "local ephemeral storage")
        }
        name if pages.iter().any(|it| name.starts_with(it)) => (&bytes, "hugepages"),
        _ => return,
    };
    let shown = Exact::canonical(&divisor.0).unwrap_or_default();
    if amount != Exact::ZERO && !known.contains(&shown.as_str()) {
        let values = if what == "cpu" { "1m and 1".to_owned() } else { known.join(", ") };
        let detail =
            format!("only divisor's values {values} are supported with the {what} resource");
        errors.invalid(at, quoted(name), detail);
    }
}
