//! Blocking work, off the async threads; and what most plugins share on top of it.

use crate::{
    Result, Stats, VolumeError,
    error::{Attempt, Attempted, OnVolume},
};
use std::path::Path;
use stdx::BoxFuture;

/// Runs `work` on a thread that may block. A dropped future does not stop it.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    volume: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(VolumeError::driver(operation, volume, error)),
    }
}

/// statvfs of the filesystem at `path`.
pub(crate) fn stats<'a>(handle: &'a str, path: &'a Path) -> BoxFuture<'a, Result<Stats>> {
    let (volume, path) = (handle.to_string(), path.to_path_buf());
    Box::pin(blocking("measure", handle, move || filesystem_stats(&path).on("measure", &volume)))
}

pub(crate) fn filesystem_stats(path: &Path) -> Attempt<Stats> {
    let found = rustix::fs::statvfs(path).attempted(|| format!("statvfs {}", path.display()))?;
    Ok(Stats {
        bytes_total: found.f_blocks * found.f_frsize,
        bytes_used: (found.f_blocks - found.f_bfree) * found.f_frsize,
        bytes_available: found.f_bavail * found.f_frsize,
        inodes_total: found.f_files,
        inodes_used: found.f_files - found.f_ffree,
        inodes_free: found.f_ffree,
    })
}
