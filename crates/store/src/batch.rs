//! What a commit asks for: checks and writes, judged together and applied together.

use crate::{CommitError, Key, LeaseId, Revision};
use bytes::Bytes;

/// etcd's default for operations in a transaction (`--max-txn-ops`), so that every backend can.
pub const OPERATIONS_MAX: usize = 128;

/// etcd's default for a request (`--max-request-bytes`): 1.5 MiB.
pub const VALUE_BYTES_MAX: usize = 3 * 512 * 1024;

/// Names are at most 253 bytes and a key joins four of them at most: room to spare.
pub const KEY_BYTES_MAX: usize = 2048;

/// What must be true of a key at the moment of the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Present,
    /// Last modified at exactly this revision.
    At(Revision),
    Whatever,
}

/// A key that is read and judged, not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub key: Key,
    pub expect: Expect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A put without a lease takes the key off the lease that it was on.
    Put {
        value: Bytes,
        lease: Option<LeaseId>,
    },
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: Key,
    pub expect: Expect,
    pub change: Change,
}

/// One commit. At most [`OPERATIONS_MAX`] checks and writes, and no key twice among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub checks: Vec<Check>,
    pub writes: Vec<Write>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    #[must_use]
    pub fn check(mut self, key: impl Into<Key>, expect: Expect) -> Batch {
        self.checks.push(Check { key: key.into(), expect });
        self
    }

    #[must_use]
    pub fn put(mut self, key: impl Into<Key>, expect: Expect, value: impl Into<Bytes>) -> Batch {
        let change = Change::Put { value: value.into(), lease: None };
        self.writes.push(Write { key: key.into(), expect, change });
        self
    }

    #[must_use]
    pub fn delete(mut self, key: impl Into<Key>, expect: Expect) -> Batch {
        self.writes.push(Write { key: key.into(), expect, change: Change::Delete });
        self
    }

    /// Refuses what no backend takes, before anything is queued.
    pub(crate) fn validate(&self) -> Result<(), CommitError> {
        let operations = self.checks.len() + self.writes.len();
        if operations > OPERATIONS_MAX {
            return Err(CommitError::TooLarge {
                what: "operations in one batch".into(),
                size: operations,
                limit: OPERATIONS_MAX,
            });
        }
        for write in &self.writes {
            if let Change::Put { value, .. } = &write.change
                && value.len() > VALUE_BYTES_MAX
            {
                return Err(CommitError::TooLarge {
                    what: format!("bytes in the value of {}", write.key),
                    size: value.len(),
                    limit: VALUE_BYTES_MAX,
                });
            }
        }
        let checked = self.checks.iter().map(|check| &check.key);
        let mut keys: Vec<&Key> = checked.chain(self.writes.iter().map(|w| &w.key)).collect();
        for key in &keys {
            if key.as_str().len() > KEY_BYTES_MAX {
                return Err(CommitError::TooLarge {
                    what: "bytes in a key".into(),
                    size: key.as_str().len(),
                    limit: KEY_BYTES_MAX,
                });
            }
            if key.as_str().is_empty() || key.as_str().contains('\0') {
                return Err(malformed(key, "a key is not empty and holds no NUL"));
            }
        }
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(malformed(pair[0], "a batch names a key only once")),
            None => Ok(()),
        }
    }

    /// A bound on what the batch takes in a queue or a log.
    pub(crate) fn bytes(&self) -> usize {
        let size = |write: &Write| match &write.change {
            Change::Put { value, .. } => write.key.as_str().len() + value.len(),
            Change::Delete => write.key.as_str().len(),
        };
        self.writes.iter().map(size).sum()
    }
}

fn malformed(key: &Key, why: &'static str) -> CommitError {
    CommitError::Malformed { key: key.clone(), why }
}
