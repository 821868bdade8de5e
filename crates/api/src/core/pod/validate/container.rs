//! The containers of a pod: names, images, ports, variables, mounts, probes, resources.

use super::{one_of, security};
use crate::{
    core::volume_source::{descending, need, no_backsteps},
    field::{Errors, Reason, quoted},
    k8s::{
        api::core::v1::{
            Container, ContainerPort, EnvFromSource, EnvVar, ExecAction, GRPCAction, HTTPGetAction,
            Lifecycle, LifecycleHandler, ObjectFieldSelector, PodSpec, Probe,
            ResourceFieldSelector, ResourceRequirements, SleepAction, TCPSocketAction, Volume,
            VolumeMount,
        },
        apimachinery::pkg::util::intstr::IntOrString,
    },
    meta::{
        Exact,
        absent::{list, text},
        names, quantity,
    },
};
use std::collections::{BTreeMap, BTreeSet};

type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

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

/// Says what is wrong with the containers of a spec, started first or not.
pub(super) fn validate(path: &str, spec: &PodSpec, volumes: &Volumes<'_>, errors: &mut Errors) {
    let grace = spec.termination_grace_period_seconds;
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
        running(&path, it, grace, errors);
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
            running(&path, it, grace, errors);
            continue;
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

fn common(path: &str, it: &Container, spec: &PodSpec, volumes: &Volumes<'_>, errors: &mut Errors) {
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
        validate_resources(&path, resources, validate_container_resource, errors);
        claims(&format!("{path}.claims"), resources, spec, errors);
    }
    if let Some(context) = &it.security_context {
        let host_users = spec.host_users != Some(false);
        let path = format!("{path}.securityContext");
        security::validate_container(&path, context, host_users, errors);
    }
}

/// What only containers say that run beside each other.
fn running(path: &str, it: &Container, grace: Option<i64>, errors: &mut Errors) {
    if let Some(lifecycle) = &it.lifecycle {
        hooks(&format!("{path}.lifecycle"), lifecycle, grace, errors);
    }
    let probes = [
        ("livenessProbe", &it.liveness_probe),
        ("readinessProbe", &it.readiness_probe),
        ("startupProbe", &it.startup_probe),
    ];
    for (field, it) in probes {
        let Some(it) = it else { continue };
        let path = format!("{path}.{field}");
        probe(&path, it, errors);
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
    if rules.len() > 20 {
        errors.too_many(format!("{path}.restartPolicyRules"), rules.len(), 20);
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

fn variable(path: &str, it: &EnvVar, errors: &mut Errors) {
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
        need(&path, "key", &file.key, errors);
        need(&path, "volumeName", &file.volume_name, errors);
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

fn variables(path: &str, sources: &[EnvFromSource], errors: &mut Errors) {
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

fn probe(path: &str, it: &Probe, errors: &mut Errors) {
    let handler = Handler {
        exec: it.exec.as_ref(),
        get: it.http_get.as_ref(),
        socket: it.tcp_socket.as_ref(),
        grpc: it.grpc.as_ref(),
        sleep: None,
    };
    handler.validate(path, None, errors);
    let numbers = [
        ("initialDelaySeconds", it.initial_delay_seconds),
        ("timeoutSeconds", it.timeout_seconds),
        ("periodSeconds", it.period_seconds),
        ("successThreshold", it.success_threshold),
        ("failureThreshold", it.failure_threshold),
    ];
    for (field, number) in numbers {
        names::not_negative(format!("{path}.{field}"), i64::from(number.unwrap_or(0)), errors);
    }
    if let Some(seconds) = it.termination_grace_period_seconds.filter(|it| *it <= 0) {
        let path = format!("{path}.terminationGracePeriodSeconds");
        errors.invalid(path, seconds, "must be greater than 0");
    }
}

fn hooks(path: &str, lifecycle: &Lifecycle, grace: Option<i64>, errors: &mut Errors) {
    let of = |it: &LifecycleHandler, path: &str, errors: &mut Errors| {
        let handler = Handler {
            exec: it.exec.as_ref(),
            get: it.http_get.as_ref(),
            socket: it.tcp_socket.as_ref(),
            grpc: None,
            sleep: it.sleep.as_ref(),
        };
        handler.validate(path, grace, errors);
    };
    if let Some(it) = &lifecycle.post_start {
        of(it, &format!("{path}.postStart"), errors);
    }
    if let Some(it) = &lifecycle.pre_stop {
        of(it, &format!("{path}.preStop"), errors);
    }
}

/// What a probe or a hook does: one thing.
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    get: Option<&'a HTTPGetAction>,
    socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl Handler<'_> {
    fn validate(&self, path: &str, grace: Option<i64>, errors: &mut Errors) {
        let fields = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.get.is_some()),
            ("tcpSocket", self.socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut found = false;
        for (field, _) in fields.into_iter().filter(|it| it.1) {
            let path = format!("{path}.{field}");
            if found {
                errors.forbidden(path, "may not specify more than 1 handler type");
            } else {
                self.action(field, &path, grace, errors);
            }
            found = true;
        }
        if !found {
            errors.required(path, "must specify a handler type");
        }
    }

    fn action(&self, field: &str, path: &str, grace: Option<i64>, errors: &mut Errors) {
        if let (Some(exec), "exec") = (self.exec, field)
            && list(&exec.command).is_empty()
        {
            errors.required(format!("{path}.command"), "");
        }
        if let (Some(get), "httpGet") = (self.get, field) {
            need(path, "path", text(&get.path), errors);
            port(format!("{path}.port"), &get.port, errors);
            let (scheme, known) = (text(&get.scheme), ["HTTP", "HTTPS"]);
            if !known.contains(&scheme) {
                errors.not_supported(format!("{path}.scheme"), scheme, &known);
            }
            for header in list(&get.http_headers) {
                names::header(format!("{path}.httpHeaders"), &header.name, errors);
            }
        }
        if let (Some(socket), "tcpSocket") = (self.socket, field) {
            port(format!("{path}.port"), &socket.port, errors);
        }
        if let (Some(grpc), "grpc") = (self.grpc, field) {
            names::port(format!("{path}.port"), grpc.port, errors);
        }
        if let (Some(sleep), "sleep", Some(grace)) = (self.sleep, field, grace)
            && !(0..=grace).contains(&sleep.seconds)
        {
            let detail = format!(
                "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            );
            errors.invalid(path, sleep.seconds, detail);
        }
    }
}

fn port(path: String, port: &IntOrString, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => names::port(path, *number, errors),
        IntOrString::String(name) => names::port_name(path, name, errors),
    }
}

/// Says what is wrong with requests and limits.
pub(super) fn validate_resources(
    path: &str,
    resources: &ResourceRequirements,
    name: fn(&str, &str, &mut Errors),
    errors: &mut Errors,
) {
    let empty = BTreeMap::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    let fixed = |name: &str| name.starts_with("hugepages-") || !is_native(name);
    for (field, amounts) in [("limits", limits), ("requests", requests)] {
        for (resource, amount) in amounts {
            let at = format!("{path}.{field}[{resource}]");
            name(&at, resource, errors);
            let Some(exact) = quantity::read(&at, amount, errors) else { continue };
            if exact < Exact::ZERO {
                errors.invalid(&at, quoted(&amount.0), "must be greater than or equal to 0");
            }
            if !is_native(resource) && Exact::from_units(exact.units()) != exact {
                errors.invalid(&at, quoted(&amount.0), "must be an integer");
            }
            if field == "limits" {
                continue;
            }
            let at = format!("{path}.requests");
            match limits.get(resource) {
                Some(limit) if fixed(resource) && Exact::of(limit) != exact => {
                    let detail = format!("must be equal to {resource} limit of {}", limit.0);
                    errors.invalid(at, quoted(&amount.0), detail);
                }
                Some(limit) if exact > Exact::of(limit) => {
                    let detail =
                        format!("must be less than or equal to {resource} limit of {}", limit.0);
                    errors.invalid(at, quoted(&amount.0), detail);
                }
                None if fixed(resource) => {
                    let detail = "Limit must be set for non overcommitable resources";
                    errors.required(format!("{path}.limits"), detail);
                }
                Some(_) | None => {}
            }
        }
    }
    let has = |test: &dyn Fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|it| test(it));
    if has(&|it| it.starts_with("hugepages-")) && !has(&|it| it == "cpu" || it == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Names without a prefix, and those of the project itself.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// The name of something that a container can ask for.
fn validate_container_resource(path: &str, name: &str, errors: &mut Errors) {
    let before = errors.0.len();
    names::qualified_name(path, name, errors);
    if errors.0.len() > before || name.contains('/') {
        return;
    }
    let standard = ["cpu", "memory", "ephemeral-storage"];
    if standard.contains(&name) || name.starts_with("hugepages-") {
        return;
    }
    let detail = "must be a standard resource type or fully qualified";
    let elsewhere = ["storage", "pods", "services", "secrets", "configmaps"];
    if !elsewhere.contains(&name) {
        errors.invalid(path, quoted(name), detail);
    }
    errors.invalid(path, quoted(name), "must be a standard resource for containers");
}

/// The name of something that a pod as a whole can ask for.
pub(super) fn validate_pod_resource(path: &str, name: &str, errors: &mut Errors) {
    if name != "cpu" && name != "memory" && !name.starts_with("hugepages-") {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

fn claims(path: &str, resources: &ResourceRequirements, spec: &PodSpec, errors: &mut Errors) {
    let known: Vec<&str> = list(&spec.resource_claims).iter().map(|it| it.name.as_str()).collect();
    for (n, it) in list(&resources.claims).iter().enumerate() {
        let path = format!("{path}[{n}]");
        if it.name.is_empty() {
            errors.required(path, "");
        } else if !known.contains(&it.name.as_str()) {
            let detail = match known.is_empty() {
                true => " which is empty".to_owned(),
                false => format!(": {}", known.join(", ")),
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{detail}");
            errors.push(Reason::NotFound, path, Some(quoted(&it.name)), detail);
        }
    }
}
