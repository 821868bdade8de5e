//! Reads all of a ledger, and compares its parts with each other.

use super::{Embedded, History, Shared};
use crate::{Key, KeyRange, ReadError, Revision, Snapshot, StoreError};
use std::sync::Arc;

/// Entries read at once.
const PAGE: usize = 1000;

/// What was read, and found to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Examined {
    pub keys: u64,
    pub revisions: u64,
    pub latest: Revision,
}

impl Embedded {
    /// Every row that can be read and every revision of history, each page with its checksum; and whether they add
    /// up to the figures. Nothing else may write meanwhile.
    pub fn examine(&self) -> Result<Examined, StoreError> {
        let shared = &self.shared;
        let figures = shared.state();
        let snapshot = self.view(figures.latest);
        let (keys, bytes) = rows(&*snapshot).map_err(|error| store(shared, error))?;
        let found = format!("{keys} keys of {bytes} bytes");
        let counted = format!("{} keys of {} bytes", figures.live_keys, figures.live_bytes);
        if found != counted {
            return Err(corrupt(shared, format!("it holds {found}, and counts {counted}")));
        }
        let mut at = Revision(figures.oldest.0.saturating_sub(1));
        let mut revisions = 0;
        while at < figures.latest {
            let records = shared.records_after(at).map_err(|error| store(shared, error))?;
            for record in &records {
                if record.revision > at && record.revision != at.next() {
                    let gap = format!("revision {} follows {at} in its history", record.revision);
                    return Err(corrupt(shared, gap));
                }
                revisions += u64::from(record.revision > at);
                at = record.revision;
            }
            if records.is_empty() {
                return Err(corrupt(shared, format!("its history ends at {at}")));
            }
        }
        Ok(Examined { keys, revisions, latest: figures.latest })
    }
}

fn rows(snapshot: &dyn Snapshot) -> Result<(u64, u64), ReadError> {
    let (mut keys, mut bytes, mut after) = (0, 0, None::<Key>);
    loop {
        let page = snapshot.range(&KeyRange::all(), PAGE, after.as_ref())?;
        for entry in &page.entries {
            keys += 1;
            bytes += (entry.key.as_str().len() + entry.value.len()) as u64;
        }
        after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            return Ok((keys, bytes));
        }
    }
}

fn corrupt(shared: &Arc<Shared>, detail: String) -> StoreError {
    StoreError::Corrupt { path: shared.path().to_owned(), detail }
}

fn store(shared: &Arc<Shared>, error: ReadError) -> StoreError {
    match error {
        ReadError::Store(error) => error,
        other @ (ReadError::Compacted { .. } | ReadError::Future { .. }) => {
            corrupt(shared, other.to_string())
        }
    }
}
