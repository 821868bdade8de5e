//! The filesystems of a disk: making one, knowing it again by its UUID, growing it.

use crate::{
    error::{Attempt, Attempted, Failure},
    program,
};
use std::{
    fs::File,
    io::{Seek, SeekFrom},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
    time::Duration,
};

/// mkfs writes metadata only; a disk that needs longer hangs.
const MAKE_DEADLINE: Duration = Duration::from_secs(300);
/// A check reads all metadata: 16 TiB on a slow disk in half an hour.
const CHECK_DEADLINE: Duration = Duration::from_secs(1800);

const MIB: u64 = 1024 * 1024;

/// btrfs calls all of its device its size; less of it is told to use, so that `df` never shows more than can be had.
const BTRFS_SPARE_BYTES: u64 = MIB;

/// `EXT4_IOC_RESIZE_FS`: `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;
/// As mkfs is told.
const EXT4_BLOCK_BYTES: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filesystem {
    Btrfs,
    Ext4,
    Xfs,
}

/// What the first blocks of a disk say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) filesystem: Filesystem,
    pub(crate) uuid: [u8; 16],
    /// ext4 has seen errors and asks for a check.
    pub(crate) needs_check: bool,
}

/// What became of a mounted filesystem that should grow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    Done,
    /// The kernel wants CAP_SYS_RESOURCE, which this node does not have.
    NotPermitted,
}

impl Filesystem {
    pub(crate) fn parse(name: &str) -> Option<Filesystem> {
        match name {
            "btrfs" => Some(Filesystem::Btrfs),
            "ext4" => Some(Filesystem::Ext4),
            "xfs" => Some(Filesystem::Xfs),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Filesystem::Btrfs => "btrfs",
            Filesystem::Ext4 => "ext4",
            Filesystem::Xfs => "xfs",
        }
    }

    /// The Debian package of its programs.
    const fn package(self) -> &'static str {
        match self {
            Filesystem::Btrfs => "btrfs-progs",
            Filesystem::Ext4 => "e2fsprogs",
            Filesystem::Xfs => "xfsprogs",
        }
    }

    /// The smallest disk: mkfs.btrfs refuses below 109 MiB, mkfs.xfs below 300 MB; ext4 below 16 MiB is mostly journal.
    pub(crate) const fn bytes_min(self) -> u64 {
        match self {
            Filesystem::Btrfs => 110 * MIB,
            Filesystem::Ext4 => 16 * MIB,
            Filesystem::Xfs => 300 * MIB,
        }
    }

    /// Makes it on an image that reads as zeros and whose blocks must not be given back: discards are off.
    pub(crate) fn make(self, disk: &Path, uuid: &str) -> Attempt<()> {
        // Zeroing by the kernel after the mount would punch holes into the image.
        let zeroed = "nodiscard,lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1";
        match self.make_with(disk, uuid, zeroed) {
            // e2fsprogs before 1.47 write the zeros themselves.
            Err(failure) if failure.to_string().contains("Bad option") => {
                self.make_on_used(disk, uuid)
            }
            other => other,
        }
    }

    /// Makes it on a disk of which only the beginning is known to be empty.
    pub(crate) fn make_on_used(self, disk: &Path, uuid: &str) -> Attempt<()> {
        self.make_with(disk, uuid, "nodiscard,lazy_itable_init=0,lazy_journal_init=0")
    }

    fn make_with(self, disk: &Path, uuid: &str, ext4_options: &str) -> Attempt<()> {
        let bytes = size(disk)?;
        let disk = text(disk)?;
        let run = |name: &str, arguments: &[&str]| {
            program::run_ok(name, self.package(), arguments, MAKE_DEADLINE)
        };
        match self {
            Filesystem::Btrfs => {
                let size = bytes.saturating_sub(BTRFS_SPARE_BYTES).to_string();
                run("mkfs.btrfs", &["-q", "-f", "-K", "-b", &size, "-U", uuid, disk])
            }
            Filesystem::Ext4 => {
                // No blocks for root only: the claim's user gets all of them. Read-only after errors, not worse ones.
                let fixed = ["-q", "-F", "-m", "0", "-b", "4096", "-e", "remount-ro", "-U", uuid];
                run("mkfs.ext4", &[&fixed[..], &["-E", ext4_options, disk]].concat())
            }
            Filesystem::Xfs => {
                run("mkfs.xfs", &["-q", "-f", "-K", "-m", &format!("uuid={uuid}"), disk])
            }
        }
    }

    /// Repairs what can be repaired without asking. Only ext4 wants this before a mount, and only unmounted.
    pub(crate) fn check(self, disk: &Path) -> Attempt<()> {
        let arguments = ["-f", "-p", text(disk)?];
        match self {
            Filesystem::Btrfs | Filesystem::Xfs => Ok(()),
            Filesystem::Ext4 => {
                let ended = program::run("e2fsck", self.package(), &arguments, CHECK_DEADLINE)?;
                match ended.code {
                    // 1: errors were corrected; 2: and the system should be rebooted, if this were its root.
                    Some(0..=2) => Ok(()),
                    _ => Err(program::failed("e2fsck", &arguments, &ended)),
                }
            }
        }
    }

    /// Grows an unmounted one to its disk. False if this kind only grows mounted.
    pub(crate) fn grow_unmounted(self, disk: &Path) -> Attempt<bool> {
        match self {
            Filesystem::Btrfs | Filesystem::Xfs => Ok(false),
            Filesystem::Ext4 => {
                self.check(disk)?;
                program::run_ok("resize2fs", self.package(), &[text(disk)?], CHECK_DEADLINE)?;
                Ok(true)
            }
        }
    }

    /// Grows the one that is mounted at `point` to its disk of `bytes`.
    pub(crate) fn grow_mounted(self, point: &Path, bytes: u64) -> Attempt<Growth> {
        let run = |name: &str, arguments: &[&str]| {
            program::run_ok(name, self.package(), arguments, CHECK_DEADLINE).map(|()| Growth::Done)
        };
        match self {
            Filesystem::Btrfs => {
                let size = bytes.saturating_sub(BTRFS_SPARE_BYTES).to_string();
                run("btrfs", &["filesystem", "resize", &size, text(point)?])
            }
            Filesystem::Xfs => run("xfs_growfs", &["-d", text(point)?]),
            Filesystem::Ext4 => {
                let attempt = || format!("grow the filesystem at {}", point.display());
                let directory = File::open(point).attempted(attempt)?;
                let blocks: u64 = bytes / EXT4_BLOCK_BYTES;
                // SAFETY: the kernel reads one u64 that lives through the call.
                let code = unsafe {
                    libc::ioctl(directory.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks)
                };
                if code == 0 {
                    return Ok(Growth::Done);
                }
                match std::io::Error::last_os_error() {
                    error if error.raw_os_error() == Some(libc::EPERM) => Ok(Growth::NotPermitted),
                    error => Err(error).attempted(attempt),
                }
            }
        }
    }
}

/// Reads what filesystem a disk holds; none if it is no known one. Bytes as in each kernel header, see the offsets.
pub(crate) fn superblock(disk: &File) -> std::io::Result<Option<Superblock>> {
    let at = |offset: u64, length: usize| -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        match disk.read_exact_at(&mut bytes, offset) {
            // A disk too small for it does not hold it.
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(bytes),
        }
    };
    let uuid = |offset| -> std::io::Result<[u8; 16]> {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&at(offset, 16)?);
        Ok(uuid)
    };
    let known = |filesystem, uuid| Superblock { filesystem, uuid, needs_check: false };
    if at(0, 4)? == b"XFSB" {
        return Ok(Some(known(Filesystem::Xfs, uuid(32)?)));
    }
    if at(0x1_0040, 8)? == b"_BHRfS_M" {
        return Ok(Some(known(Filesystem::Btrfs, uuid(0x1_0020)?)));
    }
    if at(1024 + 0x38, 2)? == [0x53, 0xEF] {
        // s_state: EXT4_ERROR_FS.
        let needs_check = at(1024 + 0x3A, 2)?[0] & 2 != 0;
        let found = known(Filesystem::Ext4, uuid(1024 + 0x68)?);
        return Ok(Some(Superblock { needs_check, ..found }));
    }
    Ok(None)
}

/// `01234567-89ab-…`: how the programs want it.
pub(crate) fn uuid_text(uuid: [u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The UUID of the filesystem of a volume: its own if the handle ends with one, else derived from the whole handle.
pub(crate) fn uuid_of(handle: &str) -> [u8; 16] {
    let tail = handle.len().checked_sub(36).and_then(|start| handle.get(start..)).unwrap_or("");
    let hex: String = tail.split('-').collect();
    let shaped = hex.len() == 32 && tail.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    match u128::from_str_radix(&hex, 16) {
        Ok(number) if shaped && number != 0 => number.to_be_bytes(),
        _ => fnv_1a(handle.as_bytes()).to_be_bytes(),
    }
}

/// Not for secrets: it tells names apart, the same on every machine and in every version.
fn fnv_1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// Of an image or a device.
fn size(disk: &Path) -> Attempt<u64> {
    File::open(disk)
        .and_then(|mut disk| disk.seek(SeekFrom::End(0)))
        .attempted(|| format!("measure {}", disk.display()))
}

fn text(path: &Path) -> Attempt<&str> {
    path.to_str().ok_or_else(|| Failure::new(format!("path {} is not text", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_with_a_uid_keeps_it_and_others_get_their_own() {
        let uid = "3f1c9a52-8a4e-4a57-9d6b-0c2f5e7a1b3d";
        assert_eq!(uuid_text(uuid_of(&format!("pvc-{uid}"))), uid);
        assert_ne!(uuid_of("a-b"), uuid_of("a-c"));
        assert_eq!(uuid_text(uuid_of("x")).len(), 36);
    }
}
