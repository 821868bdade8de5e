//! Whether a batch may be applied, and what it does to each key. Pure: one rule for all backends.

use crate::{Batch, Change, CommitError, Expect, Key, LeaseId, Revision};
use bytes::Bytes;

/// What is known of a live key without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    pub(crate) version: u64,
    pub(crate) lease: Option<LeaseId>,
    /// Length of the value.
    pub(crate) bytes: usize,
}

/// One key's new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Key,
    pub(crate) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Put { value: Bytes, lease: Option<LeaseId>, created: Revision, version: u64 },
    Delete,
}

/// Judges every expectation against `look` and says what the batch writes at `revision`.
pub(crate) fn judge<E: From<CommitError>>(
    batch: Batch,
    revision: Revision,
    mut look: impl FnMut(&Key) -> Result<Option<Head>, E>,
    lease_exists: impl Fn(LeaseId) -> bool,
) -> Result<Vec<Row>, E> {
    for check in batch.checks {
        let head = look(&check.key)?;
        hold(&check.key, check.expect, head)?;
    }
    let mut rows = Vec::with_capacity(batch.writes.len());
    for write in batch.writes {
        let head = look(&write.key)?;
        hold(&write.key, write.expect, head)?;
        let content = match write.change {
            Change::Put { value, lease } => {
                if let Some(lease) = lease.filter(|lease| !lease_exists(*lease)) {
                    return Err(CommitError::NoLease { lease }.into());
                }
                let created = head.map_or(revision, |head| head.created);
                let version = head.map_or(0, |head| head.version) + 1;
                Content::Put { value, lease, created, version }
            }
            Change::Delete if head.is_none() => continue,
            Change::Delete => Content::Delete,
        };
        rows.push(Row { key: write.key, content });
    }
    Ok(rows)
}

fn hold(key: &Key, expected: Expect, head: Option<Head>) -> Result<(), CommitError> {
    let holds = match expected {
        Expect::Absent => head.is_none(),
        Expect::Present => head.is_some(),
        Expect::At(revision) => head.is_some_and(|head| head.modified == revision),
        Expect::Whatever => true,
    };
    if holds {
        return Ok(());
    }
    Err(CommitError::Conflict { key: key.clone(), expected, actual: head.map(|h| h.modified) })
}
