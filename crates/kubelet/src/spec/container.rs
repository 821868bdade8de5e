//! One container as CRI wants it. Upstream: `kuberuntime_container.go` (generateContainerConfig), `kubelet_pods.go`
//! (makeMounts).

use super::{
    Facts,
    environment::Variables,
    expansion::{expand, expand_strictly},
    log_file, resources, security, text,
};
use crate::runtime::{
    Image,
    cri::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID},
    message,
};
use api::{
    Object,
    core::v1::{Container, ImageVolumeSource, Pod, VolumeMount},
};
use message::{
    ContainerConfig, ContainerMetadata, Device, ImageSpec, KeyValue, LinuxContainerConfig, Mount,
    MountPropagation, NamespaceMode, Signal,
};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};
use volumes::{Published, subpath::SubPath};

/// What was prepared for this run of the container.
pub struct Prepared<'a> {
    pub attempt: u32,
    pub image: &'a Image,
    pub image_ref: &'a str,
    pub environment: &'a Variables,
    /// Pod volume → where it is.
    pub volumes: &'a BTreeMap<String, Published>,
    /// The container whose processes it shall see.
    pub target: Option<&'a str>,
    /// Index of the mount → where its part of the volume is bound.
    pub parts: &'a BTreeMap<usize, PathBuf>,
    /// Pod volume → the id of the image that it is.
    pub image_volumes: &'a BTreeMap<String, String>,
}

pub fn config(
    pod: &Pod,
    container: &Container,
    prepared: &Prepared<'_>,
    facts: &Facts,
) -> Result<ContainerConfig, String> {
    let mut security = security::of_container(pod, container, prepared.image, facts)?;
    if let (Some(target), Some(options)) = (prepared.target, &mut security.namespace_options) {
        options.pid = NamespaceMode::Target as i32;
        options.target_id = target.to_owned();
    }
    let expanded = |list: &Option<Vec<String>>| {
        let list = list.iter().flatten();
        list.map(|it| expand(it, prepared.environment)).collect::<Vec<_>>()
    };
    let labels = [
        (POD_NAME, pod.name()),
        (POD_NAMESPACE, pod.namespace()),
        (POD_UID, pod.uid()),
        (CONTAINER_NAME, &container.name),
    ];
    let envs = prepared.environment.iter();
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: container.name.clone(),
            attempt: prepared.attempt,
        }),
        image: Some(ImageSpec {
            image: prepared.image_ref.to_owned(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: envs
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into_bytes() })
            .collect(),
        mounts: mounts(pod, container, prepared, facts)?,
        devices: devices(container, prepared)?,
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        annotations: HashMap::from([(
            "io.kubernetes.container.restartCount".to_owned(),
            prepared.attempt.to_string(),
        )]),
        log_path: log_file(&container.name, prepared.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        stop_signal: stop_signal(container),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::of_container(pod, container, facts)),
            security_context: Some(security),
        }),
    })
}

/// The parts of volumes that must be bound before the container is made.
pub fn sub_paths(
    pod: &Pod,
    container: &Container,
    environment: &Variables,
    volumes: &BTreeMap<String, Published>,
    facts: &Facts,
) -> Result<Vec<(usize, SubPath)>, String> {
    let mut parts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let Some(path) = sub_path(mount, environment)? else { continue };
        if image_of(pod, &mount.name).is_some() {
            // The runtime looks for it in the image.
            continue;
        }
        let published = published(mount, container, volumes)?;
        let below = facts.pod_dir(pod.uid()).join("volume-subpaths").join(&mount.name);
        let part = SubPath {
            volume: mount.name.clone(),
            root: published.host_path.clone(),
            path,
            target: below.join(&container.name).join(index.to_string()),
            read_only: mount.read_only == Some(true) || published.read_only,
        };
        parts.push((index, part));
    }
    Ok(parts)
}

fn sub_path(mount: &VolumeMount, environment: &Variables) -> Result<Option<String>, String> {
    let set = |it: &Option<String>| it.clone().filter(|it| !it.is_empty());
    match (set(&mount.sub_path_expr), set(&mount.sub_path)) {
        (Some(expression), _) => expand_strictly(&expression, environment)
            .map(Some)
            .map_err(|missing| format!("missing value for {missing:?}")),
        (None, path) => Ok(path),
    }
}

/// The image that a volume of the pod is.
pub fn image_of<'a>(pod: &'a Pod, volume: &str) -> Option<&'a ImageVolumeSource> {
    let mut volumes = pod.spec.iter().flat_map(|it| it.volumes.iter().flatten());
    volumes.find(|it| it.name == volume)?.image.as_ref()
}

fn published<'a>(
    mount: &VolumeMount,
    container: &Container,
    volumes: &'a BTreeMap<String, Published>,
) -> Result<&'a Published, String> {
    volumes.get(&mount.name).ok_or_else(|| {
        format!(
            "cannot find volume \"{}\" to mount into container \"{}\"",
            mount.name, container.name
        )
    })
}

fn mounts(
    pod: &Pod,
    container: &Container,
    prepared: &Prepared<'_>,
    facts: &Facts,
) -> Result<Vec<Mount>, String> {
    let absolute = |path: &str| match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    };
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if let Some(source) = image_of(pod, &mount.name) {
            let id = prepared.image_volumes.get(&mount.name).cloned().unwrap_or_default();
            mounts.push(Mount {
                container_path: absolute(&mount.mount_path),
                readonly: true,
                image: Some(ImageSpec {
                    image: id,
                    user_specified_image: source.reference.clone().unwrap_or_default(),
                    ..ImageSpec::default()
                }),
                image_sub_path: sub_path(mount, prepared.environment)?.unwrap_or_default(),
                ..Mount::default()
            });
            continue;
        }
        let published = published(mount, container, prepared.volumes)?;
        let host_path = prepared.parts.get(&index).unwrap_or(&published.host_path);
        mounts.push(Mount {
            container_path: absolute(&mount.mount_path),
            host_path: text(host_path),
            readonly: mount.read_only == Some(true) || published.read_only,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
                Some("Bidirectional") => MountPropagation::PropagationBidirectional,
                Some(_) | None => MountPropagation::PropagationPrivate,
            } as i32,
            recursive_read_only: is_read_only_to_the_bottom(mount),
            ..Mount::default()
        });
    }
    let mut managed = |path: String, host_path: PathBuf| {
        if !mounts.iter().any(|it| it.container_path == path) {
            let host_path = text(&host_path);
            mounts.push(Mount { container_path: path, host_path, ..Mount::default() });
        }
    };
    managed("/etc/hosts".to_owned(), facts.hosts_file(pod.uid()));
    if let Some(path) = termination_path(container) {
        let log = facts.termination_log(pod.uid(), &container.name, prepared.attempt);
        managed(absolute(path), log);
    }
    Ok(mounts)
}

/// Whether what is mounted below a read-only volume is read-only too. Validation asks for `readOnly` beside it.
pub fn is_read_only_to_the_bottom(mount: &VolumeMount) -> bool {
    let wanted = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    wanted && mount.read_only == Some(true)
}

/// Where the container may leave a last word.
pub fn termination_path(container: &Container) -> Option<&str> {
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    Some(path).filter(|it| !it.is_empty())
}

fn devices(container: &Container, prepared: &Prepared<'_>) -> Result<Vec<Device>, String> {
    let each = container.volume_devices.iter().flatten().map(|it| {
        let published = prepared.volumes.get(&it.name).ok_or_else(|| {
            format!(
                "cannot find volume \"{}\" to pass into container \"{}\"",
                it.name, container.name
            )
        })?;
        let permissions = if published.read_only { "r" } else { "mrw" };
        Ok(Device {
            container_path: it.device_path.clone(),
            host_path: text(&published.host_path),
            permissions: permissions.to_owned(),
        })
    });
    each.collect()
}

fn stop_signal(container: &Container) -> i32 {
    let name = container.lifecycle.as_ref().and_then(|it| it.stop_signal.as_deref());
    name.and_then(Signal::from_str_name).unwrap_or(Signal::RuntimeDefault) as i32
}
