//! Directories that appear with a mode and disappear whole, without ever reaching into a mount.

use crate::{
    Result, VolumeError,
    error::{Attempt, Attempted, OnVolume},
    mount,
};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

/// Makes `path` a directory of `mode` (whatever the umask); missing parents get 0750, as upstream.
pub(crate) fn make(path: &Path, mode: u32) -> Attempt<()> {
    let attempt = || format!("create directory {}", path.display());
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o750).create(parent).attempted(attempt)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path).attempted(attempt)?;
            if !found.is_dir() {
                return Err(error).attempted(attempt);
            }
        }
        Err(error) => return Err(error).attempted(attempt),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).attempted(attempt)
}

/// Removes a mount point: an empty directory or file. Ok if it is not there.
pub(crate) fn remove_mount_point(path: &Path) -> Attempt<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    gone(removed).attempted(|| format!("remove {}", path.display()))
}

/// Removes `path` and all below it. Refuses while anything is mounted there: what is behind a mount is somebody else's.
pub(crate) fn remove(operation: &'static str, volume: &str, path: &Path) -> Result<()> {
    let below = mount::mounts_below(path)
        .attempted(|| format!("look for mounts below {}", path.display()))
        .on(operation, volume)?;
    if !below.is_empty() {
        let holders =
            below.iter().take(16).map(|entry| format!("mount {}", entry.point.display())).collect();
        return Err(VolumeError::Busy { volume: volume.to_string(), holders });
    }
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    gone(removed).attempted(|| format!("remove {}", path.display())).on(operation, volume)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Attempt<()> {
    let attempt = || format!("fsync directory {}", path.display());
    File::open(path).and_then(|directory| directory.sync_all()).attempted(attempt)
}
