//! Writes one layer's tar stream into a directory that overlayfs takes as a lower directory.
//!
//! Every path is resolved by the kernel with the layer as its root, and each entry is made with its
//! parent's descriptor, so no name, symlink or hard link of an archive leads outside.
//! Upstream: the layer format of github.com/opencontainers/image-spec, layer.md.

use super::{
    Attempt, ImageError, Result,
    guard::{Budget, Guarded},
};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
        XattrFlags,
    },
    io::Errno,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    rc::Rc,
};

/// Whole distributions have some 500,000 files; ten times that in one layer is an attack.
const ENTRIES_MAX: u64 = 5_000_000;

/// File content of one layer. The largest published images (GPU toolkits) stay below a tenth of it.
pub(super) const BYTES_MAX: u64 = 256 << 30;

/// Content is copied in pieces of this size; a piece of zeros becomes a hole.
const PIECE: usize = 128 * 1024;

/// What a layer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Bytes of file content.
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// Unpacks `layer`, a plain tar stream, into the empty directory `into`. Reads up to the end mark of
/// the archive: the caller drains what follows and compares the digest.
pub(super) fn unpack(layer: &mut impl Read, into: &Path) -> Result<Unpacked> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, into, flags, Mode::empty())
        .attempt(|| format!("open {}", into.display()))?;
    let mut unpacker = Unpacker {
        root: Rc::new(root),
        last_parent: None,
        directories: Vec::new(),
        done: Unpacked::default(),
        piece: vec![0; PIECE],
    };
    let budget = Budget::new();
    let mut archive = tar::Archive::new(Guarded::new(layer, &budget));
    let mut entries = archive.entries().map_err(|error| unreadable(&error))?;
    while let Some(entry) = budget.spend(|| entries.next()) {
        unpacker.entry(entry.map_err(|error| unreadable(&error))?)?;
    }
    unpacker.finish()
}

fn unreadable(error: &std::io::Error) -> ImageError {
    ImageError::Archive(format!("the layer cannot be read: {error}"))
}

fn refused(name: &[u8], reason: impl std::fmt::Display) -> ImageError {
    ImageError::Archive(format!("layer entry {:?}: {reason}", String::from_utf8_lossy(name)))
}

struct Unpacker {
    root: Rc<OwnedFd>,
    /// Entries come folder by folder: the last parent is nearly always the next one, too.
    last_parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Times of directories are set last, because filling a directory changes them.
    directories: Vec<(Vec<u8>, Timespec)>,
    done: Unpacked,
    piece: Vec<u8>,
}

/// What an entry wants its file to have.
struct Attributes {
    owner: Uid,
    group: Gid,
    mode: Mode,
    modified: Timespec,
    extended: Vec<(String, Vec<u8>)>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> Result<()> {
        self.done.entries += 1;
        if self.done.entries > ENTRIES_MAX {
            return Err(ImageError::Archive(format!(
                "a layer has more than {ENTRIES_MAX} entries"
            )));
        }
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let name = entry.path_bytes().into_owned();
        let components = components(&name)?;
        let attributes = Attributes::of(&mut entry, &name)?;
        let Some((last, parents)) = components.split_last() else {
            // The entry of the root itself.
            return attributes.put_on(self.root.as_fd(), &name);
        };
        let parent = self.parent(parents, &name)?;
        if let Some(hidden) = last.strip_prefix(b".wh.") {
            return self.whiteout(&parent, hidden, &name);
        }
        let attempted = || format!("unpack layer entry {:?}", String::from_utf8_lossy(&name));
        let last = OsStr::from_bytes(last);
        match kind {
            tar::EntryType::Directory => {
                if self.make_way(&parent, last, true, &name)? != Found::Directory {
                    make_directory(&parent, last).attempt(attempted)?;
                }
                let directory = open_directory(&parent, last).attempt(attempted)?;
                self.directories.push((components.join(&b'/'), attributes.modified));
                attributes.put_on(directory.as_fd(), &name)
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                self.make_way(&parent, last, false, &name)?;
                let flags = OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::WRONLY
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, last, flags, Mode::RUSR | Mode::WUSR)
                    .attempt(attempted)?;
                let mut file = File::from(file);
                self.copy(&mut entry, &mut file, &name)?;
                attributes.put_on(file.as_fd(), &name)
            }
            tar::EntryType::Link => {
                let target = link_target(&entry, &name)?;
                let target_components = self::components(&target)?;
                let (target_last, target_parents) = target_components
                    .split_last()
                    .ok_or_else(|| refused(&name, "a hard link to the root"))?;
                self.make_way(&parent, last, false, &name)?;
                let from = self.open_beneath(&target_parents.join(&b'/'));
                let linked = from.and_then(|from| {
                    let target = OsStr::from_bytes(target_last);
                    rustix::fs::linkat(from, target, &parent, last, AtFlags::empty())
                });
                linked.map_err(|error| {
                    let target = String::from_utf8_lossy(&target);
                    refused(&name, format!("hard link to {target:?} of the same layer: {error}"))
                })
            }
            tar::EntryType::Symlink => {
                let target = link_target(&entry, &name)?;
                self.make_way(&parent, last, false, &name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, last)
                    .attempt(attempted)?;
                attributes.put_on_name(&parent, last).attempt(attempted)
            }
            tar::EntryType::Fifo | tar::EntryType::Char | tar::EntryType::Block => {
                self.make_way(&parent, last, false, &name)?;
                make_special(kind, entry.header(), &parent, last, &attributes).attempt(attempted)
            }
            other => Err(refused(&name, format!("unknown entry type {:?}", other.as_byte()))),
        }
    }

    /// The parent directory of an entry, made if the archive did not bring it.
    fn parent(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<Rc<OwnedFd>> {
        if parents.is_empty() {
            return Ok(self.root.clone());
        }
        let path = parents.join(&b'/');
        if let Some((last, parent)) = &self.last_parent
            && *last == path
        {
            return Ok(parent.clone());
        }
        let parent = match self.open_beneath(&path) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(parents, name)?,
            Err(error) => return Err(refused(name, format!("open its parent directory: {error}"))),
        };
        let parent = Rc::new(parent);
        self.last_parent = Some((path, parent.clone()));
        Ok(parent)
    }

    fn make_parents(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<OwnedFd> {
        let mut above = self.open_beneath(b"").attempt(|| "open the layer".to_owned())?;
        for (depth, component) in parents.iter().enumerate() {
            let path = parents[..=depth].join(&b'/');
            above = match self.open_beneath(&path) {
                Ok(directory) => directory,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let last = OsStr::from_bytes(component);
                    self.make_way(&above, last, true, name)?;
                    make_directory(&above, last)
                        .and_then(|()| open_directory(&above, last))
                        .attempt(|| {
                            format!(
                                "make directory {:?} of a layer",
                                String::from_utf8_lossy(&path)
                            )
                        })?
                }
                Err(error) => {
                    return Err(refused(name, format!("open its parent directory: {error}")));
                }
            };
        }
        Ok(above)
    }

    /// Opens a directory as the container would see it: the layer is the root of all links.
    fn open_beneath(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(
            &*self.root,
            OsStr::from_bytes(path),
            OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// Removes what an earlier entry of this layer put at `last`, but keeps a directory for a directory.
    /// A directory that takes the place of a whiteout is opaque: it hides the lower one.
    fn make_way(
        &mut self,
        parent: &OwnedFd,
        last: &OsStr,
        for_directory: bool,
        name: &[u8],
    ) -> Result<Found> {
        let attempted = || format!("replace layer entry {:?}", String::from_utf8_lossy(name));
        let found = match rustix::fs::statat(parent, last, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(error) => return Err(error).attempt(attempted),
            Ok(stat) => stat,
        };
        self.last_parent = None;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            if for_directory {
                return Ok(Found::Directory);
            }
            // One component below a descriptor that the kernel resolved: no link can intervene.
            let path = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(last);
            std::fs::remove_dir_all(path).attempt(attempted)?;
            return Ok(Found::Removed);
        }
        rustix::fs::unlinkat(parent, last, AtFlags::empty()).attempt(attempted)?;
        if for_directory && is_whiteout(&found) {
            make_directory(parent, last)
                .and_then(|()| open_directory(parent, last))
                .and_then(|directory| make_opaque(&directory))
                .attempt(attempted)?;
            return Ok(Found::Directory);
        }
        Ok(Found::Removed)
    }

    /// `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all of the directory's lower content.
    fn whiteout(&mut self, parent: &OwnedFd, hidden: &[u8], name: &[u8]) -> Result<()> {
        let attempted = || format!("unpack whiteout {:?}", String::from_utf8_lossy(name));
        if hidden == b".wh..opq" {
            return make_opaque(parent).attempt(attempted);
        }
        if hidden.starts_with(b".wh.") {
            // Bookkeeping of aufs (.wh..wh.plnk and such): no part of the image.
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(refused(name, "a whiteout of nothing"));
        }
        let hidden = OsStr::from_bytes(hidden);
        match rustix::fs::statat(parent, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            // A whiteout speaks of lower layers only: what this layer brings stays.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                open_directory(parent, hidden)
                    .and_then(|directory| make_opaque(&directory))
                    .attempt(attempted)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                    .attempt(attempted)
            }
            Err(error) => Err(error).attempt(attempted),
        }
    }

    fn copy(&mut self, from: &mut impl Read, to: &mut File, name: &[u8]) -> Result<()> {
        let attempted = || format!("write layer entry {:?}", String::from_utf8_lossy(name));
        let mut length = 0;
        let mut hole_at_end = false;
        loop {
            let filled = fill(from, &mut self.piece).map_err(|error| unreadable(&error))?;
            if filled == 0 {
                break;
            }
            length += filled as u64;
            if self.done.bytes + length > BYTES_MAX {
                return Err(ImageError::Archive(format!(
                    "a layer has more than {BYTES_MAX} bytes"
                )));
            }
            let piece = &self.piece[..filled];
            hole_at_end = filled == PIECE && piece.iter().all(|byte| *byte == 0);
            if hole_at_end {
                to.seek(SeekFrom::Current(PIECE as i64)).attempt(attempted)?;
            } else {
                to.write_all(piece).attempt(attempted)?;
            }
        }
        if hole_at_end {
            to.set_len(length).attempt(attempted)?;
        }
        self.done.bytes += length;
        Ok(())
    }

    fn finish(self) -> Result<Unpacked> {
        for (path, modified) in self.directories.iter().rev() {
            // A later entry may have replaced the directory: then it has no time to set.
            if let Ok(directory) = self.open_beneath(path) {
                rustix::fs::futimens(&directory, &times(*modified)).attempt(|| {
                    format!("set the time of {:?} of a layer", String::from_utf8_lossy(path))
                })?;
            }
        }
        Ok(self.done)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Directory,
    Removed,
}

impl Attributes {
    fn of<R: Read>(entry: &mut tar::Entry<'_, R>, name: &[u8]) -> Result<Attributes> {
        let bad = |error: std::io::Error| refused(name, error);
        let header = entry.header();
        let id =
            |id: u64| u32::try_from(id).map_err(|_| refused(name, "its owner is no 32-bit id"));
        let mut attributes = Attributes {
            owner: Uid::from_raw(id(header.uid().map_err(bad)?)?),
            group: Gid::from_raw(id(header.gid().map_err(bad)?)?),
            mode: Mode::from_raw_mode(header.mode().map_err(bad)? & 0o7777),
            modified: Timespec {
                tv_sec: i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0),
                tv_nsec: 0,
            },
            extended: Vec::new(),
        };
        let Some(extensions) = entry.pax_extensions().map_err(bad)? else { return Ok(attributes) };
        for extension in extensions {
            let extension = extension.map_err(bad)?;
            let Ok(key) = extension.key() else { continue };
            if key.starts_with("GNU.sparse.") {
                return Err(refused(name, "sparse files in PAX form are not supported"));
            }
            if let Some(attribute) = key.strip_prefix("SCHILY.xattr.") {
                if is_ours_to_set(attribute) {
                    let value = extension.value_bytes().to_vec();
                    attributes.extended.push((attribute.to_owned(), value));
                }
            } else if let ("mtime", Ok(value)) = (key, extension.value()) {
                attributes.modified = time(value).unwrap_or(attributes.modified);
            }
        }
        Ok(attributes)
    }

    /// Changing the owner clears set-id bits and capabilities, so it comes first.
    fn put_on(&self, file: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let put = || {
            rustix::fs::fchown(file, Some(self.owner), Some(self.group))?;
            rustix::fs::fchmod(file, self.mode)?;
            for (attribute, value) in &self.extended {
                match rustix::fs::fsetxattr(file, attribute.as_str(), value, XattrFlags::empty()) {
                    Ok(()) | Err(Errno::NOTSUP) => {}
                    Err(error) => return Err(error),
                }
            }
            rustix::fs::futimens(file, &times(self.modified))
        };
        put().attempt(|| {
            format!("set the attributes of layer entry {:?}", String::from_utf8_lossy(name))
        })
    }

    /// For what cannot be opened: links and special files.
    fn put_on_name(&self, parent: &OwnedFd, last: &OsStr) -> rustix::io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(parent, last, Some(self.owner), Some(self.group), flags)?;
        rustix::fs::utimensat(parent, last, &times(self.modified), flags)
    }
}

/// Seconds with a fraction, as PAX writes them.
fn time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(Timespec { tv_sec: seconds.parse().ok()?, tv_nsec: digits.parse().ok()? })
}

fn times(modified: Timespec) -> Timestamps {
    Timestamps { last_access: modified, last_modification: modified }
}

/// overlayfs keeps its own notes in trusted.overlay.* and user.overlay.*: an archive writes none.
fn is_ours_to_set(attribute: &str) -> bool {
    attribute == "security.capability"
        || attribute.starts_with("user.") && !attribute.starts_with("user.overlay.")
}

/// The names along a path. `..` has no honest use in a layer and is refused.
fn components(name: &[u8]) -> Result<Vec<&[u8]>> {
    let components: Vec<&[u8]> =
        name.split(|byte| *byte == b'/').filter(|c| !c.is_empty() && *c != b".").collect();
    if components.contains(&&b".."[..]) {
        return Err(refused(name, "a path with .. leads out of its place"));
    }
    Ok(components)
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>, name: &[u8]) -> Result<Vec<u8>> {
    match entry.link_name_bytes() {
        Some(target) if !target.is_empty() => Ok(target.into_owned()),
        _ => Err(refused(name, "a link to nothing")),
    }
}

fn make_directory(parent: &OwnedFd, last: &OsStr) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdirat(parent, last, mode) {
        // Whatever the server's umask is.
        Ok(()) => rustix::fs::chmodat(parent, last, mode, AtFlags::empty()),
        // Made already, as an opaque one.
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

fn open_directory(parent: &OwnedFd, last: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, last, flags, Mode::empty())
}

fn make_opaque(directory: &OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Device nodes are left out where the kernel refuses them: containers get their /dev from the node.
fn make_special(
    kind: tar::EntryType,
    header: &tar::Header,
    parent: &OwnedFd,
    last: &OsStr,
    attributes: &Attributes,
) -> rustix::io::Result<()> {
    let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
    let device = rustix::fs::makedev(number(header.device_major()), number(header.device_minor()));
    let file_type = match kind {
        tar::EntryType::Fifo => FileType::Fifo,
        tar::EntryType::Block => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    };
    if file_type == FileType::CharacterDevice && device == 0 {
        // To overlayfs this would be a whiteout.
        return Ok(());
    }
    let device = if file_type == FileType::Fifo { 0 } else { device };
    match rustix::fs::mknodat(parent, last, file_type, attributes.mode, device) {
        Err(Errno::PERM) if file_type != FileType::Fifo => return Ok(()),
        made => made?,
    }
    attributes.put_on_name(parent, last)?;
    rustix::fs::chmodat(parent, last, attributes.mode, AtFlags::empty())
}

/// Reads until `piece` is full or the stream ends.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
