//! subPath: a part of a volume, bound where a container may take it from, however the volume's content tries to escape.
//!
//! The path is resolved by the kernel, beneath the volume and nowhere else (openat2), and the file that was found is the
//! file that is bound. Upstream: pkg/volume/util/subpath/subpath_linux.go (1.36). Deviation: absolute links are refused,
//! also those that would lead back into the volume.

use crate::{
    Result, VolumeError,
    error::{Attempt, Attempted, Failure, OnVolume},
    mount, tree,
    work::blocking,
};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags},
    io::Errno,
};
use std::path::{Component, Path, PathBuf};

/// openat2 gives up with EAGAIN when somebody renames directories meanwhile; a volume that never rests is refused.
const RACES_MAX: u32 = 64;

/// A part of a volume for one mount of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubPath {
    /// For errors.
    pub volume: String,
    /// What `publish` answered.
    pub root: PathBuf,
    /// Relative, as in `volumeMounts[].subPath`; a directory is made if nothing is there, with the root's mode.
    pub path: String,
    /// `pods/<uid>/volume-subpaths/<volume>/<container>/<index of the mount>`.
    pub target: PathBuf,
    pub read_only: bool,
}

/// Binds the part at `target` and answers it: that is what the container binds. Doing so again is harmless.
pub async fn publish(part: &SubPath) -> Result<PathBuf> {
    let path = Path::new(&part.path);
    if path.is_absolute() {
        let text = format!("error SubPath `{}` must not be an absolute path", part.path);
        return Err(VolumeError::Invalid(text));
    }
    if path.components().any(|name| name == Component::ParentDir) {
        let text = format!("unable to provision SubPath `{}`: must not contain '..'", part.path);
        return Err(VolumeError::Invalid(text));
    }
    let request = part.clone();
    let stale = blocking("publish", &part.volume, move || {
        bind_if_free(&request).on("publish", &request.volume)
    })
    .await?;
    if stale {
        // Something else lies there: another file of that name, from an earlier container.
        mount::unmount(&part.volume, &part.target).await?;
        let request = part.clone();
        let busy = blocking("publish", &part.volume, move || {
            bind_if_free(&request).on("publish", &request.volume)
        });
        if busy.await? {
            let text = format!("subPath {} changes while it is bound", part.path);
            return Err(VolumeError::Pending(text));
        }
    }
    Ok(part.target.clone())
}

/// Unmounts and removes one target.
pub async fn unpublish(volume: &str, target: &Path) -> Result<()> {
    mount::unmount(volume, target).await?;
    let (name, path) = (volume.to_string(), target.to_path_buf());
    blocking("unpublish", volume, move || tree::remove_mount_point(&path).on("unpublish", &name))
        .await
}

/// Unmounts every part below `pods/<uid>/volume-subpaths` (or a directory in it) and removes it.
pub async fn unpublish_below(volume: &str, directory: &Path) -> Result<()> {
    let (name, path) = (volume.to_string(), directory.to_path_buf());
    let mounts = blocking("unpublish", volume, move || {
        mount::mounts_below(&path)
            .attempted(|| format!("look for mounts below {}", path.display()))
            .on("unpublish", &name)
    });
    for entry in mounts.await?.iter().rev() {
        mount::unmount(volume, &entry.point).await?;
    }
    let (name, path) = (volume.to_string(), directory.to_path_buf());
    blocking("unpublish", volume, move || tree::remove("unpublish", &name, &path)).await
}

/// False when the part is bound at the target; true when something else is.
fn bind_if_free(part: &SubPath) -> Attempt<bool> {
    let source = open_or_make(&part.root, Path::new(&part.path))?;
    let found = identity(&source)?;
    let target = &part.target;
    if mount::mounted_at(target).attempted(|| format!("look for {}", target.display()))?.is_some() {
        let attempt = || format!("open {}", target.display());
        let bound = rustix::fs::open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        return Ok(identity(&bound.attempted(attempt)?)?.place != found.place);
    }
    if found.directory {
        tree::make(target, 0o750)?;
    } else {
        let parent = target.parent().unwrap_or(Path::new("/"));
        tree::make(parent, 0o750)?;
        std::fs::File::create(target).attempted(|| format!("create {}", target.display()))?;
    }
    let copy = mount::clone_descriptor(&source)?;
    let copy = if part.read_only { copy.read_only()? } else { copy };
    copy.place(target)?;
    Ok(false)
}

#[derive(PartialEq, Eq)]
struct Identity {
    place: (u32, u32, u64),
    directory: bool,
}

fn identity(file: &OwnedFd) -> Attempt<Identity> {
    let wanted = StatxFlags::INO | StatxFlags::TYPE;
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted)
        .attempted(|| "statx of an open file".to_string())?;
    Ok(Identity {
        place: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
        directory: u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFDIR,
    })
}

/// Opens what is at `path` beneath `root`, making the directories that are missing.
fn open_or_make(root: &Path, path: &Path) -> Attempt<OwnedFd> {
    let base =
        rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .attempted(|| format!("open volume {}", root.display()))?;
    match beneath(&base, path) {
        Err(Errno::NOENT) => {}
        other => return other.attempted(|| escape_or(path)),
    }
    let found = rustix::fs::statx(&base, "", AtFlags::EMPTY_PATH, StatxFlags::MODE)
        .attempted(|| format!("stat volume {}", root.display()))?;
    let mode = Mode::from_bits_truncate(u32::from(found.stx_mode) & 0o7777);
    let mut at = PathBuf::new();
    let mut parent = beneath(&base, Path::new(".")).attempted(|| escape_or(path))?;
    for name in path.components() {
        let Component::Normal(name) = name else { continue };
        at.push(name);
        let made = match rustix::fs::mkdirat(&parent, name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error).attempted(|| format!("make {}", at.display())),
        };
        // From the root again: a link in the way may lead anywhere beneath it, as when the whole path is opened.
        parent = beneath(&base, &at).attempted(|| escape_or(&at))?;
        if made {
            // Whatever the umask. Through /proc, because an O_PATH descriptor cannot be chmod'ed itself.
            let itself =
                format!("/proc/thread-self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&parent));
            rustix::fs::chmodat(CWD, itself.as_str(), mode, AtFlags::empty())
                .attempted(|| format!("change the mode of {}", at.display()))?;
        }
    }
    if identity(&parent)?.directory {
        Ok(parent)
    } else {
        Err(Failure::new(format!("{} is not a directory", at.display())))
    }
}

fn escape_or(path: &Path) -> String {
    format!("open subPath {} within its volume", path.display())
}

fn beneath(base: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut races = 0;
    loop {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match rustix::fs::openat2(base, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if races < RACES_MAX => races += 1,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, os::unix::fs::symlink};

    #[test]
    fn what_leads_out_of_the_volume_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (volume, secret) = (directory.path().join("volume"), directory.path().join("secret"));
        fs::create_dir_all(volume.join("inside")).unwrap();
        fs::create_dir(&secret).unwrap();
        symlink("../secret", volume.join("relative")).unwrap();
        symlink(&secret, volume.join("absolute")).unwrap();
        symlink("inside", volume.join("good")).unwrap();
        for path in ["relative", "absolute", "relative/new", "absolute/new/deeper"] {
            let error = open_or_make(&volume, Path::new(path)).unwrap_err();
            assert!(error.to_string().contains("within its volume"), "{path}: {error}");
        }
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 0, "nothing was made outside");
        open_or_make(&volume, Path::new("good/new")).unwrap();
        assert!(volume.join("inside/new").is_dir());
    }

    #[test]
    fn missing_directories_get_the_mode_of_the_volume() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o2777)).unwrap();
        open_or_make(directory.path(), Path::new("a/b")).unwrap();
        for path in ["a", "a/b"] {
            let found = fs::metadata(directory.path().join(path)).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, 0o2777, "{path}");
        }
    }
}
