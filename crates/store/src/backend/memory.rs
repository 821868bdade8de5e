//! Everything in memory, without a thread: for tests and the simulator. Nothing survives.

use crate::{
    Batch, CommitError, Entry, Figures, Key, KeyRange, LeaseError, LeaseId, Page, ReadError,
    Record, Revision, Snapshot, Store, StoreError, Watch,
    judge::{Content, Head, Row, judge},
    lease::Leases,
    retention,
    watch::{CATCH_UP_RECORDS, Follower, History, Hub, record, startable},
};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use stdx::{BoxFuture, Clock, Timestamp};

/// A ledger that lives as long as the process.
pub struct Memory(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    hub: Hub,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Every version that is still readable, oldest first.
    rows: BTreeMap<Key, Vec<(Revision, Content)>>,
    log: BTreeMap<Revision, (Timestamp, Vec<Key>)>,
    leases: Leases,
    lease_last: u64,
    figures: Figures,
    history_bytes: u64,
}

impl Memory {
    pub fn new(clock: Arc<dyn Clock>) -> Memory {
        let hub = Hub::new(Revision::ZERO);
        Memory(Arc::new(Shared { clock, hub, state: Mutex::default() }))
    }
}

impl State {
    fn head(&self, key: &Key) -> Option<Head> {
        let (modified, content) = self.rows.get(key)?.last()?;
        match content {
            Content::Put { value, lease, created, version } => Some(Head {
                created: *created,
                modified: *modified,
                version: *version,
                lease: *lease,
                bytes: value.len(),
            }),
            Content::Delete => None,
        }
    }

    fn apply(&mut self, rows: Vec<Row>, now: Timestamp) -> Vec<Record> {
        let revision = self.figures.latest.next();
        let mut records = Vec::with_capacity(rows.len());
        let keys = rows.iter().map(|row| row.key.clone()).collect();
        for Row { key, content } in rows {
            let key_bytes = key.as_str().len();
            if let Some(head) = self.head(&key) {
                let bytes = (key_bytes + head.bytes) as u64;
                self.figures.live_bytes -= bytes;
                self.figures.live_keys -= 1;
                self.history_bytes += bytes;
            }
            if let Content::Put { value, .. } = &content {
                self.figures.live_bytes += (key_bytes + value.len()) as u64;
                self.figures.live_keys += 1;
            }
            records.push(record(revision, key.clone(), &content));
            self.rows.entry(key).or_default().push((revision, content));
        }
        self.log.insert(revision, (now, keys));
        self.figures.commits += 1;
        self.figures.writes += records.len() as u64;
        self.figures.latest = revision;
        records
    }

    fn compact(&mut self, before: Revision) {
        while let Some((revision, _)) = self.log.first_key_value()
            && *revision <= before
        {
            let revision = *revision;
            let (at, keys) = self.log.remove(&revision).expect("it was there");
            for key in &keys {
                let Some(versions) = self.rows.get_mut(key) else { continue };
                let superseded = versions.partition_point(|(version, _)| *version < revision);
                for (_, content) in versions.drain(..superseded) {
                    if let Content::Put { value, .. } = content {
                        let bytes = (key.as_str().len() + value.len()) as u64;
                        self.history_bytes = self.history_bytes.saturating_sub(bytes);
                    }
                }
                if matches!(versions.as_slice(), [(_, Content::Delete)]) && revision < before {
                    self.rows.remove(key);
                }
            }
            if revision == before {
                self.log.insert(revision, (at, keys));
                break;
            }
        }
        self.figures.oldest = self.figures.oldest.max(before);
    }

    fn readable(&self, at: Revision) -> Result<(), ReadError> {
        if at > self.figures.latest {
            return Err(ReadError::Future { latest: self.figures.latest });
        }
        if at < self.figures.oldest {
            return Err(ReadError::Compacted { oldest: self.figures.oldest });
        }
        Ok(())
    }

    fn leased(&self, lease: LeaseId) -> Vec<Key> {
        let on = |key: &&Key| self.head(key).is_some_and(|head| head.lease == Some(lease));
        self.rows.keys().filter(on).cloned().collect()
    }
}

impl Shared {
    /// The state, after everything that time has made due.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        for lease in state.leases.expired(now) {
            self.end(&mut state, lease, now);
        }
        let age = retention::age_allowed(state.history_bytes);
        let old = state.log.iter().take_while(|(_, (at, _))| now.since(*at) > age);
        if let Some(before) = old.last().map(|(revision, _)| *revision) {
            state.compact(before);
        }
        state
    }

    fn end(&self, state: &mut State, lease: LeaseId, now: Timestamp) {
        state.leases.remove(lease);
        for key in state.leased(lease) {
            let records = state.apply(vec![Row { key, content: Content::Delete }], now);
            self.hub.publish(records);
        }
    }

    fn commit(&self, batch: Batch) -> Result<Revision, CommitError> {
        batch.validate()?;
        let mut state = self.state();
        let revision = state.figures.latest.next();
        let look = |key: &Key| Ok::<_, CommitError>(state.head(key));
        let rows = judge(batch, revision, look, |lease| state.leases.exists(lease))?;
        if rows.is_empty() {
            return Ok(state.figures.latest);
        }
        let records = state.apply(rows, self.clock.now());
        self.hub.publish(records);
        Ok(revision)
    }
}

impl History for Shared {
    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn records_after(&self, after: Revision) -> Result<Vec<Record>, ReadError> {
        let state = self.state();
        startable(after, state.figures.oldest, state.figures.latest)?;
        let mut records = Vec::new();
        for (revision, (_, keys)) in state.log.range(after.next()..) {
            for key in keys {
                let versions = state.rows.get(key).map(Vec::as_slice).unwrap_or_default();
                let index = versions.binary_search_by_key(revision, |(version, _)| *version);
                // A deletion leaves with the compaction that passes it; the log still tells it.
                let content = index.map_or(&Content::Delete, |index| &versions[index].1);
                records.push(record(*revision, key.clone(), content));
            }
            if records.len() >= CATCH_UP_RECORDS {
                break;
            }
        }
        Ok(records)
    }

    fn tick(&self) -> Option<Duration> {
        self.state().leases.next_end(self.clock.now())
    }
}

struct View {
    shared: Arc<Shared>,
    at: Revision,
}

impl View {
    fn entry(&self, key: &Key, versions: &[(Revision, Content)]) -> Option<Entry> {
        let count = versions.partition_point(|(revision, _)| *revision <= self.at);
        let (modified, content) = versions.get(count.checked_sub(1)?)?;
        match content {
            Content::Put { value, created, version, lease } => Some(Entry {
                key: key.clone(),
                value: value.clone(),
                created: *created,
                modified: *modified,
                version: *version,
                lease: *lease,
            }),
            Content::Delete => None,
        }
    }
}

impl Snapshot for View {
    fn revision(&self) -> Revision {
        self.at
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        let state = self.shared.state();
        state.readable(self.at)?;
        Ok(state.rows.get(key).and_then(|versions| self.entry(key, versions)))
    }

    fn range(
        &self,
        range: &KeyRange,
        limit: usize,
        after: Option<&Key>,
    ) -> Result<Page, ReadError> {
        let state = self.shared.state();
        state.readable(self.at)?;
        let from = match after {
            Some(after) if *after >= range.from => Bound::Excluded(after),
            Some(_) | None => Bound::Included(&range.from),
        };
        let mut page = Page::default();
        let rows = state.rows.range::<Key, _>((from, Bound::Unbounded));
        for (key, versions) in rows.take_while(|(key, _)| **key < range.to) {
            let Some(entry) = self.entry(key, versions) else { continue };
            if page.entries.len() >= limit {
                page.more = true;
                break;
            }
            page.entries.push(entry);
        }
        Ok(page)
    }

    fn count(&self, range: &KeyRange) -> Result<u64, ReadError> {
        Ok(self.range(range, usize::MAX, None)?.entries.len() as u64)
    }
}

/// The answer is known at once: nothing here waits.
fn ready<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Store for Memory {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision, CommitError>> {
        Box::pin(async move { self.0.commit(batch) })
    }

    fn latest(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        ready(Ok(self.0.state().figures.latest))
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        let at = self.0.state().figures.latest;
        let view: Arc<dyn Snapshot> = Arc::new(View { shared: Arc::clone(&self.0), at });
        ready(Ok(view))
    }

    fn snapshot_at(&self, at: Revision) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, ReadError>> {
        let readable = self.0.state().readable(at);
        let view: Arc<dyn Snapshot> = Arc::new(View { shared: Arc::clone(&self.0), at });
        ready(readable.map(|()| view))
    }

    fn watch(&self, range: KeyRange, after: Revision) -> Result<Box<dyn Watch>, ReadError> {
        let figures = self.0.state().figures;
        startable(after, figures.oldest, figures.latest)?;
        Ok(Box::new(Follower::new(Arc::clone(&self.0), range, after)))
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<(), ReadError>> {
        let mut state = self.0.state();
        let latest = state.figures.latest;
        if before > latest {
            return ready(Err(ReadError::Future { latest }));
        }
        state.compact(before);
        ready(Ok(()))
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        let mut state = self.0.state();
        state.lease_last += 1;
        let lease = LeaseId(state.lease_last);
        state.leases.grant(lease, ttl, self.0.clock.now());
        ready(Ok(lease))
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        let kept = self.0.state().leases.keep_alive(lease, self.0.clock.now());
        ready(if kept { Ok(()) } else { Err(LeaseError::Gone { lease }) })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        let mut state = self.0.state();
        if !state.leases.exists(lease) {
            return ready(Err(LeaseError::Gone { lease }));
        }
        self.0.end(&mut state, lease, self.0.clock.now());
        ready(Ok(()))
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<(LeaseId, Duration)>, StoreError>> {
        ready(Ok(self.0.state().leases.all()))
    }

    fn figures(&self) -> Figures {
        self.0.state().figures
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.hub.close();
    }
}
