//! The mount table: reading it, binding into it, and unmounting without hiding what is busy.
//!
//! Binds use the new mount API (Linux 5.12), so that a read-only bind is never writable for a moment.
//! Nothing is unmounted lazily: a busy mount is waited for and its holders are named.

mod holders;
mod table;

pub(crate) use holders::mounting;
pub use table::{MountEntry, mounted_at, mounts, mounts_below};

use crate::{
    Result, VolumeError,
    error::{Attempt, Attempted, OnVolume},
    work::blocking,
};
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::CWD,
    io::Errno,
    mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};
use std::{ffi::CString, path::Path, time::Duration};
use stdx::Backoff;

/// How often a busy unmount is tried before its holders are named: 10, 20 … 640 ms, together 1.3 s. A process that is
/// being stopped needs milliseconds to let go; whoever needs longer is worth naming.
const UNMOUNT_ATTEMPTS: u32 = 8;

/// A detached copy of one mount, to be placed somewhere. It is gone when dropped.
pub(crate) struct Detached(OwnedFd);

/// Copies the mount of the file or directory `path` (not the mounts below it).
pub(crate) fn clone_path(path: &Path) -> Attempt<Detached> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, path, flags)
        .map(Detached)
        .attempted(|| format!("open_tree {}", path.display()))
}

/// Copies the mount of an open file or directory: what was checked is what is mounted.
pub(crate) fn clone_descriptor(file: impl AsFd) -> Attempt<Detached> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(file, "", flags)
        .map(Detached)
        .attempted(|| "open_tree of an open directory".to_string())
}

impl Detached {
    pub(crate) fn read_only(self) -> Attempt<Detached> {
        let attributes = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_RDONLY,
            attr_clr: 0,
            propagation: 0,
            userns_fd: 0,
        };
        let empty = c"";
        // SAFETY: the descriptor, the empty C string and the structure (with its own size) outlive the call, which
        // only reads them.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                self.0.as_raw_fd(),
                empty.as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        if answer == 0 {
            return Ok(self);
        }
        Err(std::io::Error::last_os_error())
            .attempted(|| "make a mount read-only (mount_setattr, Linux 5.12)".to_string())
    }

    pub(crate) fn place(self, target: &Path) -> Attempt<()> {
        rustix::mount::move_mount(&self.0, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .attempted(|| format!("move_mount to {}", target.display()))
    }
}

/// Makes `source` visible at the existing directory or file `target`.
pub(crate) fn bind(source: &Path, target: &Path, read_only: bool) -> Attempt<()> {
    let mount = clone_path(source)?;
    let mount = if read_only { mount.read_only()? } else { mount };
    mount.place(target)
}

/// Mounts a filesystem with options as in fstab: known words become flags, the others go to the filesystem.
pub(crate) fn mount(source: &Path, target: &Path, kind: &str, options: &[String]) -> Attempt<()> {
    let (flags, data) = split_options(options);
    let attempt =
        || format!("mount {} ({kind}, {data:?}) at {}", source.display(), target.display());
    let text = CString::new(data.as_str()).attempted(attempt)?;
    rustix::mount::mount(source, target, kind, flags, Some(text.as_c_str())).attempted(attempt)
}

fn split_options(options: &[String]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options.iter().flat_map(|option| option.split(',')) {
        match option {
            "" | "defaults" | "rw" | "bind" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "lazytime" => flags |= MountFlags::LAZYTIME,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "nosuid" => flags |= MountFlags::NOSUID,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

/// Unmounts everything that is mounted at `target`; ok if nothing is. Waits a little for a busy one, then `Busy`.
pub async fn unmount(volume: &str, target: &Path) -> Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(640));
    for _ in 0..UNMOUNT_ATTEMPTS {
        let (name, path) = (volume.to_string(), target.to_path_buf());
        let done = blocking("unmount", volume, move || try_unmount(&path).on("unmount", &name));
        if done.await? {
            return Ok(());
        }
        stdx::sleep(backoff.failed()).await;
    }
    let (name, path) = (volume.to_string(), target.to_path_buf());
    blocking("unmount", volume, move || {
        let mut holders = holders::of(&path);
        if holders.is_empty() {
            holders.push(format!("something below {} that cannot be seen", path.display()));
        }
        Err(VolumeError::Busy { volume: name, holders })
    })
    .await
}

/// True when nothing is mounted at `target` any more.
fn try_unmount(target: &Path) -> Attempt<bool> {
    // Several mounts may lie on one another; the last one is on top.
    while mounted_at(target).attempted(|| format!("look for {}", target.display()))?.is_some() {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::BUSY) => return Ok(false),
            // Somebody else was faster: look again.
            Err(Errno::INVAL | Errno::NOENT) => {
                if mounted_at(target)
                    .attempted(|| format!("look for {}", target.display()))?
                    .is_some()
                {
                    return Err(Errno::INVAL).attempted(|| format!("unmount {}", target.display()));
                }
            }
            Err(error) => {
                return Err(error).attempted(|| format!("unmount {}", target.display()));
            }
        }
    }
    Ok(true)
}

/// Unmounts what this process has just mounted and nobody has seen yet.
pub(crate) fn undo(target: &Path) {
    if let Err(error) = rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
        tracing::warn!(target = %target.display(), %error, "a mount that failed its check stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_fstab_become_flags_and_the_rest_goes_to_the_filesystem() {
        let options = ["noatime,data=ordered", "ro", "commit=5"].map(String::from);
        let (flags, data) = split_options(&options);
        assert_eq!(flags, MountFlags::NOATIME | MountFlags::RDONLY);
        assert_eq!(data, "data=ordered,commit=5");
    }
}
