//! A snapshot into a stream.

use super::{
    BackupError, MAGIC, VERSION,
    digest::Summed,
    part::{END, File, HEAD, Head, Part, head_bytes, part_bytes},
};
use crate::{Key, KeyRange, LeaseId, Snapshot};
use std::{
    io::{self, Write},
    time::Duration,
};

/// Entries read at once: bounds what is held in memory.
const PAGE: usize = 500;

/// zstd's own default: half the time of the next better ones for nearly their size.
const LEVEL: i32 = 3;

/// What went into a backup, or came out of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub entries: u64,
    pub files: u64,
    /// Of keys and values.
    pub bytes: u64,
}

impl Counts {
    /// Takes one more part in.
    pub fn count(&mut self, part: &Part) {
        match part {
            Part::Entry(entry) => {
                self.entries += 1;
                self.bytes += (entry.key.as_str().len() + entry.value.len()) as u64;
            }
            Part::File(_) => self.files += 1,
            Part::Lease(..) => {}
        }
    }
}

/// Writes everything that `snapshot` shows. Blocks for as long as `out` takes; the snapshot's
/// history must reach as far back until the end, which the retention of history grants for at
/// least [`crate::HISTORY_AGE_MIN`].
pub fn save(
    snapshot: &dyn Snapshot,
    leases: &[(LeaseId, Duration)],
    files: Vec<File>,
    head: &Head,
    out: impl Write,
) -> Result<Counts, BackupError> {
    let attempt = |source| BackupError::Io { attempted: "write the backup", source };
    let mut writer = Writer::begin(out, head).map_err(attempt)?;
    for file in files {
        writer.part(&Part::File(file)).map_err(attempt)?;
    }
    for (lease, ttl) in leases {
        writer.part(&Part::Lease(*lease, *ttl)).map_err(attempt)?;
    }
    let mut after: Option<Key> = None;
    loop {
        let page = snapshot.range(&KeyRange::all(), PAGE, after.as_ref())?;
        after = page.entries.last().map(|entry| entry.key.clone());
        for entry in page.entries {
            writer.part(&Part::Entry(entry)).map_err(attempt)?;
        }
        if !page.more {
            break;
        }
    }
    writer.end().map_err(attempt)
}

struct Writer<W: Write> {
    out: zstd::Encoder<'static, Summed<W>>,
    counts: Counts,
}

impl<W: Write> Writer<W> {
    fn begin(out: W, head: &Head) -> io::Result<Writer<W>> {
        let mut out = Summed::new(out);
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        let out = zstd::Encoder::new(out, LEVEL)?;
        let mut writer = Writer { out, counts: Counts::default() };
        writer.push(HEAD, &head_bytes(head))?;
        Ok(writer)
    }

    fn part(&mut self, part: &Part) -> io::Result<()> {
        self.counts.count(part);
        let (tag, payload) = part_bytes(part);
        self.push(tag, &payload)
    }

    fn push(&mut self, tag: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).expect("parts are bounded");
        for bytes in [&[tag][..], &length.to_le_bytes(), payload] {
            self.out.write_all(bytes)?;
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<Counts> {
        self.push(END, &[])?;
        self.out.finish()?.end()?;
        Ok(self.counts)
    }
}
