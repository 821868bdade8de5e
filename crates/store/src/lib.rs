//! The ledger: an ordered history of keys and values, and nothing else.
//!
//! The store knows bytes, not kinds. Every commit gets the next [`Revision`], which the API calls
//! `resourceVersion`. The semantics are etcd's, whatever the medium.
#![forbid(unsafe_code)]

pub mod backend;
pub mod backup;
mod batch;
pub mod conformance;
mod error;
mod judge;
mod key;
mod lease;
mod retention;
mod watch;

pub use batch::{
    Batch, Change, Check, Expect, KEY_BYTES_MAX, OPERATIONS_MAX, VALUE_BYTES_MAX, Write,
};
pub use error::{CommitError, LeaseError, ReadError, StoreError};
pub use key::{Key, KeyRange};
pub use lease::LeaseId;
pub use retention::{HISTORY_AGE, HISTORY_AGE_MIN, HISTORY_BYTES_MAX};

use bytes::Bytes;
use std::{fmt, sync::Arc, time::Duration};
use stdx::BoxFuture;

/// A position in the ledger. Zero means: before the first write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    pub const ZERO: Revision = Revision(0);

    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key's value as of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub value: Bytes,
    /// The revision that brought the key into being.
    pub created: Revision,
    /// The revision of this value.
    pub modified: Revision,
    /// How many times the key was put since it was created; 1 is the first.
    pub version: u64,
    /// The lease that it goes with.
    pub lease: Option<LeaseId>,
}

/// What a revision did to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    Put { value: Bytes, created: Revision },
    Delete,
}

/// One change, as a watch reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub revision: Revision,
    pub key: Key,
    pub change: Recorded,
}

/// A part of a range, in key order. `more` says that the range goes on after the last entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    pub more: bool,
}

/// All keys as of one revision. Cheap to hold: it pins nothing, so one that is held until its
/// revision is compacted answers [`ReadError::Compacted`] from then on.
pub trait Snapshot: Send + Sync {
    fn revision(&self) -> Revision;
    fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError>;
    /// At most `limit` entries (`usize::MAX`: all) of the range, beginning behind the key `after`.
    fn range(&self, range: &KeyRange, limit: usize, after: Option<&Key>)
    -> Result<Page, ReadError>;
    fn count(&self, range: &KeyRange) -> Result<u64, ReadError>;
}

/// Every change to a key range, in revision order, without gaps.
pub trait Watch: Send {
    /// Waits for the next changes: one or more whole revisions, in order, never empty. After an
    /// error the watch is over. Safe to cancel: nothing is lost when the future is dropped.
    fn next(&mut self) -> BoxFuture<'_, Result<Arc<[Record]>, ReadError>>;
}

/// What a store did and what it occupies. Counters start at zero when it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Batches that got a revision.
    pub commits: u64,
    /// Keys put or deleted by them.
    pub writes: u64,
    /// Times that the medium was told to make writes durable; 0 where there is no medium.
    pub syncs: u64,
    /// Bytes that the medium occupies.
    pub file_bytes: u64,
    /// Bytes of all live keys and values.
    pub live_bytes: u64,
    /// Keys that are live.
    pub live_keys: u64,
    /// The oldest revision that can be read, and the newest.
    pub oldest: Revision,
    pub latest: Revision,
}

/// Where objects live. One implementation per way of agreeing on the order of writes.
pub trait Store: Send + Sync {
    /// Applies the whole batch at one new revision, or none of it. Returns once it is durable.
    /// A batch that changes nothing (checks only, or deletions of absent keys) writes nothing and
    /// answers the revision at which it was judged.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision, CommitError>>;

    /// The newest revision anyone was told of before the call (linearizable).
    fn latest(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// A view at `latest()`.
    fn snapshot(&self) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>>;

    /// A view of the past, as far as history reaches.
    fn snapshot_at(&self, at: Revision) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, ReadError>>;

    /// Follows every change after the revision `after`.
    fn watch(&self, range: KeyRange, after: Revision) -> Result<Box<dyn Watch>, ReadError>;

    /// Forgets history: `before` becomes the oldest revision that can be read, and `before - 1`
    /// the oldest that a watch can start after.
    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<(), ReadError>>;

    /// A lease that ends `ttl` after it was last kept alive. The keys put with it vanish then,
    /// each as a Delete at its own revision. Durable; a restart grants each lease its whole
    /// `ttl` anew.
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>>;

    /// Starts the lease's time over.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// Ends the lease now. Returns once its keys have vanished durably.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// Every running lease and the time that it was granted for.
    fn leases(&self) -> BoxFuture<'_, Result<Vec<(LeaseId, Duration)>, StoreError>>;

    fn figures(&self) -> Figures;
}
