//! What a pod's author leaves out.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `zz_generated.defaults.go`.

use super::resources;
use crate::{
    core::{persistent_volume as volumes, persistent_volume_claim as claims},
    k8s::{
        api::core::v1::{
            Container, DownwardAPIVolumeFile, EnvVar, HTTPGetAction, PodSpec, Probe,
            ResourceFieldSelector, ResourceRequirements, Volume,
        },
        apimachinery::pkg::api::resource::Quantity,
    },
    meta::{
        absent::{fill, omit_zero},
        quantity,
    },
};
use std::collections::BTreeMap;

/// Mode of files that volumes hold: rw-r--r--.
const FILE_MODE: i32 = 0o644;

/// Fills in a spec wherever it stands: in a pod or in a template.
pub fn default_spec(spec: &mut PodSpec) {
    fill(&mut spec.dns_policy, "ClusterFirst");
    fill(&mut spec.restart_policy, "Always");
    fill(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    for truth in [&mut spec.host_network, &mut spec.host_pid, &mut spec.host_ipc] {
        omit_zero(truth);
    }
    default_service_account(spec);
    spec.volumes.iter_mut().flatten().for_each(default_volume);
    spec.init_containers.iter_mut().flatten().for_each(default_container);
    spec.containers.iter_mut().for_each(default_container);
    for it in spec.ephemeral_containers.iter_mut().flatten() {
        super::ephemeral::with_container(it, default_container);
    }
    quantity::canonicalize(&mut spec.overhead);
    spec.resources.iter_mut().for_each(canonicalize);
}

/// Fills in what a template leaves open and a pod may not.
pub(super) fn default_pod(spec: &mut PodSpec) {
    spec.enable_service_links.get_or_insert(true);
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        let Some(resources) = &mut container.resources else { continue };
        let Some(limits) = &resources.limits else { continue };
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    default_whole(spec);
    if spec.host_network == Some(true) {
        let init = spec.init_containers.iter_mut().flatten();
        let ports = init.chain(&mut spec.containers).filter_map(|it| it.ports.as_mut()).flatten();
        for port in ports.filter(|it| it.host_port.unwrap_or(0) == 0) {
            port.host_port = Some(port.container_port);
        }
    }
}

/// Requests of the pod as a whole, once it has limits as a whole: what its containers ask for
/// together, else the limit.
fn default_whole(spec: &mut PodSpec) {
    let limits = |it: &ResourceRequirements| it.limits.clone().filter(|it| !it.is_empty());
    let Some(limits) = spec.resources.as_ref().and_then(limits) else { return };
    let whole = spec.resources.take().unwrap_or_default();
    let overhead = spec.overhead.take();
    let together = resources::requests(spec);
    spec.overhead = overhead;
    let mut requests = whole.requests.clone().unwrap_or_default();
    for name in ["cpu", "memory"] {
        if let Some(amount) = together.get(name) {
            let quantity = match name {
                "cpu" => Quantity(format!("{}m", amount.milli())),
                _ => Quantity(amount.units().to_string()),
            };
            requests.entry(name.to_owned()).or_insert(quantity);
        }
    }
    let counts = |name: &str| name == "cpu" || name == "memory" || name.starts_with("hugepages-");
    for (name, limit) in limits.into_iter().filter(|(name, _)| counts(name)) {
        requests.entry(name).or_insert(limit);
    }
    let mut requests: Option<BTreeMap<_, _>> = Some(requests);
    quantity::canonicalize(&mut requests);
    spec.resources = Some(ResourceRequirements { requests, ..whole });
}

/// `serviceAccount` is the old name of `serviceAccountName`: both are kept, equal.
fn default_service_account(spec: &mut PodSpec) {
    if spec.service_account_name.as_deref().unwrap_or_default().is_empty() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
}

fn default_container(container: &mut Container) {
    fill(&mut container.image_pull_policy, pull_policy(container.image.as_deref()));
    fill(&mut container.termination_message_path, "/dev/termination-log");
    fill(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        fill(&mut port.protocol, "TCP");
        omit_zero(&mut port.host_port);
    }
    for mount in container.volume_mounts.iter_mut().flatten() {
        omit_zero(&mut mount.read_only);
    }
    for truth in [&mut container.stdin, &mut container.stdin_once, &mut container.tty] {
        omit_zero(truth);
    }
    container.env.iter_mut().flatten().for_each(default_variable);
    canonicalize(container.resources.get_or_insert_default());
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(default_probe);
    if let Some(lifecycle) = &mut container.lifecycle {
        let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
        hooks.into_iter().flatten().filter_map(|it| it.http_get.as_mut()).for_each(default_get);
    }
}

/// `Always` for the tag `latest`, said or meant.
fn pull_policy(image: Option<&str>) -> &'static str {
    let image = image.unwrap_or_default();
    let (name, digest) = image.split_once('@').map_or((image, None), |(it, d)| (it, Some(d)));
    // A colon before the last slash belongs to the registry's port.
    let tag = name.rsplit('/').next().and_then(|it| it.split_once(':')).map(|(_, tag)| tag);
    match (tag, digest) {
        (Some("latest"), _) | (None, None) => "Always",
        (Some(_), _) | (None, Some(_)) => "IfNotPresent",
    }
}

fn default_variable(variable: &mut EnvVar) {
    let Some(source) = &mut variable.value_from else { return };
    if let Some(field) = &mut source.field_ref {
        fill(&mut field.api_version, "v1");
    }
    source.resource_field_ref.iter_mut().for_each(default_amount);
    if let Some(file) = &mut source.file_key_ref {
        file.optional.get_or_insert(false);
    }
}

fn default_probe(probe: &mut Probe) {
    let positive = |field: &mut Option<i32>, value: i32| {
        if field.unwrap_or(0) == 0 {
            *field = Some(value);
        }
    };
    omit_zero(&mut probe.initial_delay_seconds);
    positive(&mut probe.timeout_seconds, 1);
    positive(&mut probe.period_seconds, 10);
    positive(&mut probe.success_threshold, 1);
    positive(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(default_get);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn default_get(get: &mut HTTPGetAction) {
    fill(&mut get.path, "/");
    fill(&mut get.scheme, "HTTP");
}

fn default_volume(volume: &mut Volume) {
    if !super::sources::has_source(volume) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(limit) = volume.empty_dir.as_mut().and_then(|it| it.size_limit.as_mut()) {
        quantity::canonicalize_one(limit);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.persistent_volume_claim {
        omit_zero(&mut source.read_only);
    }
    if let Some(source) = &mut volume.nfs {
        omit_zero(&mut source.read_only);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        source.items.iter_mut().flatten().for_each(default_file);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
        for part in source.sources.iter_mut().flatten() {
            let files = part.downward_api.as_mut().and_then(|it| it.items.as_mut());
            files.into_iter().flatten().for_each(default_file);
            if let Some(token) = &mut part.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
        }
    }
    if let Some(source) = &mut volume.iscsi {
        fill(&mut source.iscsi_interface, "default");
    }
    if let Some(source) = &mut volume.rbd {
        volumes::default_rbd(&mut source.pool, &mut source.user, &mut source.keyring);
    }
    volume.azure_disk.iter_mut().for_each(volumes::default_azure_disk);
    if let Some(source) = &mut volume.scale_io {
        fill(&mut source.storage_mode, "ThinProvisioned");
        fill(&mut source.fs_type, "xfs");
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(source.reference.as_deref());
        fill(&mut source.pull_policy, policy);
    }
    let template = volume.ephemeral.as_mut().and_then(|it| it.volume_claim_template.as_mut());
    if let Some(template) = template {
        claims::default_spec(&mut template.spec);
    }
}

fn default_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        fill(&mut field.api_version, "v1");
    }
    file.resource_field_ref.iter_mut().for_each(default_amount);
}

/// The unit in which an amount is shown; zero is one.
fn default_amount(field: &mut ResourceFieldSelector) {
    quantity::canonicalize_one(field.divisor.get_or_insert_with(|| Quantity("0".to_owned())));
}

fn canonicalize(resources: &mut ResourceRequirements) {
    quantity::canonicalize(&mut resources.limits);
    quantity::canonicalize(&mut resources.requests);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec, core::v1::Pod, kind::Kind};
    use serde_json::{Value, json};

    fn defaulted(spec: Value) -> Value {
        let mut pod: Pod =
            codec::from_value(&json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        Kind::default(&mut pod);
        let once = codec::to_value(&pod);
        Kind::default(&mut pod);
        assert_eq!(codec::to_value(&pod), once, "defaulting twice changes nothing");
        once["spec"].clone()
    }

    #[test]
    fn fills_in_what_the_author_left_out() {
        let spec = defaulted(json!({
            "serviceAccountName": "robot",
            "containers": [{"name": "c", "image": "nginx:1.9.1",
                "resources": {"limits": {"cpu": "0.5"}},
                "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 2},
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}],
            "volumes": [{"name": "a"}, {"name": "b", "hostPath": {"path": "/b"}},
                {"name": "c", "secret": {"secretName": "s"}}],
        }));
        assert_eq!(
            spec,
            json!({
                "serviceAccount": "robot", "serviceAccountName": "robot",
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {},
                "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
                "containers": [{"name": "c", "image": "nginx:1.9.1",
                    "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "500m"}},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
                        "periodSeconds": 2, "timeoutSeconds": 1, "successThreshold": 1,
                        "failureThreshold": 3},
                    "env": [{"name": "IP", "valueFrom":
                        {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}]}],
                "volumes": [{"name": "a", "emptyDir": {}},
                    {"name": "b", "hostPath": {"path": "/b", "type": ""}},
                    {"name": "c", "secret": {"secretName": "s", "defaultMode": 420}}],
            })
        );
    }

    #[test]
    fn pulls_always_only_for_the_latest() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.9.1", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(Some(image)), policy, "{image}");
        }
    }
}
