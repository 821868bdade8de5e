//! emptyDir: a directory that lives as long as its pod, on disk or in memory.
//!
//! Upstream: pkg/volume/emptydir/empty_dir.go (1.36). Deviation: huge pages are refused.

use crate::{
    Config, PublishVolume, Published, Result, Stats, VolumeError, VolumePlugin,
    error::{Attempt, Attempted, OnVolume},
    mount, ownership, tree,
    work::{blocking, filesystem_stats},
};
use std::{os::unix::fs::MetadataExt, path::Path, sync::Arc};
use stdx::BoxFuture;

pub(crate) const NAME: &str = "kubernetes.io/empty-dir";

/// Everybody may write: the containers of a pod run as different users.
const MODE: u32 = 0o777;

struct EmptyDir;

pub(crate) fn open(_: &Config) -> Arc<dyn VolumePlugin> {
    Arc::new(EmptyDir)
}

impl VolumePlugin for EmptyDir {
    fn name(&self) -> &str {
        NAME
    }

    fn publish<'a>(&'a self, request: &'a PublishVolume) -> BoxFuture<'a, Result<Published>> {
        let request = request.clone();
        let handle = request.volume.handle.clone();
        Box::pin(async move { blocking("publish", &handle, move || publish(&request)).await })
    }

    fn stats<'a>(&'a self, handle: &'a str, path: &'a Path) -> BoxFuture<'a, Result<Stats>> {
        let path = path.to_owned();
        let volume = handle.to_owned();
        Box::pin(blocking("measure", handle, move || measure(&path).on("measure", &volume)))
    }

    fn unpublish<'a>(&'a self, handle: &'a str, target: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(remove(handle, target))
    }
}

/// In memory the filesystem is the volume's own; on the disk its files are counted.
fn measure(path: &Path) -> Attempt<Stats> {
    let stats = filesystem_stats(path)?;
    let device = |path: &Path| std::fs::metadata(path).map(|it| it.dev()).ok();
    if path.parent().is_some_and(|parent| device(parent) != device(path)) {
        return Ok(stats);
    }
    let counted = || format!("count the files in {}", path.display());
    let usage = stdx::disk_usage(path).attempted(counted)?;
    Ok(Stats { bytes_used: usage.bytes, inodes_used: usage.inodes, ..stats })
}

fn publish(request: &PublishVolume) -> Result<Published> {
    let (handle, target) = (&request.volume.handle, &request.target);
    match request.medium.as_deref().unwrap_or("") {
        "" => directory(request).on("publish", handle)?,
        "Memory" => {
            // 0 is no limit, as upstream; to tmpfs too.
            let limits = [request.size_limit, request.memory_limit].into_iter().flatten();
            let limit = limits.filter(|bytes| *bytes > 0).min();
            memory(target, limit)
                .and_then(|()| ownership::apply(target, &request.pod, false))
                .on("publish", handle)?;
        }
        huge if huge.starts_with("HugePages") => {
            return Err(VolumeError::Invalid(format!(
                "emptyDir {handle}: medium {huge} is not supported on this node"
            )));
        }
        other => {
            return Err(VolumeError::Invalid(format!("unknown storage medium {other:?}")));
        }
    }
    Ok(Published { host_path: target.clone(), read_only: false })
}

/// The mode is set once: a container may have changed it since.
fn directory(request: &PublishVolume) -> Attempt<()> {
    if request.target.is_dir() {
        return Ok(());
    }
    // Ready means named: a crash in between leaves the other name, and the next attempt begins again.
    let mut name = request.target.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = request.target.with_file_name(name);
    tree::make(&new, MODE)?;
    ownership::apply(&new, &request.pod, false)?;
    std::fs::rename(&new, &request.target)
        .attempted(|| format!("rename {} to {}", new.display(), request.target.display()))
}

/// A tmpfs at `target`, of `bytes_max` at most. Its pages are not swapped out where the kernel (6.4) can promise that.
pub(crate) fn memory(target: &Path, bytes_max: Option<u64>) -> Attempt<()> {
    let mounted =
        mount::mounted_at(target).attempted(|| format!("look for {}", target.display()))?;
    if mounted.is_some_and(|entry| entry.fs_type == "tmpfs") {
        return Ok(());
    }
    tree::make(target, MODE)?;
    let size: Vec<String> = bytes_max.iter().map(|bytes| format!("size={bytes}")).collect();
    let no_swap = [size.clone(), vec!["noswap".to_string()]].concat();
    let source = Path::new("tmpfs");
    match mount::mount(source, target, "tmpfs", &no_swap) {
        Ok(()) => Ok(()),
        Err(_too_old_for_noswap) => mount::mount(source, target, "tmpfs", &size),
    }
}

/// Unmounts and removes a volume that goes with its pod.
pub(crate) async fn remove(handle: &str, target: &Path) -> Result<()> {
    mount::unmount(handle, target).await?;
    let (volume, target) = (handle.to_string(), target.to_path_buf());
    blocking("unpublish", handle, move || tree::remove("unpublish", &volume, &target)).await
}
