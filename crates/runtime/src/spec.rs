//! From what the interface asks for to what a shim is told.
//!
//! Upstream: containerd's CRI plugin, for the defaults that pods rely on.

mod devices;
mod mounts;
mod pod;
mod process;
mod users;

pub(crate) use devices::device_rules;
pub(crate) use mounts::image_volumes;
pub(crate) use pod::{setup, write_files};
pub(crate) use process::{arguments, environment, process};
pub(crate) use users::are_possible as users_are_possible;

use crate::{
    container::{Container, security},
    error::{Error, Result},
};
use devices::devices;
use rpc::cri::{self, ContainerConfig, LinuxContainerSecurityContext, NamespaceMode};
use shim::{
    frame,
    protocol::{PidNamespace, Start},
};
use std::{os::fd::OwnedFd, path::Path};

/// Refuses what this runtime cannot do, before anything is made.
pub(crate) fn check_sandbox(config: &cri::PodSandboxConfig) -> Result<()> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    options.map_or(Ok(None), users::ids).map(drop)
}

pub(crate) fn check_container(config: &ContainerConfig) -> Result<()> {
    let both = |mount: &&cri::Mount| mount.image.is_some() && !mount.host_path.is_empty();
    if let Some(mount) = config.mounts.iter().find(both) {
        let path = &mount.container_path;
        return Err(Error::Invalid(format!(
            "mount on {path}: an image and a path of the host exclude each other"
        )));
    }
    if let Some(mount) = config.mounts.iter().find(|mount| !mount.container_path.starts_with('/')) {
        return Err(Error::Invalid(format!(
            "mount path {:?} is not absolute",
            mount.container_path
        )));
    }
    process::user(&security(config), "").map(drop)
}

/// Everything for the shim, and the sources of the mounts in order.
pub(crate) fn start(
    container: &Container,
    cgroup: shim::protocol::Cgroup,
    seccomp: Vec<Vec<u8>>,
) -> Result<(Start, Vec<OwnedFd>)> {
    let config = &container.config;
    let security = security(config);
    let sandbox = &container.sandbox;
    let mut wanted = mounts::pod_files(sandbox, config, security.readonly_rootfs);
    wanted.extend(config.mounts.iter().cloned());
    // What lies below something comes after it.
    wanted.sort_by_key(|mount| Path::new(&mount.container_path).components().count());
    if wanted.len() > frame::DESCRIPTORS_MAX {
        let (count, most) = (wanted.len(), frame::DESCRIPTORS_MAX);
        return Err(Error::Invalid(format!(
            "{count} mounts in one container; at most {most} are possible"
        )));
    }
    let from_host = wanted.iter().filter(|mount| mount.image.is_none());
    let sources = from_host.map(mounts::source).collect::<Result<Vec<_>>>()?;
    let images = &container.record.image_volumes;
    let (masked_paths, readonly_paths) = protected_paths(&security);
    let options = security.namespace_options.clone().unwrap_or_default();
    let pid_namespace = PidNamespace {
        host: options.pid() == NamespaceMode::Node,
        pod: options.pid() == NamespaceMode::Pod
            && sandbox.namespaces().pid() == NamespaceMode::Pod,
        container: if options.pid() == NamespaceMode::Target {
            options.target_id.clone()
        } else {
            String::new()
        },
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let start = Start {
        container: container.id.clone(),
        directory: text(&container.directory),
        layers: container.record.layers.clone(),
        process: process(container, container.record.arguments.clone(), config.tty, seccomp)?,
        mounts: wanted
            .iter()
            .map(|mount| match mount.image {
                Some(_) => mounts::image(mount, images),
                None => mounts::mount(mount),
            })
            .collect::<Result<_>>()?,
        devices: devices(config, security.privileged)?,
        masked_paths,
        readonly_paths,
        readonly_root: security.readonly_rootfs,
        writable_system: security.privileged,
        pid_namespace,
        cgroup,
        oom_score_adjust: i32::try_from(container.resources().oom_score_adj)
            .unwrap_or(0)
            .clamp(-1000, 1000),
        log: container.log_path(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
    };
    Ok((start, sources))
}

/// What the node asks to hide, and to keep from being written: nothing, where it asks for nothing.
fn protected_paths(security: &LinuxContainerSecurityContext) -> (Vec<String>, Vec<String>) {
    if security.privileged {
        return (Vec::new(), Vec::new());
    }
    (security.masked_paths.clone(), security.readonly_paths.clone())
}
