//! Bytes of rows, log frames and headers. Numbers are little endian; row keys order as keys do,
//! newest version first.

use crate::{
    Key, LeaseId, Revision,
    judge::{Content, Row},
};
use bytes::Bytes;
use std::time::Duration;
use stdx::Timestamp;

/// What the log holds: enough to repeat what was done, without judging again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Commit { revision: Revision, at: Timestamp, rows: Vec<Row> },
    Grant { lease: LeaseId, ttl: Duration },
    Revoke { lease: LeaseId },
}

/// `None` for bytes that this module did not write.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(super) fn key(&mut self) -> Option<Key> {
        let length = self.u16()?;
        key(self.take(usize::from(length))?)
    }

    pub(super) fn at_end(&self) -> bool {
        self.0.is_empty()
    }
}

pub(super) fn key(bytes: &[u8]) -> Option<Key> {
    std::str::from_utf8(bytes).ok().map(Key::from)
}

fn push_key(out: &mut Vec<u8>, key: &Key) {
    let bytes = key.as_str().as_bytes();
    let length = u16::try_from(bytes.len()).expect("batches are validated: KEY_BYTES_MAX");
    out.extend(length.to_le_bytes());
    out.extend(bytes);
}

const PUT: u8 = 0;
const DELETE: u8 = 1;

/// Length of a row before its value.
pub(super) const ROW_HEAD: usize = 25;

/// The stored form of a row's content: flag, created, version, lease (0: none), value.
pub(super) fn push_content(out: &mut Vec<u8>, content: &Content) {
    match content {
        Content::Put { value, lease, created, version } => {
            out.push(PUT);
            out.extend(created.0.to_le_bytes());
            out.extend(version.to_le_bytes());
            out.extend(lease.map_or(0, |lease| lease.0).to_le_bytes());
            out.extend(&value[..]);
        }
        Content::Delete => out.push(DELETE),
    }
}

/// What a stored row says before its value. `None` inside: a deletion.
pub(super) struct RowHead {
    pub(super) created: Revision,
    pub(super) version: u64,
    pub(super) lease: Option<LeaseId>,
}

pub(super) fn row_head(row: &[u8]) -> Option<Option<RowHead>> {
    let mut reader = Reader(row);
    match reader.u8()? {
        PUT => {
            let created = Revision(reader.u64()?);
            let version = reader.u64()?;
            let lease = Some(reader.u64()?).filter(|lease| *lease != 0).map(LeaseId);
            Some(Some(RowHead { created, version, lease }))
        }
        DELETE => Some(None),
        _ => None,
    }
}

pub(super) fn content(row: &[u8]) -> Option<Content> {
    Some(match row_head(row)? {
        Some(RowHead { created, version, lease }) => {
            let value = Bytes::copy_from_slice(&row[ROW_HEAD..]);
            Content::Put { value, lease, created, version }
        }
        None => Content::Delete,
    })
}

/// The key, a NUL (no key holds one, so that versions of `a` come before `a/b`), and the
/// revision inverted, so that the newest version comes first.
pub(super) fn row_key(key: &[u8], revision: Revision) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 9);
    out.extend(key);
    out.push(0);
    out.extend((!revision.0).to_be_bytes());
    out
}

/// Behind every version of `key`, before every other key.
pub(super) fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[1]].concat()
}

pub(super) fn split_row_key(bytes: &[u8]) -> Option<(&[u8], Revision)> {
    let (key, tail) = bytes.split_at_checked(bytes.len().checked_sub(9)?)?;
    let inverted = u64::from_be_bytes(tail.get(1..)?.try_into().ok()?);
    (tail[0] == 0).then_some((key, Revision(!inverted)))
}

/// A revision in the history: when, and which keys (true: put).
pub(super) fn history(at: Timestamp, rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + rows.len() * 64);
    out.extend(at.0.to_le_bytes());
    for row in rows {
        out.push(if matches!(row.content, Content::Delete) { DELETE } else { PUT });
        push_key(&mut out, &row.key);
    }
    out
}

pub(super) fn history_time(bytes: &[u8]) -> Option<Timestamp> {
    Some(Timestamp(i64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)))
}

pub(super) fn history_keys(bytes: &[u8]) -> Option<Vec<(Key, bool)>> {
    let mut reader = Reader(bytes.get(8..)?);
    let mut keys = Vec::new();
    while !reader.at_end() {
        let put = reader.u8()? == PUT;
        keys.push((reader.key()?, put));
    }
    Some(keys)
}

const COMMIT: u8 = 1;
const GRANT: u8 = 2;
const REVOKE: u8 = 3;

pub(super) fn push_item(out: &mut Vec<u8>, item: &Item) {
    match item {
        Item::Commit { revision, at, rows } => {
            out.push(COMMIT);
            out.extend(revision.0.to_le_bytes());
            out.extend(at.0.to_le_bytes());
            let count = u16::try_from(rows.len()).expect("batches are validated: OPERATIONS_MAX");
            out.extend(count.to_le_bytes());
            for row in rows {
                push_key(out, &row.key);
                let length_at = out.len();
                out.extend([0; 4]);
                push_content(out, &row.content);
                let length = u32::try_from(out.len() - length_at - 4).expect("VALUE_BYTES_MAX");
                out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
        }
        Item::Grant { lease, ttl } => {
            out.push(GRANT);
            out.extend(lease.0.to_le_bytes());
            out.extend(millis(*ttl).to_le_bytes());
        }
        Item::Revoke { lease } => {
            out.push(REVOKE);
            out.extend(lease.0.to_le_bytes());
        }
    }
}

pub(super) fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn items(bytes: &[u8]) -> Option<Vec<Item>> {
    let mut reader = Reader(bytes);
    let mut items = Vec::new();
    while !reader.at_end() {
        items.push(match reader.u8()? {
            COMMIT => {
                let revision = Revision(reader.u64()?);
                let at = Timestamp(reader.u64()? as i64);
                let count = reader.u16()?;
                let mut rows = Vec::with_capacity(usize::from(count));
                for _ in 0..count {
                    let key = reader.key()?;
                    let length = reader.u32()?;
                    let content = content(reader.take(length as usize)?)?;
                    rows.push(Row { key, content });
                }
                Item::Commit { revision, at, rows }
            }
            GRANT => {
                let lease = LeaseId(reader.u64()?);
                Item::Grant { lease, ttl: Duration::from_millis(reader.u64()?) }
            }
            REVOKE => Item::Revoke { lease: LeaseId(reader.u64()?) },
            _ => return None,
        });
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_as_they_were() {
        let put = Content::Put {
            value: Bytes::from("v"),
            lease: Some(LeaseId(3)),
            created: Revision(1),
            version: 9,
        };
        let rows = vec![
            Row { key: Key::from("/a"), content: put },
            Row { key: Key::from("/b"), content: Content::Delete },
        ];
        let written = [
            Item::Commit { revision: Revision(4), at: Timestamp(-5), rows },
            Item::Grant { lease: LeaseId(3), ttl: Duration::from_secs(9) },
            Item::Revoke { lease: LeaseId(3) },
        ];
        let mut out = Vec::new();
        written.iter().for_each(|item| push_item(&mut out, item));
        assert_eq!(items(&out).as_deref(), Some(&written[..]));
        assert_eq!(items(&out[..out.len() - 1]), None);
    }

    #[test]
    fn row_keys_order_by_key_then_newest_first() {
        let keys = [
            row_key(b"/a", Revision(9)),
            row_key(b"/a", Revision(2)),
            behind(b"/a"),
            row_key(b"/a!", Revision(5)),
            row_key(b"/a/b", Revision(1)),
        ];
        assert!(keys.is_sorted());
        assert_eq!(split_row_key(&keys[1]), Some((&b"/a"[..], Revision(2))));
    }
}
