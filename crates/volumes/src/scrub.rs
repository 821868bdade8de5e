//! Recycle: a released hostPath volume loses its contents and keeps its directory.
//!
//! Upstream: pkg/volume/util/recyclerclient (1.36), which runs `rm -rf` in a pod. Deviation: directories that the node
//! itself lives from are refused, and nothing is removed through a mount.

use crate::{
    Result, VolumeError,
    error::{Attempt, Attempted, Failure, OnVolume},
    mount,
    work::blocking,
};
use rustix::{
    fd::{AsRawFd, OwnedFd},
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Without the contents of these there is no node; nobody means to recycle them.
const OF_THE_NODE: [&str; 15] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run",
    "/sbin", "/sys", "/usr", "/var",
];

/// Removes everything in the directory `path`, hidden files too. `volume` is for errors. `Invalid` if it is no
/// directory itself, or is, holds or lies in one of `kept`; `Busy` while something is mounted below.
pub async fn scrub(volume: &str, path: &Path, kept: Vec<PathBuf>) -> Result<()> {
    let (name, path) = (volume.to_string(), path.to_path_buf());
    blocking("recycle", volume, move || {
        let directory = open(&path, &name)?;
        let attempt = || format!("find {}", path.display());
        // Through the descriptor: the directory that was checked, whatever the path names by now.
        let held = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let real = fs::read_link(&held).attempted(attempt).on("recycle", &name)?;
        let is_of = |own: &PathBuf| {
            let own = own.canonicalize().unwrap_or_else(|_| own.clone());
            own.starts_with(&real) || real.starts_with(&own)
        };
        if OF_THE_NODE.iter().any(|own| real == Path::new(own)) || kept.iter().any(is_of) {
            let text = format!("{} belongs to the node and is not recycled", path.display());
            return Err(VolumeError::Invalid(text));
        }
        let below = mount::mounts_below(&real).attempted(attempt).on("recycle", &name)?;
        let holders: Vec<String> = below
            .iter()
            .filter(|entry| entry.point != real)
            .take(16)
            .map(|entry| format!("mount {}", entry.point.display()))
            .collect();
        if !holders.is_empty() {
            return Err(VolumeError::Busy { volume: name, holders });
        }
        empty(&held, &real).on("recycle", &name)
    })
    .await
}

/// The directory itself: who may make a link in its place does not choose what is removed.
fn open(path: &Path, volume: &str) -> Result<OwnedFd> {
    let refuse = |why: &str| Err(VolumeError::Invalid(format!("{} {why}", path.display())));
    if !path.is_absolute() {
        return refuse("is no absolute path");
    }
    // A slash at the end would have the link followed.
    let plain: PathBuf = path.components().collect();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(&plain, flags, Mode::empty()) {
        Err(Errno::NOENT) => refuse("is not there"),
        Err(Errno::NOTDIR | Errno::LOOP) => refuse("is no directory"),
        opened => opened.attempted(|| format!("open {}", path.display())).on("recycle", volume),
    }
}

fn empty(held: &Path, real: &Path) -> Attempt<()> {
    let attempt = || format!("list {}", real.display());
    for entry in fs::read_dir(held).attempted(attempt)? {
        let entry = entry.attempted(attempt)?;
        let removed = match entry.file_type().attempted(attempt)?.is_dir() {
            // The standard library walks by descriptors and follows no link.
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        removed.attempted(|| format!("remove {}", real.join(entry.file_name()).display()))?;
    }
    // Somebody who still writes there would hand his files to the next claim.
    match fs::read_dir(held).attempted(attempt)?.next() {
        None => Ok(()),
        Some(_) => Err(Failure::new(format!("{} is written to while emptied", real.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn contents_go_and_the_directory_stays() {
        let (volume, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = volume.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join(".hidden"), "").unwrap();
        fs::write(other.path().join("precious"), "").unwrap();
        std::os::unix::fs::symlink(other.path(), root.join("link")).unwrap();
        scrub("pv", root, Vec::new()).await.unwrap();
        scrub("pv", root, Vec::new()).await.unwrap();
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
        assert!(other.path().join("precious").exists());
        let link = volume.path().join("alias");
        std::os::unix::fs::symlink(other.path(), &link).unwrap();
        for path in [&root.join("no-such"), &link, &link.join(""), &other.path().join("precious")] {
            let error = scrub("pv", path, Vec::new()).await.unwrap_err();
            assert!(matches!(error, VolumeError::Invalid(_)), "{}: {error}", path.display());
        }
        assert!(other.path().join("precious").exists());
    }

    #[tokio::test]
    async fn what_somebody_lives_from_is_kept_with_all_around_it() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own");
        fs::create_dir_all(own.join("pods")).unwrap();
        for path in [directory.path(), &own, &own.join("pods")] {
            let error = scrub("pv", path, vec![own.clone()]).await.unwrap_err().to_string();
            assert!(error.contains("belongs to the node"), "{}: {error}", path.display());
        }
        assert!(own.join("pods").exists());
    }

    #[tokio::test]
    async fn the_node_does_not_recycle_itself() {
        for path in ["/", "/etc", "/usr/../etc", "//", "/proc/.."] {
            let error = scrub("pv", Path::new(path), Vec::new()).await.unwrap_err();
            assert!(error.to_string().contains("belongs to the node"), "{path}: {error}");
        }
    }
}
