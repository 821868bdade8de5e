//! What can go wrong, grouped by what the caller can do about it.

use crate::{Expect, Key, LeaseId, Revision};
use std::{io, path::PathBuf, sync::Arc};

/// The medium could not do what was asked of it. Cheap to clone: one failure may answer many.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store is closed")]
    Closed,
    /// Nothing was written. Reads go on, and writes too once there is room.
    #[error("{attempted}: no space left on {}", path.display())]
    Full { attempted: String, path: PathBuf },
    /// The bytes are not what was written. Restore from a backup; nothing was changed.
    #[error("{} is corrupt: {detail}", path.display())]
    Corrupt { path: PathBuf, detail: String },
    #[error("{} is in use by {}", path.display(), holder(*pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error("{} has format version {found}, this program knows up to {known}", path.display())]
    NewerVersion { path: PathBuf, found: u32, known: u32 },
    #[error("store {url:?}: {why}")]
    NotSupported { url: String, why: &'static str },
    /// Who keeps the bytes does not answer. Nothing was written; the same may go well in a moment.
    #[error("{attempted}")]
    Unavailable {
        attempted: String,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("{attempted}")]
    Io {
        attempted: String,
        #[source]
        source: Arc<io::Error>,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl StoreError {
    pub(crate) fn io(attempted: impl Into<String>, source: io::Error) -> StoreError {
        StoreError::Io { attempted: attempted.into(), source: Arc::new(source) }
    }

    pub(crate) fn unavailable(attempted: impl Into<String>, why: impl Into<String>) -> StoreError {
        let source = Arc::new(io::Error::other(why.into()));
        StoreError::Unavailable { attempted: attempted.into(), source }
    }
}

/// Why a batch was not applied. With `Store(Io)` it is unknown until the next open.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold. `actual` is the key's last modification, if it is there.
    #[error("{key} is {}, expected {}", state(*actual), wanted(*expected))]
    Conflict { key: Key, expected: Expect, actual: Option<Revision> },
    #[error("{what}: {size}, at most {limit}")]
    TooLarge { what: String, size: usize, limit: usize },
    #[error("key {key:?}: {why}")]
    Malformed { key: Key, why: &'static str },
    #[error("lease {lease} does not exist")]
    NoLease { lease: LeaseId },
    /// It was sent, no answer came, and reading did not tell either.
    #[error("it is unknown whether this was written: {0}")]
    Unknown(#[source] StoreError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn state(actual: Option<Revision>) -> String {
    actual.map_or_else(|| "absent".to_owned(), |revision| format!("at revision {revision}"))
}

fn wanted(expected: Expect) -> String {
    match expected {
        Expect::Absent => "absent".to_owned(),
        Expect::Present => "present".to_owned(),
        Expect::At(revision) => format!("at revision {revision}"),
        Expect::Whatever => "anything".to_owned(),
    }
}

/// Why a revision cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// List again and start over: HTTP 410.
    #[error("the revision is compacted, the oldest is {oldest}")]
    Compacted { oldest: Revision },
    #[error("the revision is in the future, the latest is {latest}")]
    Future { latest: Revision },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("lease {lease} does not exist")]
    Gone { lease: LeaseId },
    #[error(transparent)]
    Store(#[from] StoreError),
}
