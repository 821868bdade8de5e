//! fsGroup: the files of a volume belong to the pod's group, and new ones will.
//!
//! Upstream: pkg/volume/volume_linux.go (1.36). Deviation: a failure is an error of the publish, not a line in a log,
//! because the container would fail later and less clearly; and the walk does not leave the volume's filesystem.

use crate::{
    FsGroupChange, PodRef,
    error::{Attempt, Attempted},
};
use std::{
    fs::{self, Metadata},
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::Path,
};

const SET_GROUP_ID: u32 = 0o2000;

/// Gives `root` and all below it to the pod's fsGroup, if it has one. `read_only` adds no write bits.
pub(crate) fn apply(root: &Path, pod: &PodRef, read_only: bool) -> Attempt<()> {
    let Some(group) = pod.fs_group else { return Ok(()) };
    let found = fs::symlink_metadata(root).attempted(|| format!("stat {}", root.display()))?;
    let change = match pod.fs_group_change {
        FsGroupChange::Always => true,
        FsGroupChange::OnRootMismatch => mismatch(&found, group, read_only),
    };
    if change { walk(root, &found, found.dev(), group, read_only) } else { Ok(()) }
}

fn mismatch(root: &Metadata, group: u32, read_only: bool) -> bool {
    let wanted = bits(root, read_only);
    !root.is_dir() || root.gid() != group || root.mode() & wanted != wanted
}

fn bits(found: &Metadata, read_only: bool) -> u32 {
    let mask = if read_only { 0o440 } else { 0o660 };
    if found.is_dir() { mask | 0o110 | SET_GROUP_ID } else { mask }
}

/// Children first: a root that matches proves that the walk below it was finished.
fn walk(path: &Path, found: &Metadata, device: u64, group: u32, read_only: bool) -> Attempt<()> {
    if found.is_dir() {
        let attempt = || format!("list {}", path.display());
        for entry in fs::read_dir(path).attempted(attempt)? {
            let entry = entry.attempted(attempt)?;
            let child = entry.path();
            match fs::symlink_metadata(&child) {
                Ok(found) if found.dev() == device => {
                    walk(&child, &found, device, group, read_only)?;
                }
                Ok(_other_filesystem) => {}
                // Another container of the volume removed it meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).attempted(|| format!("stat {}", child.display()));
                }
            }
        }
    }
    lchown(path, None, Some(group))
        .attempted(|| format!("give {} to group {group}", path.display()))?;
    // A chmod of a link would change what it points to.
    if found.is_symlink() {
        return Ok(());
    }
    // After the chown, which clears set-id bits of files.
    let mode = found.mode() & 0o7777 | bits(found, read_only);
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .attempted(|| format!("change the mode of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(policy: FsGroupChange) -> PodRef {
        PodRef { fs_group: Some(4321), fs_group_change: policy, ..PodRef::default() }
    }

    #[test]
    fn gives_files_to_the_group_and_leaves_what_links_point_to() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let (volume, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, other) = (volume.path(), outside.path().join("other"));
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "").unwrap();
        fs::write(&other, "").unwrap();
        fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&other, root.join("link")).unwrap();
        apply(root, &pod(FsGroupChange::Always), false).unwrap();
        let found = |path: &Path| {
            let found = fs::symlink_metadata(path).unwrap();
            (found.gid(), found.mode() & 0o7777)
        };
        assert_eq!(found(&root.join("d/f")), (4321, 0o660));
        assert_eq!(found(&root.join("d")).1 & 0o2770, 0o2770);
        assert_eq!(found(&other), (0, 0o600));

        // A matching root says that all below it is done.
        fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        apply(root, &pod(FsGroupChange::OnRootMismatch), false).unwrap();
        assert_eq!(found(&root.join("d/f")).1, 0o600);
    }
}
