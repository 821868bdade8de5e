//! What a container sees of the host's files.

use crate::{
    error::{Attempt, Result},
    sandbox::Sandbox,
};
use rpc::cri::{self, ContainerConfig, MountPropagation};
use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};
use shim::protocol::{Mount, propagation};
use std::{fs, os::fd::OwnedFd, path::Path};

pub(super) fn pod_files(
    sandbox: &Sandbox,
    config: &ContainerConfig,
    readonly: bool,
) -> Vec<cri::Mount> {
    let files = [
        ("/etc/hosts", "hosts"),
        ("/etc/hostname", "hostname"),
        ("/etc/resolv.conf", "resolv.conf"),
    ];
    let own = |path: &str| config.mounts.iter().any(|mount| mount.container_path == path);
    let mount = |(path, file): (&str, &str)| cri::Mount {
        container_path: path.to_owned(),
        host_path: sandbox.directory.join(file).to_string_lossy().into_owned(),
        readonly,
        ..cri::Mount::default()
    };
    files.into_iter().filter(|(path, _)| !own(path)).map(mount).collect()
}

/// Cloned here, in the host's mount namespace: so a mount can pass what happens on it in both directions.
pub(super) fn source(mount: &cri::Mount) -> Result<OwnedFd> {
    let path = Path::new(&mount.host_path);
    if !path.exists() {
        fs::create_dir_all(path)
            .attempt(|| format!("make the missing directory {}", path.display()))?;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).attempt(|| format!("open {} to mount it", path.display()))
}

pub(super) fn mount(mount: &cri::Mount) -> Result<Mount> {
    let path = &mount.host_path;
    let metadata = fs::metadata(path).attempt(|| format!("look at {path} to mount it"))?;
    Ok(Mount {
        target: mount.container_path.clone(),
        directory: metadata.is_dir(),
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        propagation: match mount.propagation() {
            MountPropagation::PropagationPrivate => propagation::PRIVATE,
            MountPropagation::PropagationHostToContainer => propagation::HOST_TO_CONTAINER,
            MountPropagation::PropagationBidirectional => propagation::BIDIRECTIONAL,
        },
        ..Mount::default()
    })
}
