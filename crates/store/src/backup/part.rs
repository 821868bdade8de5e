//! What a backup is made of, and its bytes. Numbers are little endian, texts have a u32 length.

use super::{BackupError, PART_BYTES_MAX};
use crate::{Entry, Key, LeaseId, Revision};
use bytes::Bytes;
use std::time::Duration;
use stdx::Timestamp;

/// What the rest of the file is a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The revision that all entries are as of.
    pub revision: Revision,
    pub made: Timestamp,
    /// Name and version of the program, for people.
    pub program: String,
}

/// A file that lies beside the ledger: a key or a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative, with `/`, without `..`.
    pub path: String,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    File(File),
    Lease(LeaseId, Duration),
    Entry(Entry),
}

pub(super) const HEAD: u8 = 1;
pub(super) const FILE: u8 = 2;
pub(super) const LEASE: u8 = 3;
pub(super) const ENTRY: u8 = 4;
pub(super) const END: u8 = 5;

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("parts are bounded");
    out.extend(length.to_le_bytes());
    out.extend(bytes);
}

pub(super) fn head_bytes(head: &Head) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(head.revision.0.to_le_bytes());
    out.extend(head.made.0.to_le_bytes());
    push_bytes(&mut out, head.program.as_bytes());
    out
}

pub(super) fn part_bytes(part: &Part) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    match part {
        Part::File(file) => {
            push_bytes(&mut out, file.path.as_bytes());
            push_bytes(&mut out, &file.bytes);
            (FILE, out)
        }
        Part::Lease(lease, ttl) => {
            out.extend(lease.0.to_le_bytes());
            out.extend(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
            (LEASE, out)
        }
        Part::Entry(entry) => {
            for number in [entry.created.0, entry.modified.0, entry.version] {
                out.extend(number.to_le_bytes());
            }
            out.extend(entry.lease.map_or(0, |lease| lease.0).to_le_bytes());
            push_bytes(&mut out, entry.key.as_str().as_bytes());
            push_bytes(&mut out, &entry.value);
            (ENTRY, out)
        }
    }
}

/// `None` for bytes that this module did not write.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().ok()?) as usize;
        self.take(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

pub(super) fn head(payload: &[u8]) -> Option<Head> {
    let mut fields = Fields(payload);
    let revision = Revision(fields.u64()?);
    let made = Timestamp(fields.u64()? as i64);
    let program = fields.text()?.to_owned();
    fields.0.is_empty().then_some(Head { revision, made, program })
}

pub(super) fn part(tag: u8, payload: &[u8]) -> Result<Part, BackupError> {
    assert!(payload.len() <= PART_BYTES_MAX, "the reader bounds parts");
    let mut fields = Fields(payload);
    let parsed = match tag {
        FILE => file(&mut fields).map(Part::File),
        LEASE => lease(&mut fields),
        ENTRY => entry(&mut fields).map(Part::Entry),
        tag => return Err(BackupError::damaged(format!("a part of the unknown kind {tag}"))),
    };
    match parsed {
        Some(part) if fields.0.is_empty() => Ok(part),
        Some(_) | None => Err(BackupError::damaged(format!("a part of kind {tag} makes no sense"))),
    }
}

fn file(fields: &mut Fields<'_>) -> Option<File> {
    let path = fields.text()?;
    let inside = |step: &str| !step.is_empty() && step != "." && step != "..";
    let bytes = fields.bytes()?.to_vec();
    path.split('/').all(inside).then(|| File { path: path.to_owned(), bytes })
}

fn lease(fields: &mut Fields<'_>) -> Option<Part> {
    Some(Part::Lease(LeaseId(fields.u64()?), Duration::from_millis(fields.u64()?)))
}

fn entry(fields: &mut Fields<'_>) -> Option<Entry> {
    let created = Revision(fields.u64()?);
    let modified = Revision(fields.u64()?);
    let version = fields.u64()?;
    let lease = Some(fields.u64()?).filter(|it| *it != 0).map(LeaseId);
    let key = Key::from(fields.text()?);
    let value = Bytes::copy_from_slice(fields.bytes()?);
    Some(Entry { key, value, created, modified, version, lease })
}
