//! Space that is laid by, so that what was acknowledged can be written out when others have filled the disk.
//!
//! New commits are refused long before ([`super::writer`]); but between looking and writing somebody may take all that
//! was free, and a ledger whose pages cannot be written is of no use to anyone until its process is restarted.

use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// All pages that redb keeps back before it must write them, and the checksums beside them.
pub(super) const BYTES: u64 = 16 << 20;

#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    file: File,
    held: AtomicBool,
}

impl Ballast {
    pub(crate) fn open(path: &Path) -> io::Result<Ballast> {
        let options = File::options().write(true).create(true).truncate(false).open(path);
        let ballast =
            Ballast { path: path.to_owned(), file: options?, held: AtomicBool::new(false) };
        ballast.take_on();
        Ok(ballast)
    }

    /// Gives the space to whoever writes next. False if there is none left to give.
    pub(super) fn throw(&self) -> bool {
        if !self.held.swap(false, Ordering::Relaxed) {
            return false;
        }
        tracing::warn!("the disk is full: the ledger goes on with what it has laid by");
        self.file.set_len(0).is_ok()
    }

    /// Lays space by, unless it is already, or there is none.
    pub(super) fn take_on(&self) {
        if self.held.load(Ordering::Relaxed) {
            return;
        }
        match fallocate(&self.file, FallocateFlags::empty(), 0, BYTES) {
            Ok(()) => self.held.store(true, Ordering::Relaxed),
            Err(error) => {
                // A part of it helps nobody, and takes what others may need.
                let _kept = self.file.set_len(0);
                let path = self.path.display();
                tracing::debug!(%error, "no space is laid by in {path}");
            }
        }
    }
}
