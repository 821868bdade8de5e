//! The seam under the embedded store: a file, or in tests a disk that loses power.

use super::ballast::Ballast;
use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

/// One flat run of bytes that survives a power cut as of its last `sync`.
pub trait Medium: fmt::Debug + Send + Sync + 'static {
    /// What it is called in errors.
    fn path(&self) -> &Path;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// New bytes are zero.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Returns once everything written so far survives a power cut.
    fn sync(&self) -> io::Result<()>;
    /// Bytes that may still be written here.
    fn available(&self) -> io::Result<u64>;
    /// Bytes that it takes up, without holes.
    fn occupied(&self) -> io::Result<u64>;
    /// Lays space by again, once there is some, for writes that must not fail on a full disk.
    fn lay_by(&self) {}
}

#[derive(Debug)]
pub(crate) struct FileMedium {
    path: PathBuf,
    file: File,
    ballast: Option<Ballast>,
}

impl FileMedium {
    pub(crate) fn open(path: &Path, create: bool) -> io::Result<FileMedium> {
        let file = File::options().read(true).write(true).create_new(create).open(path)?;
        Ok(FileMedium { path: path.to_owned(), file, ballast: None })
    }

    /// Its writes and its growth may take what `ballast` has laid by.
    pub(crate) fn with_ballast(self, ballast: Ballast) -> FileMedium {
        FileMedium { ballast: Some(ballast), ..self }
    }

    /// Tries again with the ballast thrown, where the disk is full.
    fn insist(&self, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match (write(), &self.ballast) {
            (Err(error), Some(ballast)) if error.kind() == io::ErrorKind::StorageFull => {
                if ballast.throw() { write() } else { Err(error) }
            }
            (done, _) => done,
        }
    }
}

impl Medium for FileMedium {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.insist(|| self.file.write_all_at(bytes, offset))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.insist(|| self.file.set_len(length))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn available(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&self.file)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn occupied(&self) -> io::Result<u64> {
        // st_blocks counts units of 512 bytes, whatever the filesystem's block size.
        Ok(self.file.metadata()?.blocks() * 512)
    }

    fn lay_by(&self) {
        if let Some(ballast) = &self.ballast {
            ballast.take_on();
        }
    }
}
