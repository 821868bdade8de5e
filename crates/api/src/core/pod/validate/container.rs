//! The containers of a pod: names, images, ports, variables, mounts, probes, resources.

use super::{
    environment::{variable, variables},
    one_of, probe,
    resource::{claims, validate_resources},
    security,
};
use crate::{
    core::{
        resource_name,
        volume_source::{descending, need},
    },
    field::{Errors, quoted},
    k8s::api::core::v1::{Container, ContainerPort, PodSpec, Volume, VolumeMount},
    meta::{
        absent::{list, text},
        names,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// Most rules of a container on when it starts again, and exit codes in one of them.
const RULES_MOST: usize = 20;
const CODES_MOST: usize = 255;

pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

/// Says what is wrong with the containers of a spec, started first or not.
pub(super) fn validate(path: &str, spec: &PodSpec, volumes: &Volumes<'_>, errors: &mut Errors) {
    let at = format!("{path}.containers");
    if spec.containers.is_empty() {
        errors.required(&at, "");
    }
    let mut seen = BTreeSet::new();
    for (n, it) in spec.containers.iter().enumerate() {
        let path = format!("{at}[{n}]");
        common(&path, it, spec, volumes, errors);
        if !seen.insert(it.name.as_str()) {
            errors.duplicate(format!("{path}.name"), quoted(&it.name));
        }
        running(&path, it, spec, errors);
        restart(&path, it, errors);
    }
    host_ports(&at, &spec.containers, errors);
    let at = format!("{path}.initContainers");
    for (n, it) in list(&spec.init_containers).iter().enumerate() {
        let path = format!("{at}[{n}]");
        common(&path, it, spec, volumes, errors);
        restart(&path, it, errors);
        if !seen.insert(it.name.as_str()) && !it.name.is_empty() {
            errors.duplicate(format!("{path}.name"), quoted(&it.name));
        }
        host_ports(&at, std::slice::from_ref(it), errors);
        if it.restart_policy.as_deref() == Some("Always") {
            running(&path, it, spec, errors);
            continue;
        }
        for (m, policy) in list(&it.resize_policy).iter().enumerate() {
            if policy.restart_policy == "RestartContainer" {
                let path = format!("{path}.resizePolicy[{m}].restartPolicy");
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.invalid(path, quoted(&policy.restart_policy), detail);
            }
        }
        let fields = [
            ("lifecycle", it.lifecycle.is_some()),
            ("livenessProbe", it.liveness_probe.is_some()),
            ("readinessProbe", it.readiness_probe.is_some()),
            ("startupProbe", it.startup_probe.is_some()),
        ];
        for (field, _) in fields.into_iter().filter(|it| it.1) {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.forbidden(format!("{path}.{field}"), detail);
        }
    }
}

pub(super) fn common(
    path: &str,
    it: &Container,
    spec: &PodSpec,
    volumes: &Volumes<'_>,
    errors: &mut Errors,
) {
    match it.name.as_str() {
        "" => errors.required(format!("{path}.name"), ""),
        name => names::dns_label(format!("{path}.name"), name, errors),
    }
    need(path, "image", text(&it.image), errors);
    let policies = ["File", "FallbackToLogsOnError"];
    let policy = text(&it.termination_message_policy);
    one_of(format!("{path}.terminationMessagePolicy"), policy, &policies, errors);
    ports(&format!("{path}.ports"), list(&it.ports), errors);
    for (n, it) in list(&it.env).iter().enumerate() {
        variable(&format!("{path}.env[{n}]"), it, errors);
    }
    variables(&format!("{path}.envFrom"), list(&it.env_from), errors);
    mounts(&format!("{path}.volumeMounts"), it, volumes, errors);
    devices(&format!("{path}.volumeDevices"), it, volumes, errors);
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(format!("{path}.imagePullPolicy"), text(&it.image_pull_policy), &policies, errors);
    if let Some(resources) = &it.resources {
        let path = format!("{path}.resources");
        validate_resources(&path, resources, resource_name::of_container, errors);
        claims(&format!("{path}.claims"), resources, spec, errors);
    }
    resize(&format!("{path}.resizePolicy"), it, text(&spec.restart_policy), errors);
    if let Some(context) = &it.security_context {
        let host_users = spec.host_users != Some(false);
        let path = format!("{path}.securityContext");
        security::validate_container(&path, context, host_users, errors);
    }
}

/// What only containers say that run beside each other.
fn running(path: &str, it: &Container, spec: &PodSpec, errors: &mut Errors) {
    if let Some(lifecycle) = &it.lifecycle {
        probe::hooks(&format!("{path}.lifecycle"), lifecycle, spec, errors);
    }
    let probes = [
        ("livenessProbe", &it.liveness_probe),
        ("readinessProbe", &it.readiness_probe),
        ("startupProbe", &it.startup_probe),
    ];
    for (field, it) in probes {
        let Some(it) = it else { continue };
        let path = format!("{path}.{field}");
        probe::probe(&path, it, errors);
        if field == "readinessProbe" {
            if let Some(seconds) = it.termination_grace_period_seconds {
                let path = format!("{path}.terminationGracePeriodSeconds");
                errors.invalid(path, seconds, "must not be set for readinessProbes");
            }
        } else if it.success_threshold.unwrap_or(0) != 1 {
            let threshold = it.success_threshold.unwrap_or(0);
            errors.invalid(format!("{path}.successThreshold"), threshold, "must be 1");
        }
    }
}

fn restart(path: &str, it: &Container, errors: &mut Errors) {
    let rules = list(&it.restart_policy_rules);
    let at = format!("{path}.restartPolicy");
    let known = ["Always", "Never", "OnFailure"];
    match it.restart_policy.as_deref() {
        None if rules.is_empty() => return,
        None => errors.required(at, "must specify restartPolicy when restart rules are used"),
        Some(policy) if known.contains(&policy) => {}
        Some(policy) => errors.not_supported(at, policy, &known),
    }
    if rules.len() > RULES_MOST {
        errors.too_many(format!("{path}.restartPolicyRules"), rules.len(), RULES_MOST);
    }
    for (n, rule) in rules.iter().enumerate() {
        let path = format!("{path}.restartPolicyRules[{n}]");
        let known = ["Restart", "RestartAllContainers"];
        if !known.contains(&rule.action.as_str()) {
            errors.not_supported(format!("{path}.action"), &rule.action, &known);
        }
        let path = format!("{path}.exitCodes");
        let Some(codes) = &rule.exit_codes else {
            errors.required(path, "must be specified");
            continue;
        };
        let known = ["In", "NotIn"];
        if !known.contains(&codes.operator.as_str()) {
            errors.not_supported(format!("{path}.operator"), &codes.operator, &known);
        }
        let values = list(&codes.values).len();
        if values > CODES_MOST {
            errors.too_many(format!("{path}.values"), values, CODES_MOST);
        }
    }
}

/// What a change of resources does to a container that runs. Upstream leaves the index out of most of these paths.
fn resize(path: &str, it: &Container, of_pod: &str, errors: &mut Errors) {
    let policies = list(&it.resize_policy);
    for (n, it) in policies.iter().enumerate() {
        let (resource, policy) = (it.resource_name.as_str(), it.restart_policy.as_str());
        if policies[..n].iter().any(|other| other.resource_name == resource) {
            errors.duplicate(format!("{path}[{n}]"), quoted(resource));
        }
        for (value, known) in
            [(resource, ["cpu", "memory"]), (policy, ["NotRequired", "RestartContainer"])]
        {
            one_of(path.to_owned(), value, &known, errors);
        }
        if of_pod == "Never" && policy != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(path, quoted(policy), detail);
        }
    }
}

/// Variables from a file name a volume that is the pod's own.
pub(super) fn files_of_variables(path: &str, spec: &PodSpec, errors: &mut Errors) {
    let volumes = list(&spec.volumes);
    let both =
        [("initContainers", list(&spec.init_containers)), ("containers", &spec.containers[..])];
    let all = both.into_iter().flat_map(|(field, all)| {
        all.iter().enumerate().map(move |(n, it)| (format!("{path}.{field}[{n}]"), it))
    });
    for (path, container) in all {
        for (n, it) in list(&container.env).iter().enumerate() {
            let file = it.value_from.as_ref().and_then(|it| it.file_key_ref.as_ref());
            let Some(name) = file.map(|it| it.volume_name.as_str()) else { continue };
            let path = format!("{path}.env[{n}].valueFrom.fileKeyRef.volumeName");
            match volumes.iter().find(|it| it.name == name) {
                None => errors.not_found(path, quoted(name)),
                Some(volume) if volume.empty_dir.is_some() => {}
                Some(_) => {
                    let detail = "referenced volume must be of type emptyDir";
                    errors.invalid(path, quoted(name), detail);
                }
            }
        }
    }
}

fn ports(path: &str, ports: &[ContainerPort], errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (n, it) in ports.iter().enumerate() {
        let path = format!("{path}[{n}]");
        let name = text(&it.name);
        if !name.is_empty() {
            let before = errors.0.len();
            names::port_name(format!("{path}.name"), name, errors);
            if errors.0.len() == before && !seen.insert(name) {
                errors.duplicate(format!("{path}.name"), quoted(name));
            }
        }
        match it.container_port {
            0 => errors.required(format!("{path}.containerPort"), ""),
            port => names::port(format!("{path}.containerPort"), port, errors),
        }
        if let Some(port) = it.host_port.filter(|it| *it != 0) {
            names::port(format!("{path}.hostPort"), port, errors);
        }
        one_of(format!("{path}.protocol"), text(&it.protocol), &["SCTP", "TCP", "UDP"], errors);
    }
}

/// Two containers cannot listen at the same port of the node.
fn host_ports(path: &str, containers: &[Container], errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (n, container) in containers.iter().enumerate() {
        for (m, it) in list(&container.ports).iter().enumerate() {
            let Some(port) = it.host_port.filter(|it| *it != 0) else { continue };
            let key = format!("{}/{}/{port}", text(&it.protocol), text(&it.host_ip));
            if !seen.insert(key.clone()) {
                errors.duplicate(format!("{path}[{n}].ports[{m}].hostPort"), quoted(&key));
            }
        }
    }
}

fn mounts(path: &str, container: &Container, volumes: &Volumes<'_>, errors: &mut Errors) {
    let devices = list(&container.volume_devices);
    let mut seen = BTreeSet::new();
    for (n, it) in list(&container.volume_mounts).iter().enumerate() {
        let at = format!("{path}[{n}]");
        need(&at, "name", &it.name, errors);
        if !volumes.contains_key(it.name.as_str()) {
            errors.not_found(format!("{at}.name"), quoted(&it.name));
        }
        need(&at, "mountPath", &it.mount_path, errors);
        if !seen.insert(it.mount_path.as_str()) {
            errors.invalid(format!("{at}.mountPath"), quoted(&it.mount_path), "must be unique");
        }
        if devices.iter().any(|device| device.name == it.name) {
            let detail = "must not already exist in volumeDevices";
            errors.invalid(format!("{at}.name"), quoted(&it.name), detail);
        }
        if devices.iter().any(|device| device.device_path == it.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.invalid(format!("{at}.mountPath"), quoted(&it.mount_path), detail);
        }
        let (below, expression) = (text(&it.sub_path), text(&it.sub_path_expr));
        // Upstream leaves the index out of these paths.
        if !below.is_empty() {
            descending(format!("{path}.subPath"), below, errors);
        }
        if !expression.is_empty() {
            if !below.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.invalid(format!("{at}.subPathExpr"), quoted(expression), detail);
            }
            descending(format!("{path}.subPathExpr"), expression, errors);
        }
        propagation(path, it, container, errors);
    }
}

fn propagation(path: &str, it: &VolumeMount, container: &Container, errors: &mut Errors) {
    let at = format!("{path}.mountPropagation");
    let known = ["Bidirectional", "HostToContainer", "None"];
    let context = container.security_context.as_ref();
    let privileged = context.and_then(|it| it.privileged) == Some(true);
    match it.mount_propagation.as_deref() {
        Some("Bidirectional") if !privileged => {
            let detail =
                "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(at, detail);
        }
        Some(mode) if !known.contains(&mode) => errors.not_supported(at, mode, &known),
        Some(_) | None => {}
    }
    let at = format!("{path}.recursiveReadOnly");
    match it.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if it.read_only != Some(true) {
                errors.forbidden(&at, "may only be specified when readOnly is true");
            }
            if it.mount_propagation.as_deref().is_some_and(|it| it != "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(&at, detail);
            }
        }
        Some(mode) => errors.not_supported(at, mode, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(path: &str, container: &Container, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mounts = list(&container.volume_mounts);
    let (mut seen, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (n, it) in list(&container.volume_devices).iter().enumerate() {
        let at = |field: &str| format!("{path}[{n}].{field}");
        let (name, device) = (it.name.as_str(), it.device_path.as_str());
        need(&format!("{path}[{n}]"), "name", name, errors);
        if !seen.insert(name) {
            errors.invalid(at("name"), quoted(name), "must be unique");
        }
        let claims = |it: &&Volume| it.persistent_volume_claim.is_some() || it.ephemeral.is_some();
        match volumes.get(name) {
            None => errors.not_found(at("name"), quoted(name)),
            Some(volume) if claims(volume) => {}
            Some(_) => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(at("name"), quoted(name), detail);
            }
        }
        need(&format!("{path}[{n}]"), "devicePath", device, errors);
        if !paths.insert(device) {
            errors.invalid(at("devicePath"), quoted(device), "must be unique");
        }
        if device.split('/').any(|it| it == "..") {
            let detail = "can not contain backsteps ('..')";
            errors.invalid(at("devicePath"), quoted(device), detail);
        }
        if mounts.iter().any(|it| it.name == name) {
            let detail = "must not already exist in volumeMounts";
            errors.invalid(at("name"), quoted(name), detail);
        }
        if mounts.iter().any(|it| it.mount_path == device) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.invalid(at("devicePath"), quoted(device), detail);
        }
    }
}
