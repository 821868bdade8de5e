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
use std::{fs, path::Path};

/// Without the contents of these there is no node; nobody means to recycle them.
const OF_THE_NODE: [&str; 15] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run",
    "/sbin", "/sys", "/usr", "/var",
];

/// Removes everything in the directory `path`, hidden files too. `volume` is for errors. `Busy` while something is mounted
/// below; an error if it is not a directory.
pub async fn scrub(volume: &str, path: &Path) -> Result<()> {
    let (name, path) = (volume.to_string(), path.to_path_buf());
    blocking("recycle", volume, move || {
        let attempt = || format!("find {}", path.display());
        let directory = path.canonicalize().attempted(attempt).on("recycle", &name)?;
        if !path.is_absolute() || OF_THE_NODE.iter().any(|own| directory == Path::new(own)) {
            let text = format!("{} belongs to the node and is not recycled", path.display());
            return Err(VolumeError::Invalid(text));
        }
        let below = mount::mounts_below(&directory).attempted(attempt).on("recycle", &name)?;
        let holders: Vec<String> = below
            .iter()
            .filter(|entry| entry.point != directory)
            .take(16)
            .map(|entry| format!("mount {}", entry.point.display()))
            .collect();
        if !holders.is_empty() {
            return Err(VolumeError::Busy { volume: name, holders });
        }
        empty(&directory).on("recycle", &name)
    })
    .await
}

fn empty(directory: &Path) -> Attempt<()> {
    let attempt = || format!("list {}", directory.display());
    for entry in fs::read_dir(directory).attempted(attempt)? {
        let entry = entry.attempted(attempt)?;
        let path = entry.path();
        let removed = match entry.file_type().attempted(attempt)?.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        removed.attempted(|| format!("remove {}", path.display()))?;
    }
    // Somebody who still writes there would hand his files to the next claim.
    match fs::read_dir(directory).attempted(attempt)?.next() {
        None => Ok(()),
        Some(_) => {
            Err(Failure::new(format!("{} is written to while emptied", directory.display())))
        }
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
        scrub("pv", root).await.unwrap();
        scrub("pv", root).await.unwrap();
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
        assert!(other.path().join("precious").exists());
        assert!(scrub("pv", &root.join("no-such")).await.is_err());
    }

    #[tokio::test]
    async fn the_node_does_not_recycle_itself() {
        for path in ["/", "/etc", "/usr/../etc", "//"] {
            let error = scrub("pv", Path::new(path)).await.unwrap_err();
            assert!(error.to_string().contains("belongs to the node"), "{path}: {error}");
        }
    }
}
