//! The embedded store: a write-ahead log in front of redb.
//!
//! A commit is durable once the log is synced, and visible right after. redb holds all readable
//! versions; a snapshot is a revision, not a pinned page tree, so nobody who reads keeps the file
//! from shrinking. docs/decisions/0002-embedded-store.md says why.

mod ballast;
mod codec;
mod directory;
mod examine;
mod header;
mod import;
mod log;
mod medium;
mod pages;
mod queue;
mod tables;
mod writer;

pub use directory::Hold;
pub use examine::Examined;
pub use medium::Medium;

use crate::{
    Batch, CommitError, Entry, Figures, Key, KeyRange, LeaseError, LeaseId, Page, ReadError,
    Record, Revision, Snapshot, Store, StoreError, Watch,
    lease::Leases,
    watch::{Follower, History, Hub, startable},
};
use codec::Item;
use log::Log;
use pages::Pages;
use queue::{Queue, Request};
use redb::{Database, ReadableDatabase};
use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use stdx::{BoxFuture, Clock, Entropy, SystemEntropy};
use tables::{Reading, State, Tables, readable, store_error};
use tokio::sync::oneshot;
use writer::Writer;

/// redb's own: half for pages that non-durable commits have written and the disk has not, half
/// for reading. Beyond it the kernel's page cache serves.
const CACHE_BYTES: usize = 16 << 20;

/// A ledger in a directory.
pub struct Embedded {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    lock: Option<File>,
    walked: bool,
}

struct Shared {
    clock: Arc<dyn Clock>,
    hub: Hub,
    queue: Queue,
    pages: Pages,
    database: RwLock<Option<Database>>,
    leases: Mutex<Leases>,
    state: Mutex<State>,
    commits: AtomicU64,
    writes: AtomicU64,
    log_syncs: Arc<AtomicU64>,
    failure: OnceLock<StoreError>,
}

impl Embedded {
    /// Opens the ledger in `dir`, or makes one. Fails at once if another process holds it.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Embedded, StoreError> {
        directory::open(dir, clock)
    }

    /// Makes an empty ledger on two empty media.
    pub fn create(pages: Arc<dyn Medium>, log: Arc<dyn Medium>) -> Result<(), StoreError> {
        let mut id = [0; 8];
        SystemEntropy::default().fill(&mut id);
        let id = u64::from_le_bytes(id);
        Log::create(log, id)?;
        let pages = Pages::create(pages, id)?;
        let path = pages.medium().path().to_owned();
        let error = |error: redb::Error| store_error("create the ledger", &path, None, error);
        let (database, _) = database(&pages)?;
        let mut transaction = database.begin_write().map_err(|e| error(e.into()))?;
        Tables::create(&transaction).map_err(|e| error(e.into()))?;
        transaction.set_quick_repair(true);
        transaction.commit().map_err(|e| error(e.into()))
    }

    /// Opens a ledger on its two media.
    pub fn on(
        pages: Arc<dyn Medium>,
        log: Arc<dyn Medium>,
        clock: Arc<dyn Clock>,
    ) -> Result<Embedded, StoreError> {
        let (pages, id) = Pages::open(pages)?;
        let path = pages.medium().path().to_owned();
        let error = |error: redb::Error| store_error("open", &path, pages.damage(), error);
        let moving = pages.moving().map_err(|e| error(e.into()))?;
        // redb's own checksums decide in this case: it expects pages that never reached the disk.
        pages.set_strict(!moving);
        let (database, walked) = database(&pages)?;
        pages.set_strict(true);

        let transaction = database.begin_read().map_err(|e| error(e.into()))?;
        let state = Reading::begin(transaction).map_err(|e| error(e.into()))?.state;
        let (log, payloads) = Log::open(log, id, state.generation)?;
        let state = replay(&database, &payloads).map_err(error)?;
        let mut leases = Leases::default();
        let now = clock.now();
        let transaction = database.begin_write().map_err(|e| error(e.into()))?;
        let tables = Tables::open(&transaction).map_err(|e| error(e.into()))?;
        for (lease, ttl) in tables.leases().map_err(|e| error(e.into()))? {
            leases.grant(lease, ttl, now);
        }
        drop(tables);
        transaction.abort().map_err(|e| error(e.into()))?;

        let shared = Arc::new(Shared {
            clock,
            hub: Hub::new(state.latest),
            queue: Queue::new(),
            pages: pages.clone(),
            database: RwLock::new(Some(database)),
            leases: Mutex::new(leases),
            state: Mutex::new(state),
            commits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            log_syncs: log.syncs(),
            failure: OnceLock::new(),
        });
        let mut writer = Writer::new(Arc::clone(&shared), log);
        if !payloads.is_empty() || moving {
            writer.checkpoint()?;
        }
        if moving {
            pages.set_moving(false).map_err(|e| error(e.into()))?;
        }
        let thread = std::thread::Builder::new().name("ledger".into());
        let thread = thread.spawn(move || writer.run());
        let thread =
            thread.map_err(|source| StoreError::io("start the ledger's writer", source))?;
        Ok(Embedded { shared, writer: Some(thread), lock: None, walked })
    }

    /// Whether opening had to walk the whole file. Only after a crash while pages were moved.
    pub fn walked(&self) -> bool {
        self.walked
    }
}

/// Opens redb, or makes its file if the medium holds none. Also says whether redb repaired it.
fn database(pages: &Pages) -> Result<(Database, bool), StoreError> {
    let path = pages.medium().path();
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let walked = Arc::new(AtomicBool::new(false));
    let walks = Arc::clone(&walked);
    builder.set_repair_callback(move |_| {
        if !walks.swap(true, Ordering::Relaxed) {
            tracing::warn!("walking the whole ledger: the last process ended while moving pages");
        }
    });
    // Not every damaged header is an error to redb: some break its assertions.
    let opened = catch_unwind(AssertUnwindSafe(|| builder.create_with_backend(pages.clone())));
    match opened {
        Ok(Ok(database)) => Ok((database, walked.load(Ordering::Relaxed))),
        Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Io(error))))
            if error.kind() == std::io::ErrorKind::UnexpectedEof =>
        {
            let detail = "it is shorter than its content".to_owned();
            Err(StoreError::Corrupt { path: path.to_owned(), detail })
        }
        Ok(Err(error)) => Err(store_error("open", path, pages.damage(), error)),
        Err(_panic) => {
            let detail = "its page header makes no sense".to_owned();
            Err(StoreError::Corrupt { path: path.to_owned(), detail })
        }
    }
}

/// Repeats what the log holds beyond the pages. redb makes its pages durable too when it is closed
/// without a checkpoint, so the log may begin with what they hold.
fn replay(database: &Database, payloads: &[Vec<u8>]) -> Result<State, redb::Error> {
    let mut transaction = database.begin_write()?;
    let mut tables = Tables::open(&transaction)?;
    for payload in payloads {
        let unreadable = || redb::StorageError::Corrupted("a log frame cannot be read".into());
        for item in codec::items(payload).ok_or_else(unreadable)? {
            let held = tables.state.latest;
            if !matches!(item, Item::Commit { revision, .. } if revision <= held) {
                tables.apply(&item)?;
            }
        }
    }
    let state = tables.state;
    tables.save()?;
    transaction.set_durability(redb::Durability::None)?;
    transaction.commit()?;
    Ok(state)
}

impl Shared {
    fn path(&self) -> &Path {
        self.pages.medium().path()
    }

    fn error(&self, attempted: &str, error: impl Into<redb::Error>) -> StoreError {
        store_error(attempted, self.path(), self.pages.damage(), error)
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> Option<StoreError> {
        self.failure.get().cloned()
    }

    fn fail(&self, error: StoreError) {
        self.failure.get_or_init(|| error);
    }

    fn count(&self, commits: u64, writes: u64) {
        self.commits.fetch_add(commits, Ordering::Relaxed);
        self.writes.fetch_add(writes, Ordering::Relaxed);
    }

    fn pages_occupied(&self) -> u64 {
        self.pages.medium().occupied().unwrap_or_default()
    }

    fn database(&self) -> Result<Opened<'_>, StoreError> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            return Err(StoreError::Closed);
        }
        Ok(Opened(guard))
    }

    fn compact_database(&self) -> Result<(), StoreError> {
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_mut().ok_or(StoreError::Closed)?;
        database.compact().map(drop).map_err(|error| self.error("move pages together", error))
    }

    fn close_database(&self) {
        drop(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Runs `look` on what is visible now, which is at least what was published.
    fn read<T>(
        &self,
        attempted: &str,
        look: impl FnOnce(&Reading) -> Result<T, ReadFailure>,
    ) -> Result<T, ReadError> {
        let database = self.database()?;
        let begun = database.begin_read().map_err(|error| self.error(attempted, error))?;
        let reading = Reading::begin(begun).map_err(|error| self.error(attempted, error))?;
        look(&reading).map_err(|failure| match failure {
            ReadFailure::Refused(error) => error,
            ReadFailure::Storage(error) => self.error(attempted, error).into(),
        })
    }
}

/// The database, kept open for as long as this is held.
struct Opened<'a>(RwLockReadGuard<'a, Option<Database>>);

impl std::ops::Deref for Opened<'_> {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect("checked when it was taken")
    }
}

enum ReadFailure {
    Refused(ReadError),
    Storage(redb::StorageError),
}

impl From<ReadError> for ReadFailure {
    fn from(error: ReadError) -> ReadFailure {
        ReadFailure::Refused(error)
    }
}

impl From<redb::StorageError> for ReadFailure {
    fn from(error: redb::StorageError) -> ReadFailure {
        ReadFailure::Storage(error)
    }
}

impl History for Shared {
    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn records_after(&self, after: Revision) -> Result<Vec<Record>, ReadError> {
        self.read("read history", |reading| {
            startable(after, reading.state.oldest, reading.state.latest)?;
            Ok(reading.records_after(after)?)
        })
    }
}

struct View {
    shared: Arc<Shared>,
    at: Revision,
}

impl Snapshot for View {
    fn revision(&self) -> Revision {
        self.at
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        self.shared.read("read a key", |reading| {
            readable(&reading.state, self.at)?;
            Ok(reading.get(key, self.at)?)
        })
    }

    fn range(
        &self,
        range: &KeyRange,
        limit: usize,
        after: Option<&Key>,
    ) -> Result<Page, ReadError> {
        self.shared.read("read a range", |reading| {
            readable(&reading.state, self.at)?;
            Ok(reading.range(range, limit, after, self.at)?)
        })
    }

    fn count(&self, range: &KeyRange) -> Result<u64, ReadError> {
        self.shared.read("count a range", |reading| {
            readable(&reading.state, self.at)?;
            Ok(reading.count(range, self.at)?)
        })
    }
}

impl Embedded {
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, StoreError> {
        let _place = self.shared.queue.place().await?;
        let (answer, answered) = oneshot::channel();
        self.shared.queue.push(request(answer))?;
        answered.await.map_err(|_writer_ended| StoreError::Closed)
    }

    fn published(&self) -> Result<Revision, StoreError> {
        if self.shared.hub.closed() {
            return Err(self.shared.failure().unwrap_or(StoreError::Closed));
        }
        Ok(self.shared.hub.latest())
    }

    fn view(&self, at: Revision) -> Arc<dyn Snapshot> {
        Arc::new(View { shared: Arc::clone(&self.shared), at })
    }
}

impl Store for Embedded {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision, CommitError>> {
        Box::pin(async move {
            batch.validate()?;
            self.ask(|answer| Request::Commit { batch, answer }).await?
        })
    }

    fn latest(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async { self.published() })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        Box::pin(async { Ok(self.view(self.published()?)) })
    }

    fn snapshot_at(&self, at: Revision) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, ReadError>> {
        Box::pin(async move {
            let latest = self.published()?;
            readable(&State { latest, ..self.shared.state() }, at)?;
            Ok(self.view(at))
        })
    }

    fn watch(&self, range: KeyRange, after: Revision) -> Result<Box<dyn Watch>, ReadError> {
        startable(after, self.shared.state().oldest, self.published()?)?;
        Ok(Box::new(Follower::new(Arc::clone(&self.shared), range, after)))
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move {
            let latest = self.published()?;
            if before > latest {
                return Err(ReadError::Future { latest });
            }
            self.ask(|answer| Request::Compact { before, answer }).await?
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        Box::pin(async move { self.ask(|answer| Request::Grant { ttl, answer }).await? })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(async move {
            self.published()?;
            let kept = self.shared.leases().keep_alive(lease, self.shared.clock.now());
            if kept { Ok(()) } else { Err(LeaseError::Gone { lease }) }
        })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(async move { self.ask(|answer| Request::Revoke { lease, answer }).await? })
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<(LeaseId, Duration)>, StoreError>> {
        Box::pin(async { Ok(self.shared.leases().all()) })
    }

    fn figures(&self) -> Figures {
        let state = self.shared.state();
        Figures {
            commits: self.shared.commits.load(Ordering::Relaxed),
            writes: self.shared.writes.load(Ordering::Relaxed),
            syncs: self.shared.pages.syncs() + self.shared.log_syncs.load(Ordering::Relaxed),
            file_bytes: self.shared.pages_occupied() + log::FILE_BYTES,
            live_bytes: state.live_bytes,
            live_keys: state.live_keys,
            oldest: state.oldest,
            latest: self.shared.hub.latest(),
        }
    }
}

impl Drop for Embedded {
    /// Waits for what is queued and the last checkpoint. The lock goes last.
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // A panic was printed where it happened; the next open replays the log.
            let _panicked = writer.join();
        }
        if let Some(lock) = self.lock.take() {
            // Closing alone is not enough: a child that was forked just now holds the file until it executes.
            // A lock that cannot be given back goes with the last of them.
            let _held_longer = lock.unlock();
        }
    }
}
