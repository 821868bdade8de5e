//! Loop devices: an image file as a disk. Identified by the file behind them, never by number: numbers are reused.
//!
//! With `autoclear` the kernel frees a device when the last user (our descriptor, then the mount) is gone, so that a
//! crash leaves nothing behind. Structures and numbers: include/uapi/linux/loop.h.

use crate::error::{Attempt, Attempted, Failure};
use rustix::fs::{FileType, Mode, OFlags};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4C07;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Pages are cached once, by the filesystem inside. A file that cannot is used without.
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Other processes of the machine take free devices too; losing this often in a row is a bug.
const RACES_MAX: u32 = 64;

#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct Configuration {
    descriptor: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const EMPTY: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// An open loop device. While this lives, the device keeps its file.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    file: File,
    number: u32,
}

/// How a device is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) read_only: bool,
    /// Freed with its last user; otherwise it lives until [`LoopDevice::clear`].
    pub(crate) autoclear: bool,
}

/// Sets up a free loop device over `image`.
pub(crate) fn attach(image: &File, name: &Path, setup: Setup) -> Attempt<LoopDevice> {
    let attempt = || format!("attach {} to a loop device", name.display());
    let control = open("/dev/loop-control")
        .attempted(|| "open /dev/loop-control (is the kernel module `loop` loaded?)".to_string())?;
    for _ in 0..RACES_MAX {
        // SAFETY: the request takes no argument and answers a number.
        let number = answer(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) });
        let number = number.and_then(|n| u32::try_from(n).map_err(io::Error::other));
        let number = number.attempted(|| "find a free loop device".to_string())?;
        let file = open_device(number)?;
        let mut info = EMPTY;
        info.flags = LO_FLAGS_DIRECT_IO
            | if setup.autoclear { LO_FLAGS_AUTOCLEAR } else { 0 }
            | if setup.read_only { LO_FLAGS_READ_ONLY } else { 0 };
        // For people who run losetup; identity is the inode.
        let text = name.as_os_str().as_encoded_bytes();
        let text = &text[text.len().saturating_sub(63)..];
        info.file_name[..text.len()].copy_from_slice(text);
        let configuration = Configuration {
            descriptor: u32::try_from(image.as_raw_fd()).attempted(attempt)?,
            block_size: 512,
            info,
            reserved: [0; 8],
        };
        // SAFETY: the structure has the kernel's layout, lives through the call and is only read.
        let done = answer(unsafe {
            libc::ioctl(file.as_raw_fd(), LOOP_CONFIGURE, &raw const configuration)
        });
        match done {
            Ok(_) => return Ok(LoopDevice { file, number }),
            // Another process was faster, or the device is just being freed.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENXIO)) => {}
            Err(error) => return Err(error).attempted(attempt),
        }
    }
    Err(Failure::new(format!("{}: {RACES_MAX} times another process took it", attempt())))
}

/// The devices whose file is `image`, by its device and inode. `image_path` ends as its path does wherever the
/// disk is mounted (`<handle>/disk.img`).
pub(crate) fn attached(image: &fs::Metadata, image_path: &Path) -> Attempt<Vec<LoopDevice>> {
    let attempt = || "list loop devices in /sys/block".to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").attempted(attempt)? {
        let entry = entry.attempted(attempt)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok());
        let Some(number) = number else { continue };
        // Opening a device delays its autoclear: only those that seem to be ours are. The text alone proves nothing.
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        let file = Path::new(file.trim_end().trim_end_matches(" (deleted)"));
        let same_end =
            |a: &Path, b: &Path| a.components().rev().take(2).eq(b.components().rev().take(2));
        if !same_end(file, image_path) {
            continue;
        }
        let Some(file) = open_busy_device(number)? else { continue };
        let device = LoopDevice { file, number };
        if device.backs(image) {
            found.push(device);
        }
    }
    Ok(found)
}

impl LoopDevice {
    pub(crate) fn path(&self) -> PathBuf {
        device_path(self.number)
    }

    /// Major and minor number.
    pub(crate) fn device(&self) -> Attempt<(u32, u32)> {
        let found = self.file.metadata().attempted(|| format!("stat {}", self.path().display()))?;
        Ok((rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev())))
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    fn info(&self) -> Option<Info> {
        let mut info = EMPTY;
        // SAFETY: the structure has the kernel's layout and lives through the call that fills it.
        let done =
            answer(unsafe { libc::ioctl(self.file.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) });
        done.ok().map(|_| info)
    }

    fn backs(&self, image: &fs::Metadata) -> bool {
        self.info().is_some_and(|info| {
            // The kernel writes the device number in the wide form for 64 bits.
            info.inode == image.ino() && info.device == image.dev()
        })
    }

    /// Follows the file's new size.
    pub(crate) fn grow(&self) -> Attempt<()> {
        // SAFETY: the request takes no argument.
        answer(unsafe { libc::ioctl(self.file.as_raw_fd(), LOOP_SET_CAPACITY, 0) })
            .map(|_| ())
            .attempted(|| format!("grow {} to its file", self.path().display()))
    }

    /// Frees the device, at once or with its last user.
    pub(crate) fn clear(&self) -> Attempt<()> {
        // SAFETY: the request takes no argument.
        let done = answer(unsafe { libc::ioctl(self.file.as_raw_fd(), LOOP_CLR_FD, 0) });
        match done {
            Err(error) if error.raw_os_error() != Some(libc::ENXIO) => {
                Err(error).attempted(|| format!("free {}", self.path().display()))
            }
            _ => Ok(()),
        }
    }
}

fn device_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

fn open(path: impl AsRef<Path>) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// None if the device is just being freed.
fn open_busy_device(number: u32) -> Attempt<Option<File>> {
    match open(device_path(number)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) => Ok(None),
        Err(_) => open_device(number).map(Some),
    }
}

/// Opens the device node, making it where /dev is not kept by the kernel (a container's /dev).
fn open_device(number: u32) -> Attempt<File> {
    let path = device_path(number);
    let attempt = || format!("open {}", path.display());
    match open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => {
            let file = other.attempted(attempt)?;
            let kind = file.metadata().attempted(attempt)?.file_type();
            if !kind.is_block_device() {
                return Err(Failure::new(format!("{} is not a block device", path.display())));
            }
            return Ok(file);
        }
    }
    let text = fs::read_to_string(format!("/sys/block/loop{number}/dev")).attempted(attempt)?;
    let numbers = text.trim().split_once(':').and_then(|(major, minor)| {
        Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
    });
    let device = numbers.ok_or_else(|| Failure::new(format!("{}: {text:?}", attempt())))?;
    let mode = Mode::from_raw_mode(0o660);
    match rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::BlockDevice, mode, device) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).attempted(|| format!("make {}", path.display())),
    }
    rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map(File::from)
        .attempted(attempt)
}

fn answer(code: libc::c_int) -> io::Result<libc::c_int> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

// The kernel's sizes: a wrong one would be found by nothing else.
const _: () = assert!(size_of::<Info>() == 232 && size_of::<Configuration>() == 304);
