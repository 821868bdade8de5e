//! A ledger as one file: a stream of parts, compressed, that is believed only whole.
//!
//! `stanchion backup`, the format's version (u32, little endian), then one zstd stream of parts
//! (tag, length as u32, payload), then the SHA-256 of every byte before it, so that a file which was
//! cut short or changed anywhere is told from a whole one.

mod digest;
mod part;
mod read;
mod restore;
mod write;

pub use part::{File, Head, Part};
pub use read::Reader;
pub use restore::{Restored, Verified, restore, verify};
pub use write::{Counts, save};

use crate::{ReadError, StoreError};
use std::io;

const MAGIC: &[u8; 16] = b"stanchion backup";

/// Raised with every change that an older program would misread.
pub const VERSION: u32 = 1;

/// What a file beside the ledger may have: keys and certificates are a few KiB.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// A value and a key at their largest, with room for what describes them.
const PART_BYTES_MAX: usize = 2 << 20;

/// Why a ledger was not written to a file, or not made from one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("it is no backup of a ledger")]
    Foreign,
    #[error("it has format version {found}, this program knows up to {known}")]
    Newer { found: u32, known: u32 },
    /// Cut short, or changed since it was written. Nothing of it is used.
    #[error("it is damaged: {detail}")]
    Damaged { detail: String },
    #[error("{attempted}")]
    Io {
        attempted: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("read the ledger")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BackupError {
    fn damaged(detail: impl Into<String>) -> BackupError {
        BackupError::Damaged { detail: detail.into() }
    }
}
