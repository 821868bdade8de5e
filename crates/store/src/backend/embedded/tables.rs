//! What the pages hold, as redb's tables: every readable version of every key, which revision
//! touched which keys, and leases. Applying an item is deterministic, so that the log can be
//! replayed.

use super::codec::{self, Item, Reader, RowHead};
use crate::{
    Entry, Key, KeyRange, LeaseId, Page, ReadError, Record, Revision, StoreError,
    judge::{Content, Head, Row},
    retention,
    watch::{CATCH_UP_RECORDS, record},
};
use bytes::Bytes;
use redb::{
    AccessGuard, ReadTransaction, ReadableTable, StorageError, Table, TableDefinition, TableError,
    WriteTransaction,
};
use std::time::Duration;
use stdx::Timestamp;

/// `row_key` to content.
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// Revision to time and keys.
const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");
/// Lease to its time in milliseconds.
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
/// Lease and key, for the keys to delete with it.
const LEASED: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("leased");
const STATE: TableDefinition<'_, (), &[u8]> = TableDefinition::new("state");

/// Versions of one key that a scan steps over before it searches for the next key instead.
const STEPS_MAX: usize = 8;

/// Revisions that one transaction of a compaction forgets: few enough that commits in between
/// hardly wait.
const COMPACT_STEP: usize = 256;

/// The ledger's figures, kept in the same transaction as what they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) latest: Revision,
    pub(super) oldest: Revision,
    pub(super) generation: u64,
    pub(super) lease_last: u64,
    pub(super) live_bytes: u64,
    pub(super) live_keys: u64,
    pub(super) history_bytes: u64,
}

impl State {
    fn write(&self) -> Vec<u8> {
        let numbers = [
            self.latest.0,
            self.oldest.0,
            self.generation,
            self.lease_last,
            self.live_bytes,
            self.live_keys,
            self.history_bytes,
        ];
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn read(bytes: &[u8]) -> Option<State> {
        let mut reader = Reader(bytes);
        Some(State {
            latest: Revision(reader.u64()?),
            oldest: Revision(reader.u64()?),
            generation: reader.u64()?,
            lease_last: reader.u64()?,
            live_bytes: reader.u64()?,
            live_keys: reader.u64()?,
            history_bytes: reader.u64()?,
        })
    }
}

/// Either redb's failure, or bytes in a table that nobody wrote.
fn damaged(what: &str) -> StorageError {
    StorageError::Corrupted(format!("a {what} cannot be read"))
}

/// The tables are made when the ledger is, so a missing one is damage.
fn storage(error: TableError) -> StorageError {
    match error {
        TableError::Storage(error) => error,
        other => StorageError::Corrupted(other.to_string()),
    }
}

fn state_of(table: &impl ReadableTable<(), &'static [u8]>) -> Result<State, StorageError> {
    let bytes = table.get(())?.ok_or_else(|| damaged("state"))?;
    State::read(bytes.value()).ok_or_else(|| damaged("state"))
}

/// A row's bytes in redb's cache.
type StoredRow<'r> = AccessGuard<'r, &'static [u8]>;

/// The newest version of a key that is not after `at`.
fn version_at<'r>(
    rows: &'r impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
    at: Revision,
) -> Result<Option<(Revision, StoredRow<'r>)>, StorageError> {
    let (from, to) = (codec::row_key(key, at), codec::behind(key));
    let Some(found) = rows.range(&from[..]..&to[..])?.next() else { return Ok(None) };
    let (row_key, row) = found?;
    let (_, revision) = codec::split_row_key(row_key.value()).ok_or_else(|| damaged("row key"))?;
    Ok(Some((revision, row)))
}

fn head_of(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Head>, StorageError> {
    let Some((modified, row)) = version_at(rows, key, Revision(u64::MAX))? else {
        return Ok(None);
    };
    let row = row.value();
    let head = codec::row_head(row).ok_or_else(|| damaged("row"))?;
    Ok(head.map(|RowHead { created, version, lease }| Head {
        created,
        modified,
        version,
        lease,
        bytes: row.len() - codec::ROW_HEAD,
    }))
}

/// All tables of one write transaction.
pub(super) struct Tables<'t> {
    rows: Table<'t, &'static [u8], &'static [u8]>,
    history: Table<'t, u64, &'static [u8]>,
    leases: Table<'t, u64, u64>,
    leased: Table<'t, (u64, &'static str), ()>,
    figures: Table<'t, (), &'static [u8]>,
    pub(super) state: State,
}

impl<'t> Tables<'t> {
    pub(super) fn create(transaction: &'t WriteTransaction) -> Result<(), StorageError> {
        let mut figures = transaction.open_table(STATE).map_err(storage)?;
        let state = State { generation: 1, ..State::default() };
        figures.insert((), &state.write()[..])?;
        drop(figures);
        Tables::open(transaction).map(drop)
    }

    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Tables<'t>, StorageError> {
        let figures = transaction.open_table(STATE).map_err(storage)?;
        let state = state_of(&figures)?;
        Ok(Tables {
            rows: transaction.open_table(ROWS).map_err(storage)?,
            history: transaction.open_table(HISTORY).map_err(storage)?,
            leases: transaction.open_table(LEASES).map_err(storage)?,
            leased: transaction.open_table(LEASED).map_err(storage)?,
            figures,
            state,
        })
    }

    /// To be called last: what is not saved is not counted.
    pub(super) fn save(mut self) -> Result<(), StorageError> {
        self.figures.insert((), &self.state.write()[..])?;
        Ok(())
    }

    pub(super) fn head(&self, key: &Key) -> Result<Option<Head>, StorageError> {
        head_of(&self.rows, key.as_str().as_bytes())
    }

    pub(super) fn apply(&mut self, item: &Item) -> Result<(), StorageError> {
        match item {
            Item::Commit { revision, at, rows } => self.apply_commit(*revision, *at, rows),
            Item::Grant { lease, ttl } => {
                self.leases.insert(lease.0, codec::millis(*ttl))?;
                self.state.lease_last = self.state.lease_last.max(lease.0);
                Ok(())
            }
            Item::Revoke { lease } => self.leases.remove(lease.0).map(drop),
        }
    }

    fn apply_commit(
        &mut self,
        revision: Revision,
        at: Timestamp,
        rows: &[Row],
    ) -> Result<(), StorageError> {
        if revision != self.state.latest.next() {
            let latest = self.state.latest;
            return Err(StorageError::Corrupted(format!("revision {revision} follows {latest}")));
        }
        let mut bytes = Vec::new();
        for row in rows {
            let key = row.key.as_str();
            let previous = self.head(&row.key)?;
            if let Some(head) = previous {
                self.state.live_bytes -= (key.len() + head.bytes) as u64;
                self.state.live_keys -= 1;
                self.state.history_bytes += (key.len() + head.bytes) as u64;
            }
            let lease = match &row.content {
                Content::Put { value, lease, .. } => {
                    self.state.live_bytes += (key.len() + value.len()) as u64;
                    self.state.live_keys += 1;
                    *lease
                }
                Content::Delete => None,
            };
            let lease_before = previous.and_then(|head| head.lease);
            if lease != lease_before {
                if let Some(before) = lease_before {
                    self.leased.remove((before.0, key))?;
                }
                if let Some(lease) = lease {
                    self.leased.insert((lease.0, key), ())?;
                }
            }
            bytes.clear();
            codec::push_content(&mut bytes, &row.content);
            self.rows.insert(&codec::row_key(key.as_bytes(), revision)[..], &bytes[..])?;
        }
        self.history.insert(revision.0, &codec::history(at, rows)[..])?;
        self.state.latest = revision;
        Ok(())
    }

    pub(super) fn import_lease(
        &mut self,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<(), StorageError> {
        self.apply(&Item::Grant { lease, ttl })
    }

    /// Takes in an entry of another ledger: its newest version, and nothing of its past.
    pub(super) fn import(&mut self, entry: &Entry) -> Result<(), StorageError> {
        let Entry { key, value, created, modified, version, lease } = entry;
        let content = Content::Put {
            value: value.clone(),
            lease: *lease,
            created: *created,
            version: *version,
        };
        let mut bytes = Vec::new();
        codec::push_content(&mut bytes, &content);
        let row_key = codec::row_key(key.as_str().as_bytes(), *modified);
        self.rows.insert(&row_key[..], &bytes[..])?;
        if let Some(lease) = lease {
            self.leased.insert((lease.0, key.as_str()), ())?;
        }
        self.state.live_bytes += (key.as_str().len() + value.len()) as u64;
        self.state.live_keys += 1;
        Ok(())
    }

    /// Ends an import: history begins with the commit that wrote `last`.
    pub(super) fn begin_history(
        &mut self,
        last: &Entry,
        at: Timestamp,
    ) -> Result<(), StorageError> {
        self.import(last)?;
        let content = Content::Put {
            value: last.value.clone(),
            lease: None,
            created: last.created,
            version: last.version,
        };
        let row = Row { key: last.key.clone(), content };
        self.history.insert(last.modified.0, &codec::history(at, &[row])[..])?;
        (self.state.latest, self.state.oldest) = (last.modified, last.modified);
        Ok(())
    }

    pub(super) fn leased(&self, lease: LeaseId) -> Result<Vec<Key>, StorageError> {
        let keys = self.leased.range((lease.0, "")..(lease.0 + 1, ""))?;
        keys.map(|found| found.map(|(key, _)| Key::from(key.value().1))).collect()
    }

    pub(super) fn leases(&self) -> Result<Vec<(LeaseId, Duration)>, StorageError> {
        let leases = self.leases.iter()?;
        leases
            .map(|found| {
                let (lease, ttl) = found?;
                Ok((LeaseId(lease.value()), Duration::from_millis(ttl.value())))
            })
            .collect()
    }

    /// The newest revision that is older than history may be, unless it is the only one.
    pub(super) fn outdated(&self, now: Timestamp) -> Result<Option<Revision>, StorageError> {
        let age = retention::age_allowed(self.state.history_bytes);
        let mut outdated = None;
        // One more than a step forgets, so that the step after this one is due at once.
        for found in self.history.iter()?.take(COMPACT_STEP + 1) {
            let (revision, bytes) = found?;
            let at = codec::history_time(bytes.value()).ok_or_else(|| damaged("revision"))?;
            // What says that it is from the future was written before the clock was set back: its age is unknown, and
            // keeping it until then might fill the disk.
            if at <= now && now.since(at) <= age {
                break;
            }
            outdated = Some(Revision(revision.value()));
        }
        Ok(outdated.filter(|revision| *revision > self.state.oldest))
    }

    /// Forgets history up to `before`, or a part of it. True once all is done.
    pub(super) fn compact(&mut self, before: Revision) -> Result<bool, StorageError> {
        let before = before.min(self.state.latest);
        if before <= self.state.oldest {
            return Ok(true);
        }
        let mut step: Vec<(Revision, Vec<(Key, bool)>)> = Vec::new();
        for found in self.history.range(..=before.0)?.take(COMPACT_STEP) {
            let (revision, bytes) = found?;
            let keys = codec::history_keys(bytes.value()).ok_or_else(|| damaged("revision"))?;
            step.push((Revision(revision.value()), keys));
        }
        let end = step.last().map_or(before, |(revision, _)| *revision);
        for (revision, keys) in &step {
            for (key, put) in keys {
                self.forget_before(key, *revision)?;
                if !put && *revision < end {
                    let row_key = codec::row_key(key.as_str().as_bytes(), *revision);
                    self.rows.remove(&row_key[..])?;
                }
            }
            // The last stays, so that a watch may still start right before it.
            if *revision < end {
                self.history.remove(revision.0)?;
            }
        }
        let done = end >= before;
        self.state.oldest = end;
        Ok(done)
    }

    /// Removes the versions of a key that one at `revision` superseded.
    fn forget_before(&mut self, key: &Key, revision: Revision) -> Result<(), StorageError> {
        let Some(before) = revision.0.checked_sub(1) else { return Ok(()) };
        let key = key.as_str().as_bytes();
        loop {
            let superseded = match version_at(&self.rows, key, Revision(before))? {
                Some((revision, row)) => {
                    let row = row.value();
                    let head = codec::row_head(row).ok_or_else(|| damaged("row"))?;
                    let bytes = head.map_or(0, |_| key.len() + row.len() - codec::ROW_HEAD);
                    (revision, bytes as u64)
                }
                None => break,
            };
            let (revision, bytes) = superseded;
            self.state.history_bytes = self.state.history_bytes.saturating_sub(bytes);
            self.rows.remove(&codec::row_key(key, revision)[..])?;
        }
        Ok(())
    }
}

/// What one read transaction shows.
pub(super) struct Reading {
    transaction: ReadTransaction,
    pub(super) state: State,
}

impl Reading {
    pub(super) fn begin(transaction: ReadTransaction) -> Result<Reading, StorageError> {
        let state = state_of(&transaction.open_table(STATE).map_err(storage)?)?;
        Ok(Reading { transaction, state })
    }

    fn rows(&self) -> Result<redb::ReadOnlyTable<&'static [u8], &'static [u8]>, StorageError> {
        self.transaction.open_table(ROWS).map_err(storage)
    }

    pub(super) fn get(&self, key: &Key, at: Revision) -> Result<Option<Entry>, StorageError> {
        let rows = self.rows()?;
        let Some((modified, row)) = version_at(&rows, key.as_str().as_bytes(), at)? else {
            return Ok(None);
        };
        entry(key.clone(), modified, row.value())
    }

    pub(super) fn range(
        &self,
        range: &KeyRange,
        limit: usize,
        after: Option<&Key>,
        at: Revision,
    ) -> Result<Page, StorageError> {
        let mut page = Page::default();
        self.scan(range, after, at, |key, modified, row| {
            if page.entries.len() >= limit {
                page.more = true;
                return Ok(false);
            }
            let key = codec::key(key).ok_or_else(|| damaged("key"))?;
            page.entries.extend(entry(key, modified, row)?);
            Ok(true)
        })?;
        Ok(page)
    }

    pub(super) fn count(&self, range: &KeyRange, at: Revision) -> Result<u64, StorageError> {
        let mut count = 0;
        self.scan(range, None, at, |_, _, _| {
            count += 1;
            Ok(true)
        })?;
        Ok(count)
    }

    /// Visits each key's version at `at` that is not a deletion, until `visit` has enough.
    fn scan(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        at: Revision,
        mut visit: impl FnMut(&[u8], Revision, &[u8]) -> Result<bool, StorageError>,
    ) -> Result<(), StorageError> {
        let rows = self.rows()?;
        let to = range.to.as_str().as_bytes();
        let mut from = range.from.as_str().as_bytes().to_vec();
        if let Some(after) = after {
            from = from.max(codec::behind(after.as_str().as_bytes()));
        }
        'search: while &from[..] < to {
            let mut done: Vec<u8> = Vec::new();
            let mut steps = 0;
            for found in rows.range(&from[..]..to)? {
                let (row_key, row) = found?;
                let (key, revision) =
                    codec::split_row_key(row_key.value()).ok_or_else(|| damaged("row key"))?;
                if key == done {
                    steps += 1;
                    if steps > STEPS_MAX {
                        from = codec::behind(key);
                        continue 'search;
                    }
                } else if revision > at {
                    steps += 1;
                    if steps > STEPS_MAX {
                        from = codec::row_key(key, at);
                        continue 'search;
                    }
                } else {
                    steps = 0;
                    done.clear();
                    done.extend(key);
                    let live = codec::row_head(row.value()).ok_or_else(|| damaged("row"))?;
                    if live.is_some() && !visit(key, revision, row.value())? {
                        return Ok(());
                    }
                }
            }
            return Ok(());
        }
        Ok(())
    }

    pub(super) fn records_after(&self, after: Revision) -> Result<Vec<Record>, StorageError> {
        let history = self.transaction.open_table(HISTORY).map_err(storage)?;
        let rows = self.rows()?;
        let mut records = Vec::new();
        for found in history.range(after.next().0..)? {
            let (revision, bytes) = found?;
            let revision = Revision(revision.value());
            let keys = codec::history_keys(bytes.value()).ok_or_else(|| damaged("revision"))?;
            for (key, put) in keys {
                let content = if put {
                    let row_key = codec::row_key(key.as_str().as_bytes(), revision);
                    let row = rows.get(&row_key[..])?.ok_or_else(|| damaged("revision's row"))?;
                    codec::content(row.value()).ok_or_else(|| damaged("row"))?
                } else {
                    Content::Delete
                };
                records.push(record(revision, key, &content));
            }
            if records.len() >= CATCH_UP_RECORDS {
                break;
            }
        }
        Ok(records)
    }
}

fn entry(key: Key, modified: Revision, row: &[u8]) -> Result<Option<Entry>, StorageError> {
    let head = codec::row_head(row).ok_or_else(|| damaged("row"))?;
    Ok(head.map(|RowHead { created, version, lease }| Entry {
        key,
        value: Bytes::copy_from_slice(&row[codec::ROW_HEAD..]),
        created,
        modified,
        version,
        lease,
    }))
}

/// Whether history reaches that far, as of one transaction.
pub(super) fn readable(state: &State, at: Revision) -> Result<(), ReadError> {
    if at > state.latest {
        return Err(ReadError::Future { latest: state.latest });
    }
    if at < state.oldest {
        return Err(ReadError::Compacted { oldest: state.oldest });
    }
    Ok(())
}

/// redb's errors in our words. `damage` is what a checksum found, which redb passes on once only.
pub(super) fn store_error(
    attempted: &str,
    path: &std::path::Path,
    damage: Option<String>,
    error: impl Into<redb::Error>,
) -> StoreError {
    let path = path.to_owned();
    if let Some(detail) = damage {
        return StoreError::Corrupt { path, detail };
    }
    match error.into() {
        redb::Error::Corrupted(detail) => StoreError::Corrupt { path, detail },
        redb::Error::Io(source) if source.kind() == std::io::ErrorKind::StorageFull => {
            StoreError::Full { attempted: attempted.to_owned(), path }
        }
        redb::Error::Io(source) => {
            StoreError::io(format!("{attempted} in {}", path.display()), source)
        }
        other => StoreError::io(
            format!("{attempted} in {}", path.display()),
            std::io::Error::other(other.to_string()),
        ),
    }
}
