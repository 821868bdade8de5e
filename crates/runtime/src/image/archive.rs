//! The outside of an image archive: named members, read at random from a tar file or a directory.

use super::{
    Attempt, ImageError, Result,
    compression::Plain,
    guard::{Budget, Guarded},
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
    sync::Arc,
};

/// Members of an archive: some per layer. More than this is no image archive.
const MEMBERS_MAX: usize = 100_000;

/// A compressed archive is unpacked to a temporary file of at most this size.
const ARCHIVE_BYTES_MAX: u64 = 512 << 30;

/// Manifests and configs. Registries cap them at 4 MiB.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;

pub(super) enum Archive {
    Directory(OwnedFd),
    Tar { bytes: Bytes, members: HashMap<String, Member> },
}

/// Where the archive's bytes are.
#[derive(Clone)]
pub(super) enum Bytes {
    File(Arc<File>),
    Memory(Arc<[u8]>),
}

#[derive(Clone, Debug)]
pub(super) enum Member {
    Content {
        at: u64,
        length: u64,
    },
    /// docker save writes equal layers once, and links to them.
    Link(String),
}

impl Archive {
    /// A tar file, plain or compressed, or a directory. `spool` is where a plain copy may be kept
    /// while the archive is open.
    pub(super) fn open(path: &Path, spool: &Path) -> Result<Archive> {
        let attempted = || format!("open image archive {}", path.display());
        let file = File::open(path).attempt(attempted)?;
        if file.metadata().attempt(attempted)?.is_dir() {
            return Ok(Archive::Directory(file.into()));
        }
        let mut plain = Plain::new(&file).attempt(attempted)?;
        if plain.is_compressed() {
            let copy = spool_plain(&mut plain, spool)?;
            return Archive::index(Bytes::File(Arc::new(copy)));
        }
        drop(plain);
        Archive::index(Bytes::File(Arc::new(file)))
    }

    /// From a stream such as standard input.
    pub(super) fn from_reader(reader: impl Read, spool: &Path) -> Result<Archive> {
        let mut plain =
            Plain::new(reader).attempt(|| "read the start of an image archive".to_owned())?;
        Archive::index(Bytes::File(Arc::new(spool_plain(&mut plain, spool)?)))
    }

    /// A directory whose files are the members.
    pub(super) fn of_directory(path: &Path) -> Result<Archive> {
        let attempted = || format!("open {}", path.display());
        Ok(Archive::Directory(File::open(path).attempt(attempted)?.into()))
    }

    /// From a plain tar in memory.
    pub(super) fn from_memory(bytes: Arc<[u8]>) -> Result<Archive> {
        Archive::index(Bytes::Memory(bytes))
    }

    fn index(bytes: Bytes) -> Result<Archive> {
        let length = bytes.length().attempt(|| "measure an image archive".to_owned())?;
        // What a header cannot be, the reader quotes: the first bytes of any file. Only the disk's errors and our
        // own limits are worth a word.
        let bad = |error: io::Error| {
            if error.raw_os_error().is_some() {
                let attempted = "read an image archive".to_owned();
                return ImageError::Io { attempted, source: error };
            }
            let limit = error.kind() == io::ErrorKind::FileTooLarge;
            let why = if limit { format!(": {error}") } else { String::new() };
            ImageError::Archive(format!(
                "this is not an image archive (a tar of docker or OCI, plain, gzip or zstd), or it is damaged{why}"
            ))
        };
        let mut members = HashMap::new();
        let whole = Section { bytes: bytes.clone(), at: 0, end: length };
        let budget = Budget::new();
        let mut archive = tar::Archive::new(Guarded::new(whole, &budget));
        let mut entries = archive.entries_with_seek().map_err(bad)?;
        while let Some(entry) = budget.spend(|| entries.next()) {
            let entry = entry.map_err(bad)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            let member = if kind.is_file() {
                let (at, size) = (entry.raw_file_position(), entry.size());
                if at.checked_add(size).is_none_or(|end| end > length) {
                    return Err(ImageError::Archive(format!(
                        "the archive is truncated: {name} ends beyond it"
                    )));
                }
                Member::Content { at, length: size }
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                Member::Link(if kind.is_symlink() { beside(&name, &target) } else { target })
            } else {
                continue;
            };
            if members.len() == MEMBERS_MAX {
                return Err(ImageError::Archive(format!(
                    "the archive has more than {MEMBERS_MAX} members"
                )));
            }
            members.insert(plain_name(&name), member);
        }
        Ok(Archive::Tar { bytes, members })
    }

    /// Opens a member; `None` if the archive has none of this name.
    pub(super) fn member(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>> {
        match self {
            Archive::Directory(directory) => {
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                match rustix::fs::openat2(directory, name, OFlags::CLOEXEC, Mode::empty(), resolve)
                {
                    Ok(file) => Ok(Some(Box::new(File::from(file)))),
                    Err(rustix::io::Errno::NOENT) => Ok(None),
                    Err(error) => Err(error).attempt(|| format!("open {name} of an image layout")),
                }
            }
            Archive::Tar { bytes, members } => {
                let mut member = members.get(&plain_name(name));
                // Links of links do not occur; two steps are one more than needed.
                for _ in 0..2 {
                    if let Some(Member::Link(target)) = member {
                        member = members.get(&plain_name(target));
                    }
                }
                Ok(match member {
                    Some(Member::Content { at, length }) => {
                        let section = Section { bytes: bytes.clone(), at: *at, end: at + length };
                        Some(Box::new(section))
                    }
                    Some(Member::Link(_)) | None => None,
                })
            }
        }
    }

    /// A small member as a whole.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(member) = self.member(name)? else { return Ok(None) };
        let mut document = Vec::new();
        member
            .take(DOCUMENT_BYTES_MAX + 1)
            .read_to_end(&mut document)
            .attempt(|| format!("read {name} of an image archive"))?;
        if document.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(ImageError::Archive(format!(
                "{name} is larger than {DOCUMENT_BYTES_MAX} bytes"
            )));
        }
        Ok(Some(document))
    }
}

fn spool_plain(plain: &mut impl Read, spool: &Path) -> Result<File> {
    let attempted = || format!("keep a plain copy of the archive in {}", spool.display());
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(CWD, spool, flags, Mode::RUSR | Mode::WUSR).attempt(attempted)?;
    let mut copy = File::from(copy);
    // Reading and writing fail for different reasons: a damaged archive is not a full disk.
    let mut piece = vec![0; 256 * 1024];
    let mut length = 0;
    loop {
        let read = plain.read(&mut piece).map_err(|error| {
            ImageError::Archive(format!("the archive is truncated or damaged: {error}"))
        })?;
        if read == 0 {
            return Ok(copy);
        }
        length += read as u64;
        if length > ARCHIVE_BYTES_MAX {
            return Err(ImageError::Archive(format!(
                "the archive is larger than {ARCHIVE_BYTES_MAX} bytes"
            )));
        }
        io::Write::write_all(&mut copy, &piece[..read]).attempt(attempted)?;
    }
}

/// `./a//b` is `a/b`.
fn plain_name(name: &str) -> String {
    let parts: Vec<&str> =
        name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.join("/")
}

/// A symlink's target as a member name. Names are only looked up: `..` cannot lead anywhere else.
fn beside(name: &str, target: &str) -> String {
    let folder = plain_name(name);
    let mut parts: Vec<&str> = folder.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Bytes {
    fn length(&self) -> io::Result<u64> {
        match self {
            Bytes::File(file) => Ok(file.metadata()?.len()),
            Bytes::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }
}

/// A part of the archive with a position of its own.
struct Section {
    bytes: Bytes,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = match &self.bytes {
            Bytes::File(file) => file.read_at(&mut buffer[..wanted], self.at)?,
            Bytes::Memory(bytes) => {
                let start = usize::try_from(self.at).unwrap_or(usize::MAX).min(bytes.len());
                (&bytes[start..]).read(&mut buffer[..wanted])?
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

/// Positions are of the whole archive; only the indexing reader, which starts at 0, seeks.
impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
