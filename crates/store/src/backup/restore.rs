//! A backup into a ledger whose revisions lie beyond all that were ever handed out.
//!
//! Who watches or lists from an earlier revision is told 410 and lists anew. Every entry counts as
//! written again, in the order in which it was: nobody sees an object's revision go back. What was
//! one commit stays one revision.

use super::{BackupError, Counts, File, Head, Reader, part::Part};
use crate::{Entry, Key, LeaseId, Revision, backend::Embedded};
use bytes::Bytes;
use std::{fs, io::Seek, path::Path, time::Duration};
use stdx::Timestamp;

/// A ledger writes some 20,000 revisions a second at the most: five times that for every second
/// since the backup was made ...
const REVISIONS_PER_SECOND: u64 = 100_000;

/// ... and at least so many, in case a clock was wrong. etcd's documents name the same figure.
const RAISE_MIN: u64 = 1_000_000_000;

/// Says in the restored ledger where it comes from; its revision is the latest.
const MARKER: &str = "/stanchion/restored";

/// A file that was read to its end and believed.
pub struct Verified {
    pub head: Head,
    pub counts: Counts,
    pub files: Vec<File>,
    leases: Vec<(LeaseId, Duration)>,
    /// Every revision at which an entry was modified, in order.
    revisions: Vec<u64>,
    input: fs::File,
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The latest revision, and the oldest that can be read.
    pub revision: Revision,
    pub counts: Counts,
}

/// Reads the whole file and judges it.
pub fn verify(path: &Path) -> Result<Verified, BackupError> {
    let open = |source| BackupError::Io { attempted: "open it", source };
    let input = fs::File::open(path).map_err(open)?;
    let mut reader = Reader::open(input.try_clone().map_err(open)?)?;
    let mut verified = Verified {
        head: reader.head().clone(),
        counts: Counts::default(),
        files: Vec::new(),
        leases: Vec::new(),
        revisions: Vec::new(),
        input,
    };
    while let Some(part) = reader.next()? {
        verified.counts.count(&part);
        match part {
            Part::File(file) => verified.files.push(file),
            Part::Lease(lease, ttl) => verified.leases.push((lease, ttl)),
            Part::Entry(entry) => verified.revisions.push(entry.modified.0),
        }
    }
    verified.revisions.sort_unstable();
    verified.revisions.dedup();
    Ok(verified)
}

/// Makes the ledger directory `at`, which is not there yet, and shows each entry to `see` on the
/// way. `floor`: the latest revision that is known to have been handed out. After an error, what
/// lies at `at` is no ledger.
pub fn restore(
    verified: &mut Verified,
    at: &Path,
    floor: Revision,
    now: Timestamp,
    mut see: impl FnMut(&Entry),
) -> Result<Restored, BackupError> {
    let Verified { head, counts, leases, revisions, input, .. } = verified;
    let raise = now.since(head.made).as_secs().saturating_mul(REVISIONS_PER_SECOND).max(RAISE_MIN);
    let base = head.revision.max(floor).0.saturating_add(raise);
    let latest = Revision(base + revisions.len() as u64 + 1);
    let text = format!("revision {} of {}, restored at {now}", head.revision, head.made);
    let last = Entry {
        key: Key::from(MARKER),
        value: Bytes::from(text),
        created: latest,
        modified: latest,
        version: 1,
        lease: None,
    };
    input.rewind().map_err(|source| BackupError::Io { attempted: "read it again", source })?;
    let again = input.try_clone();
    let again = again.map_err(|source| BackupError::Io { attempted: "read it again", source })?;
    let raised = |revision: Revision| {
        let at = revisions.binary_search(&revision.0);
        let at = at.map_err(|_| BackupError::damaged("it changed while it was read"))?;
        Ok::<_, BackupError>(Revision(base + 1 + at as u64))
    };
    let entries = |take: &mut dyn FnMut(&Entry) -> Result<(), crate::StoreError>| {
        let mut reader = Reader::open(again)?;
        while let Some(part) = reader.next()? {
            let Part::Entry(mut entry) = part else { continue };
            if entry.key.as_str() == MARKER {
                continue;
            }
            entry.modified = raised(entry.modified)?;
            see(&entry);
            take(&entry)?;
        }
        Ok::<(), BackupError>(())
    };
    Embedded::import(at, leases, entries, &last, now)?;
    Ok(Restored { revision: latest, counts: *counts })
}
