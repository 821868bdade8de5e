//! local: a directory or a disk of this node, offered by a PersistentVolume.
//!
//! Upstream: pkg/volume/local/local.go (1.36). Deviation: a disk is formatted only if its first MiB is all zeros.

use crate::{
    Capabilities, Config, PublishVolume, Published, Result, StageVolume, VolumeError, VolumePlugin,
    error::{Attempt, Attempted, Failure, OnVolume},
    filesystem::{Filesystem, superblock, uuid_text},
    host_path::context_path,
    mount, ownership, tree,
    work::blocking,
};
use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::Arc,
};
use stdx::{BoxFuture, Entropy, SystemEntropy};

pub(crate) const NAME: &str = "kubernetes.io/local-volume";

/// Whoever uses a disk without a filesystem writes something within its first MiB: a partition table, a label, a log.
const LOOKED_AT_BYTES: u64 = 1024 * 1024;

struct LocalVolume;

pub(crate) fn open(_: &Config) -> Arc<dyn VolumePlugin> {
    Arc::new(LocalVolume)
}

enum Kind {
    Directory,
    /// Its device number.
    Disk(u64),
}

impl VolumePlugin for LocalVolume {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { stage: true, block: true, ..Capabilities::default() }
    }

    /// A disk is mounted, and formatted first if it is empty; for a directory there is nothing to do.
    fn stage<'a>(&'a self, request: &'a StageVolume) -> BoxFuture<'a, Result<()>> {
        let request = request.clone();
        Box::pin(async move {
            let handle = request.volume.handle.clone();
            blocking("stage", &handle, move || {
                let path = context_path(&request.volume.context)?;
                stage(path, &request).on("stage", &request.volume.handle)
            })
            .await
        })
    }

    fn unstage<'a>(&'a self, handle: &'a str, staging: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(remove(handle, staging))
    }

    /// `volume.context`: `path` (absolute).
    fn publish<'a>(&'a self, request: &'a PublishVolume) -> BoxFuture<'a, Result<Published>> {
        let request = request.clone();
        Box::pin(async move {
            let handle = request.volume.handle.clone();
            blocking("publish", &handle, move || publish(&request)).await
        })
    }

    fn unpublish<'a>(&'a self, handle: &'a str, target: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(remove(handle, target))
    }
}

async fn remove(handle: &str, target: &Path) -> Result<()> {
    mount::unmount(handle, target).await?;
    let (name, target) = (handle.to_string(), target.to_path_buf());
    blocking("unpublish", handle, move || tree::remove_mount_point(&target).on("unpublish", &name))
        .await
}

fn kind(path: &Path) -> Attempt<Kind> {
    let found = fs::metadata(path).attempted(|| format!("stat {}", path.display()))?;
    if found.is_dir() {
        Ok(Kind::Directory)
    } else if found.file_type().is_block_device() {
        Ok(Kind::Disk(found.rdev()))
    } else {
        let text = format!("{}: only directory and block device are supported", path.display());
        Err(Failure::new(text))
    }
}

fn stage(path: &Path, request: &StageVolume) -> Attempt<()> {
    let Kind::Disk(_) = kind(path)? else { return Ok(()) };
    if request.block {
        return Ok(());
    }
    let staging = &request.staging;
    if mount::mounted_at(staging).attempted(|| format!("look for {}", staging.display()))?.is_some()
    {
        return Ok(());
    }
    let filesystem = format_if_empty(path, request.fs_type.as_deref().unwrap_or(""))?;
    tree::make(staging, 0o750)?;
    mount::mount(path, staging, filesystem.name(), &request.mount_options)
}

/// What the disk holds, after making `wanted` (ext4 if empty) on a disk that holds nothing.
fn format_if_empty(path: &Path, wanted: &str) -> Attempt<Filesystem> {
    let attempt = || format!("read {}", path.display());
    let name = if wanted.is_empty() { "ext4" } else { wanted };
    let asked = Filesystem::parse(name)
        .ok_or_else(|| Failure::new(format!("filesystem {name:?} is not supported")))?;
    let disk = File::open(path).attempted(attempt)?;
    match superblock(&disk).attempted(attempt)? {
        Some(found) if wanted.is_empty() || found.filesystem == asked => {
            return Ok(found.filesystem);
        }
        Some(found) => {
            let text = format!("{} holds {}, not {name}", path.display(), found.filesystem.name());
            return Err(Failure::new(text));
        }
        None => {}
    }
    let mut start = Vec::new();
    disk.take(LOOKED_AT_BYTES).read_to_end(&mut start).attempted(attempt)?;
    if start.iter().any(|byte| *byte != 0) {
        let text = format!("{} holds data that is no filesystem known here", path.display());
        return Err(Failure::new(text));
    }
    let mut uuid = [0; 16];
    SystemEntropy::default().fill(&mut uuid);
    asked.make_on_used(path, &uuid_text(uuid))?;
    Ok(asked)
}

fn publish(request: &PublishVolume) -> Result<Published> {
    let (handle, target, read_only) = (&request.volume.handle, &request.target, request.read_only);
    let path = context_path(&request.volume.context)?;
    let source = match (kind(path).on("publish", handle)?, request.block) {
        (Kind::Disk(_), true) => {
            return Ok(Published { host_path: path.to_path_buf(), read_only });
        }
        (Kind::Directory, true) => {
            let text = format!("{} is a directory, not a block device", path.display());
            return Err(VolumeError::Invalid(text));
        }
        (Kind::Directory, false) => path,
        (Kind::Disk(number), false) => staged(number, request)?,
    };
    let published = Published { host_path: target.clone(), read_only };
    let mounted = mount::mounted_at(target).attempted(|| format!("look for {}", target.display()));
    if mounted.on("publish", handle)?.is_some() {
        return Ok(published);
    }
    if !read_only {
        ownership::apply(source, &request.pod, false).on("publish", handle)?;
    }
    tree::make(target, 0o750)
        .and_then(|()| mount::bind(source, target, read_only))
        .on("publish", handle)?;
    Ok(published)
}

/// The staging path, if the disk of this device number is mounted there.
fn staged(number: u64, request: &PublishVolume) -> Result<&Path> {
    let handle = &request.volume.handle;
    let Some(staging) = &request.staging else {
        return Err(VolumeError::Invalid(format!("publish of {handle} names no staging path")));
    };
    let entry = mount::mounted_at(staging)
        .attempted(|| format!("look for {}", staging.display()))
        .on("publish", handle)?;
    let disk = (rustix::fs::major(number), rustix::fs::minor(number));
    // btrfs has a device number of its own.
    match entry {
        Some(entry) if entry.device == disk || entry.fs_type == "btrfs" => Ok(staging),
        _ => Err(VolumeError::Pending(format!(
            "volume {handle} is not staged: its disk is not mounted at {}",
            staging.display()
        ))),
    }
}
