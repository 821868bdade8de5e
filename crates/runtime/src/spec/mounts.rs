//! What a container sees of the host's files.

use crate::{
    error::{Attempt, Error, Result},
    image::ImageStore,
    record::ImageVolume,
    sandbox::Sandbox,
};
use rpc::cri::{self, ContainerConfig, MountPropagation};
use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};
use shim::protocol::{Mount, propagation};
use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Component, Path, PathBuf},
};

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

/// An image that is mounted like a volume.
pub(super) fn image(mount: &cri::Mount, known: &[ImageVolume]) -> Result<Mount> {
    let path = &mount.container_path;
    let image = known.iter().find(|it| it.path == *path);
    let image = image.ok_or_else(|| Error::State(format!("the image on {path} is not known")))?;
    Ok(Mount {
        target: path.clone(),
        layers: image.layers.clone(),
        sub_path: mount.image_sub_path.clone(),
        ..Mount::default()
    })
}

/// The images that the container mounts, by where. Kubelets look for this word in front of the message.
pub(crate) fn image_volumes(
    config: &ContainerConfig,
    store: &ImageStore,
) -> Result<Vec<ImageVolume>> {
    let mut found = Vec::new();
    for mount in &config.mounts {
        let Some(spec) = &mount.image else { continue };
        let path = &mount.container_path;
        let failed =
            |why: String| Error::Invalid(format!("ImageVolumeMountFailed: mount {path}: {why}"));
        let image = store.resolve(&spec.image);
        let image =
            image.ok_or_else(|| failed(format!("{} is not in the local store", spec.image)))?;
        if !holds(&image.layers, Path::new(&mount.image_sub_path)) {
            let (part, name) = (&mount.image_sub_path, &spec.user_specified_image);
            return Err(failed(format!("{part:?} is not in image {name:?}")));
        }
        let layers = image.layers.iter().map(|it| it.to_string_lossy().into_owned()).collect();
        found.push(ImageVolume { path: path.clone(), image_id: image.id, layers });
    }
    Ok(found)
}

/// Whether the part can be in the image. Links are followed only when it is mounted.
fn holds(layers: &[PathBuf], part: &Path) -> bool {
    let names: Vec<&OsStr> = part
        .components()
        .filter_map(|it| if let Component::Normal(name) = it { Some(name) } else { None })
        .collect();
    layers.iter().rev().find_map(|layer| layer_holds(layer, &names)).unwrap_or(false)
}

/// None: this layer says nothing of it.
fn layer_holds(layer: &Path, names: &[&OsStr]) -> Option<bool> {
    let mut here = layer.to_owned();
    for name in names {
        here.push(name);
        let found = fs::symlink_metadata(&here).ok()?;
        if found.is_symlink() {
            return Some(true);
        }
        // What a layer above has removed.
        if found.file_type().is_char_device() && found.rdev() == 0 {
            return Some(false);
        }
    }
    Some(true)
}
