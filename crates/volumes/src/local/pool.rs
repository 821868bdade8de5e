//! The volumes on disk: one directory each, with the image and a record; complete as soon as it has its name.
//!
//! `<pool>/<handle>/{disk.img,volume.json}`. What is being made is called `.creating-<handle>.<attempt>`, what is going away
//! `.deleting-<handle>`; both are leftovers if nobody holds their lock.

use super::specification::Specification;
use crate::{
    Result, VolumeError,
    error::{Attempt, Attempted, Failure, OnVolume},
    filesystem::{Filesystem, uuid_of, uuid_text},
    tree, work,
};
use rustix::{
    fs::{FallocateFlags, FlockOperation, IFlags, fallocate, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};
use stdx::{Entropy, SystemEntropy};

const CREATING: &str = ".creating-";
const DELETING: &str = ".deleting-";
const IMAGE: &str = "disk.img";
const RECORD: &str = "volume.json";

/// volume.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// Of this format.
    version: u32,
    pub(super) handle: String,
    /// `namespace/name`, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<String>,
    /// Of the device.
    pub(super) bytes: u64,
    /// As first asked for: another request of the same name is not the same volume.
    bytes_created: u64,
    /// That the filesystem has grown to; less than `bytes` until it has.
    pub(super) bytes_formatted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fs_type: Option<String>,
    pub(super) overcommit: bool,
}

impl Record {
    /// None: a bare device.
    pub(super) fn filesystem(&self) -> Attempt<Option<Filesystem>> {
        let parse = |name: &String| {
            Filesystem::parse(name)
                .ok_or_else(|| Failure::new(format!("{RECORD} names filesystem {name:?}")))
        };
        self.fs_type.as_ref().map(parse).transpose()
    }
}

/// A volume that is there, with its image.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) record: Record,
    pub(super) image: PathBuf,
}

#[derive(Debug)]
pub(super) struct Pool {
    root: PathBuf,
    /// Between looking for space and taking it.
    allocation: Mutex<()>,
}

impl Pool {
    /// Removes what a crash left, except what another process works on.
    pub(super) fn open(root: PathBuf) -> Pool {
        let pool = Pool { root, allocation: Mutex::new(()) };
        for entry in fs::read_dir(&pool.root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(CREATING) || name.starts_with(DELETING) {
                let path = entry.path();
                match lock(&path).and_then(|_lock| erase(&path)) {
                    Ok(()) => tracing::info!(path = %path.display(), "removed a leftover"),
                    Err(error) => {
                        let error = stdx::one_line(&error);
                        tracing::warn!(path = %path.display(), error, "a leftover stays");
                    }
                }
            }
        }
        pool
    }

    /// `NotFound` if there is no such volume; an error that says so if its image is gone.
    pub(super) fn find(&self, operation: &'static str, handle: &str) -> Result<Stored> {
        let directory = self.root.join(handle);
        let text = match fs::read(directory.join(RECORD)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.exists() => {
                return Err(VolumeError::NotFound);
            }
            other => other
                .attempted(|| format!("read {}", directory.join(RECORD).display()))
                .on(operation, handle)?,
        };
        let record: Record = serde_json::from_slice(&text)
            .attempted(|| format!("understand {}", directory.join(RECORD).display()))
            .on(operation, handle)?;
        let image = directory.join(IMAGE);
        let found = fs::metadata(&image)
            .attempted(|| format!("the image {} is missing", image.display()))
            .on(operation, handle)?;
        if found.len() < record.bytes {
            let text = format!(
                "the image {} has {} bytes and not {}: it was cut off",
                image.display(),
                found.len(),
                record.bytes
            );
            return Err(Failure::new(text)).on(operation, handle);
        }
        Ok(Stored { record, image })
    }

    pub(super) fn create(&self, wanted: &Specification) -> Result<Stored> {
        let handle = &wanted.handle;
        match self.find("create", handle) {
            Ok(stored) => return same(stored, wanted),
            Err(VolumeError::NotFound) => {}
            Err(error) => return Err(error),
        }
        // A name that never was: a mkfs whose server was killed finds nothing to write to.
        let attempt = SystemEntropy::default().suffix(8);
        let new = self.root.join(format!("{CREATING}{handle}.{attempt}"));
        let made = self.build(&new, wanted);
        if made.is_err()
            && let Err(error) = erase(&new)
        {
            tracing::warn!(path = %new.display(), error = stdx::one_line(&error), "stays");
        }
        made?;
        self.find("create", handle)
    }

    fn build(&self, new: &Path, wanted: &Specification) -> Result<()> {
        let handle = &wanted.handle;
        let on = |result: Attempt<()>| result.on("create", handle);
        on(make_pool(&self.root))?;
        on(DirBuilder::new()
            .mode(0o700)
            .create(new)
            .attempted(|| format!("create directory {}", new.display())))?;
        let _lock = lock(new).on("create", handle)?;
        let path = new.join(IMAGE);
        let image = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .attempted(|| format!("create {}", path.display()))
            .on("create", handle)?;
        write_in_place(&image);
        self.allocate("create", handle, &image, &path, wanted.bytes, wanted.overcommit)?;
        if let Some(filesystem) = wanted.filesystem {
            on(filesystem.make(&path, &uuid_text(uuid_of(handle))))?;
        }
        on(image.sync_all().attempted(|| format!("fsync {}", path.display())))?;
        let record = Record {
            version: 1,
            handle: handle.clone(),
            claim: wanted.claim.clone(),
            bytes: wanted.bytes,
            bytes_created: wanted.bytes,
            bytes_formatted: wanted.bytes,
            fs_type: wanted.filesystem.map(|filesystem| filesystem.name().to_string()),
            overcommit: wanted.overcommit,
        };
        on(write_record(new, &record))?;
        let directory = self.root.join(handle);
        on(fs::rename(new, &directory)
            .attempted(|| format!("rename {} to {}", new.display(), directory.display())))?;
        on(tree::sync_directory(&self.root))
    }

    /// Makes the image `bytes` long, with all of its blocks unless `overcommit`. Without space nothing changes.
    fn allocate(
        &self,
        operation: &'static str,
        handle: &str,
        image: &File,
        path: &Path,
        bytes: u64,
        overcommit: bool,
    ) -> Result<()> {
        let before = image
            .metadata()
            .attempted(|| format!("stat {}", path.display()))
            .on(operation, handle)?;
        if overcommit {
            return image
                .set_len(bytes)
                .attempted(|| format!("make {} {bytes} bytes long", path.display()))
                .on(operation, handle);
        }
        let _alone = self.allocation.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let free = work::filesystem_stats(&self.root).on(operation, handle)?.bytes_available;
        let needed = bytes.saturating_sub(before.blocks() * 512);
        let exhausted = || {
            VolumeError::Exhausted(format!(
                "no space for volume {handle}: needs {needed} bytes, {} has {free} free",
                self.root.display()
            ))
        };
        // What is kept for root on the host's disk is not for volumes.
        if needed > free {
            return Err(exhausted());
        }
        let done = loop {
            match fallocate(image, FallocateFlags::empty(), 0, bytes) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        let Err(error) = done else { return Ok(()) };
        image
            .set_len(before.len())
            .attempted(|| format!("give {} its old length", path.display()))
            .on(operation, handle)?;
        match error {
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Err(exhausted()),
            error => Err(error)
                .attempted(|| format!("allocate {bytes} bytes for {}", path.display()))
                .on(operation, handle),
        }
    }

    /// Makes the device `bytes` long. The filesystem follows later: `bytes_formatted` says how far it is.
    pub(super) fn expand(&self, stored: &mut Stored, bytes: u64) -> Result<()> {
        let (handle, path) = (&stored.record.handle, &stored.image);
        let image = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .attempted(|| format!("open {}", path.display()))
            .on("expand", handle)?;
        self.allocate("expand", handle, &image, path, bytes, stored.record.overcommit)?;
        image.sync_all().attempted(|| format!("fsync {}", path.display())).on("expand", handle)?;
        let record = Record { bytes, ..stored.record.clone() };
        self.write(&record).on("expand", handle)?;
        stored.record = record;
        Ok(())
    }

    /// Before a mount: the image has the recorded size (an interrupted expand may have left more) and all its blocks.
    pub(super) fn restore(&self, stored: &Stored) -> Attempt<()> {
        let path = &stored.image;
        let attempt = || format!("restore {}", path.display());
        let image = OpenOptions::new().read(true).write(true).open(path).attempted(attempt)?;
        let found = image.metadata().attempted(attempt)?;
        if found.len() > stored.record.bytes {
            image.set_len(stored.record.bytes).attempted(attempt)?;
        }
        if !stored.record.overcommit
            && let Err(error) = fallocate(&image, FallocateFlags::empty(), 0, stored.record.bytes)
        {
            // Its data is readable; refusing it would help nobody.
            tracing::warn!(image = %path.display(), %error, "blocks of a volume are not reserved");
        }
        Ok(())
    }

    pub(super) fn write(&self, record: &Record) -> Attempt<()> {
        write_record(&self.root.join(&record.handle), record)
    }

    /// The caller has seen that nobody uses it.
    pub(super) fn delete(&self, handle: &str) -> Attempt<()> {
        let (directory, old) =
            (self.root.join(handle), self.root.join(format!("{DELETING}{handle}")));
        erase(&old)?;
        match fs::rename(&directory, &old) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other
                .attempted(|| format!("rename {} to {}", directory.display(), old.display()))?,
        }
        tree::sync_directory(&self.root)?;
        erase(&old)?;
        tree::sync_directory(&self.root)
    }
}

fn same(stored: Stored, wanted: &Specification) -> Result<Stored> {
    let found = &stored.record;
    let name = wanted.filesystem.map(Filesystem::name);
    let differs = if found.bytes_created != wanted.bytes {
        format!("{} bytes, not {}", found.bytes_created, wanted.bytes)
    } else if found.fs_type.as_deref() != name {
        let shown = |name: Option<&str>| name.unwrap_or("a bare device").to_string();
        format!("{}, not {}", shown(found.fs_type.as_deref()), shown(name))
    } else if found.overcommit != wanted.overcommit {
        format!("overcommit {}, not {}", found.overcommit, wanted.overcommit)
    } else {
        return Ok(stored);
    };
    let handle = &wanted.handle;
    Err(VolumeError::Invalid(format!("volume {handle} exists with {differs}")))
}

fn make_pool(root: &Path) -> Attempt<()> {
    if root.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .attempted(|| format!("create directory {}", root.display()))?;
    root.parent().map_or(Ok(()), tree::sync_directory)
}

/// On a copy-on-write host (btrfs) a reserved block is only worth something if it is overwritten in place. Other
/// filesystems do not know the flag, and do not need it.
fn write_in_place(image: &File) {
    if let Ok(flags) = rustix::fs::ioctl_getflags(image)
        && let Err(error) = rustix::fs::ioctl_setflags(image, flags | IFlags::NOCOW)
    {
        tracing::debug!(%error, "no NOCOW flag");
    }
}

/// Held while a directory is being built; the kernel drops it with the process.
fn lock(directory: &Path) -> Attempt<File> {
    let attempt = || format!("lock {}", directory.display());
    let file = File::open(directory).attempted(attempt)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).attempted(attempt)?;
    Ok(file)
}

/// The image first: its space is what matters.
fn erase(directory: &Path) -> Attempt<()> {
    for name in [IMAGE, RECORD, RECORD_NEW] {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.attempted(|| format!("remove {}", path.display()))?,
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.attempted(|| format!("remove {}", directory.display())),
    }
}

const RECORD_NEW: &str = "volume.json.new";

fn write_record(directory: &Path, record: &Record) -> Attempt<()> {
    let (new, path) = (directory.join(RECORD_NEW), directory.join(RECORD));
    let attempt = || format!("write {}", path.display());
    let mut text = serde_json::to_vec_pretty(record).attempted(attempt)?;
    text.push(b'\n');
    let mut file = File::create(&new).attempted(attempt)?;
    file.write_all(&text).attempted(attempt)?;
    file.sync_all().attempted(attempt)?;
    fs::rename(&new, &path).attempted(attempt)?;
    tree::sync_directory(directory)
}
