//! The directories of one share, each a volume's: made, kept, archived, deleted, and never another one's.
//!
//! `.stanchion/<digest of the path>` says whose a directory is, and is written before it: a path that is there without
//! such a record is somebody's data and is refused, and so is one inside another volume. Every path is resolved by the
//! kernel beneath the share, through no symbolic link.

use crate::{
    Result, VolumeError,
    error::{Attempt, Attempted, Failure, OnVolume},
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

/// The provisioner's own directory in each share.
const OWN: &str = ".stanchion";

/// openat2 gives up with EAGAIN when somebody renames directories meanwhile.
const RACES_MAX: u32 = 64;

/// A directory that a volume is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// Relative to the share, without `..`.
    pub(super) directory: String,
    pub(super) volume: String,
    /// Namespace and name.
    pub(super) claim: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mode: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnDelete {
    Delete,
    Retain,
    Archive,
}

/// Whose a directory is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    directory: String,
    volume: String,
    claim: String,
    /// The volume is gone and left its data: the next claim of that name may have it.
    kept: bool,
}

pub(super) struct Share {
    root: OwnedFd,
    own: OwnedFd,
    /// Two provisioners of one share wait for each other, where the server has locks.
    _lock: OwnedFd,
}

impl Share {
    /// A mounted share.
    pub(super) fn open(path: &Path) -> Attempt<Share> {
        let attempt = || format!("open the share at {}", path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).attempted(attempt)?;
        make(&root, OWN, 0o700)?;
        let own = open_beneath(&root, OWN)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(&own, "lock", flags, Mode::from_raw_mode(0o600));
        let lock = lock.attempted(|| format!("create {OWN}/lock in the share"))?;
        match rustix::fs::flock(&lock, FlockOperation::LockExclusive) {
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error).attempted(|| format!("lock {OWN}/lock in the share")),
        }
        Ok(Share { root, own, _lock: lock })
    }

    /// Doing so again for the same volume is harmless.
    pub(super) fn make(&self, wanted: &Wanted) -> Result<()> {
        let name = wanted.directory.as_str();
        let refuse = |text: String| Err(VolumeError::Invalid(text));
        let ends = name.char_indices().filter(|(_, it)| *it == '/').map(|(at, _)| &name[..at]);
        for outer in ends {
            if let Some(other) = self.record(outer).on("create", &wanted.volume)? {
                let (volume, claim) = (other.volume, other.claim);
                return refuse(format!(
                    "directory {name} lies in {outer}, which is volume {volume} of claim {claim}"
                ));
            }
        }
        match self.record(name).on("create", &wanted.volume)? {
            Some(found) if found.volume == wanted.volume => {}
            Some(found) if found.kept && found.claim == wanted.claim => {
                self.write(&wanted.record()).on("create", &wanted.volume)?;
            }
            Some(Record { volume, claim, .. }) => {
                return refuse(format!(
                    "directory {name} belongs to volume {volume} of claim {claim}"
                ));
            }
            None => {
                if self.exists(name).on("create", &wanted.volume)? {
                    return refuse(format!(
                        "directory {name} is there already, and is no volume of this provisioner"
                    ));
                }
                self.write(&wanted.record()).on("create", &wanted.volume)?;
            }
        }
        self.make_path(wanted).on("create", &wanted.volume)
    }

    fn make_path(&self, wanted: &Wanted) -> Attempt<()> {
        let name = wanted.directory.as_str();
        for (at, _) in name.char_indices().filter(|(_, it)| *it == '/') {
            let (parent, last) = split(&name[..at]);
            make(&open_beneath(&self.root, parent)?, last, 0o755)?;
        }
        let (parent, last) = split(name);
        make(&open_beneath(&self.root, parent)?, last, 0o700)?;
        let made = open_beneath(&self.root, name)?;
        let attempt = || format!("change the owner of {name} in the share");
        if wanted.uid.is_some() || wanted.gid.is_some() {
            let (uid, gid) = (wanted.uid.map(Uid::from_raw), wanted.gid.map(Gid::from_raw));
            rustix::fs::fchown(&made, uid, gid).attempted(attempt)?;
        }
        rustix::fs::fchmod(&made, Mode::from_raw_mode(wanted.mode))
            .attempted(|| format!("change the mode of {name} in the share"))
    }

    /// Ok as well when it is not there, or is another volume's by now.
    pub(super) fn delete(&self, name: &str, volume: &str, then: OnDelete) -> Result<()> {
        let trash = format!("deleted-{volume}");
        let record = match self.record(name).on("delete", volume)? {
            Some(found) if found.volume == volume => found,
            Some(_) => return Ok(()),
            None if self.exists(name).on("delete", volume)? => {
                return Err(VolumeError::Invalid(format!(
                    "directory {name} has no record that it is volume {volume}: it stays"
                )));
            }
            None => return Ok(()),
        };
        let done = || {
            match then {
                OnDelete::Retain => return self.write(&Record { kept: true, ..record }),
                OnDelete::Archive => {
                    if self.exists(name)? {
                        let mut target = format!("archived-{}", name.replace('/', "-"));
                        if self.exists(&target)? {
                            target = format!("archived-{volume}");
                        }
                        self.rename(name, &self.root, &target)?;
                    }
                }
                OnDelete::Delete => {
                    // Out of sight at once: what is half deleted is nobody's volume.
                    if self.exists(name)? {
                        self.rename(name, &self.own, &trash)?;
                    }
                    let held = format!("/proc/self/fd/{}/{trash}", self.own.as_raw_fd());
                    match fs::remove_dir_all(held) {
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        other => other.attempted(|| format!("delete {name} in the share"))?,
                    }
                }
            }
            self.forget(name)
        };
        done().on("delete", volume)
    }

    fn exists(&self, name: &str) -> Attempt<bool> {
        let (parent, last) = split(name);
        let parent = match beneath(&self.root, parent) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.attempted(|| format!("open {parent} in the share"))?,
        };
        match rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).attempted(|| format!("look for {name} in the share")),
        }
    }

    fn rename(&self, name: &str, to: impl AsFd, target: &str) -> Attempt<()> {
        let (parent, last) = split(name);
        let parent = open_beneath(&self.root, parent)?;
        rustix::fs::renameat(&parent, last, to, target)
            .attempted(|| format!("rename {name} to {target} in the share"))
    }

    fn record(&self, name: &str) -> Attempt<Option<Record>> {
        let attempt = || format!("read whose {name} is in the share");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.own, digest(name), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.attempted(attempt)?,
        };
        let mut text = String::new();
        fs::File::from(file).read_to_string(&mut text).attempted(attempt)?;
        let record: Record = serde_json::from_str(&text).attempted(attempt)?;
        if record.directory != name {
            return Err(Failure::new(format!("{}: it names {}", attempt(), record.directory)));
        }
        Ok(Some(record))
    }

    /// Whole or not at all.
    fn write(&self, record: &Record) -> Attempt<()> {
        let name = &record.directory;
        let attempt = || format!("write whose {name} is in the share");
        let text = serde_json::to_string(record).attempted(attempt)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.own, "new", flags, Mode::from_raw_mode(0o600));
        let mut file = fs::File::from(file.attempted(attempt)?);
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).attempted(attempt)?;
        rustix::fs::renameat(&self.own, "new", &self.own, digest(name)).attempted(attempt)
    }

    fn forget(&self, name: &str) -> Attempt<()> {
        match rustix::fs::unlinkat(&self.own, digest(name), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).attempted(|| format!("forget whose {name} was in the share")),
        }
    }
}

impl Wanted {
    fn record(&self) -> Record {
        Record {
            directory: self.directory.clone(),
            volume: self.volume.clone(),
            claim: self.claim.clone(),
            kept: false,
        }
    }
}

/// Any path fits into one name.
fn digest(name: &str) -> String {
    Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A relative path's parent (`.` at the top) and its last name.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or((".", name))
}

fn make(parent: &OwnedFd, name: &str, mode: u32) -> Attempt<()> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).attempted(|| format!("create directory {name} in the share")),
    }
}

fn open_beneath(root: &OwnedFd, path: &str) -> Attempt<OwnedFd> {
    beneath(root.as_fd(), path).attempted(|| format!("open directory {path} in the share"))
}

fn beneath(root: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let root: BorrowedFd<'_> = root.as_fd();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut races = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if races < RACES_MAX => races += 1,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn wanted(directory: &str, volume: &str) -> Wanted {
        Wanted {
            directory: directory.to_owned(),
            volume: volume.to_owned(),
            claim: format!("team/{volume}"),
            uid: None,
            gid: None,
            mode: 0o777,
        }
    }

    fn with_share(tell: impl FnOnce(&Path, &Share)) {
        let directory = tempfile::tempdir().unwrap();
        let share = Share::open(directory.path()).unwrap();
        tell(directory.path(), &share);
    }

    #[test]
    fn a_directory_is_made_once_with_its_mode_and_deleted_with_all_in_it() {
        with_share(|root, share| {
            let wanted = Wanted { mode: 0o2770, ..wanted("a/b", "v") };
            share.make(&wanted).unwrap();
            share.make(&wanted).unwrap();
            let mode = fs::metadata(root.join("a/b")).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o2770);
            fs::create_dir(root.join("a/b/c")).unwrap();
            fs::write(root.join("a/b/c/file"), "x").unwrap();
            share.delete("a/b", "v", OnDelete::Delete).unwrap();
            share.delete("a/b", "v", OnDelete::Delete).unwrap();
            assert!(root.join("a").exists() && !root.join("a/b").exists());
            let own: Vec<_> = fs::read_dir(root.join(OWN)).unwrap().flatten().collect();
            assert_eq!(own.len(), 1, "only the lock is left: {own:?}");
        });
    }

    #[test]
    fn a_deletion_that_was_interrupted_is_finished() {
        with_share(|root, share| {
            share.make(&wanted("d", "v")).unwrap();
            fs::rename(root.join("d"), root.join(".stanchion/deleted-v")).unwrap();
            share.delete("d", "v", OnDelete::Delete).unwrap();
            assert!(!root.join(".stanchion/deleted-v").exists());
        });
    }

    #[test]
    fn what_is_archived_keeps_its_data_and_meets_no_other_archive() {
        with_share(|root, share| {
            for volume in ["v1", "v2"] {
                share.make(&wanted("ns/data", volume)).unwrap();
                fs::write(root.join("ns/data/file"), volume).unwrap();
                share.delete("ns/data", volume, OnDelete::Archive).unwrap();
            }
            let text = |path: &str| fs::read_to_string(root.join(path)).unwrap();
            assert_eq!(text("archived-ns-data/file"), "v1");
            assert_eq!(text("archived-v2/file"), "v2");
        });
    }

    #[test]
    fn what_is_retained_waits_for_a_claim_of_the_same_name() {
        with_share(|root, share| {
            share.make(&wanted("d", "v1")).unwrap();
            fs::write(root.join("d/file"), "x").unwrap();
            share.delete("d", "v1", OnDelete::Retain).unwrap();
            let stranger = share.make(&wanted("d", "v2")).unwrap_err();
            assert!(matches!(stranger, VolumeError::Invalid(_)), "{stranger}");
            let again = Wanted { claim: "team/v1".to_owned(), ..wanted("d", "v3") };
            share.make(&again).unwrap();
            assert!(root.join("d/file").exists());
            share.delete("d", "v1", OnDelete::Delete).unwrap();
            assert!(root.join("d/file").exists(), "it is the new volume's");
        });
    }

    #[test]
    fn no_volume_meets_another_nor_data_that_is_there() {
        with_share(|root, share| {
            share.make(&wanted("a/b", "v1")).unwrap();
            fs::create_dir(root.join("data")).unwrap();
            for name in ["a/b", "a/b/c", "a", "data", "data/../data"] {
                let refused = share.make(&wanted(name, "v2"));
                assert!(matches!(refused, Err(VolumeError::Invalid(_))), "{name}: {refused:?}");
            }
            assert!(!root.join("a/b/c").exists());
            let refused = share.delete("data", "v2", OnDelete::Delete);
            assert!(matches!(refused, Err(VolumeError::Invalid(_))), "{refused:?}");
            assert!(root.join("data").exists());
        });
    }

    #[test]
    fn no_link_leads_out_of_the_share() {
        let outside = tempfile::tempdir().unwrap();
        with_share(|root, share| {
            symlink(outside.path(), root.join("link")).unwrap();
            let own = root.file_name().unwrap().to_string_lossy().into_owned();
            let (up, absolute) = (format!("../{own}-x"), format!("{}-x", root.display()));
            for name in ["link/x", &up, &absolute, "link"] {
                assert!(share.make(&wanted(name, "v")).is_err(), "{name}");
            }
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
            assert!(!Path::new(&absolute).exists());
            // A volume whose directory became a link: the link goes, what it names stays.
            share.make(&wanted("d", "w")).unwrap();
            fs::remove_dir(root.join("d")).unwrap();
            fs::write(outside.path().join("precious"), "x").unwrap();
            symlink(outside.path(), root.join("d")).unwrap();
            let _either = share.delete("d", "w", OnDelete::Delete);
            assert!(outside.path().join("precious").exists());
        });
    }
}
