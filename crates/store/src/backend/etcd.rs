//! etcd as the medium: its revisions are ours, and its keys and values what upstream's kube-apiserver reads.
//!
//! One watch over all of etcd's keys feeds this process, so that every revision is told; a commit is answered once it is
//! seen there. Requests run on a runtime of their own, so that those who read a snapshot may block for the answer.

mod compactor;
mod connection;
mod convert;
mod copy;
mod failed;
mod follow;
mod resolve;
mod tls;

pub use connection::MemberStatus;
pub use copy::{Copied, CopyError};
pub use tls::EtcdTls;

use crate::{
    Batch, Change, CommitError, Entry, Figures, HISTORY_AGE, Key, KeyRange, LeaseError, LeaseId,
    Page, ReadError, Record, Revision, Snapshot, Store, StoreError, Watch,
    watch::{Follower, History, Hub, startable},
};
use ::etcd::{
    CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, RangeRequest,
};
use connection::{ANSWER, Connection};
use failed::Failed;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use stdx::BoxFuture;
use tokio::runtime::{Handle, Runtime, RuntimeFlavor};

/// Entries of one answer: small enough for any limit of message sizes with objects of the usual size.
const PAGE: usize = 500;

/// Figures are no reason to wait for an etcd that is away.
const COUNTING: Duration = Duration::from_secs(1);

/// A ledger on an etcd.
pub struct Etcd {
    shared: Arc<Shared>,
    _runtime: Background,
}

/// A runtime that may be dropped anywhere: what it is at is given up.
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Shared {
    connection: Connection,
    handle: Handle,
    hub: Hub,
    oldest: AtomicU64,
    commits: AtomicU64,
    writes: AtomicU64,
    /// How many keys there were when they were last counted.
    live_keys: AtomicU64,
}

impl Etcd {
    /// Connects to `etcd://HOST:PORT[,HOST:PORT…]` (`etcds://`: with TLS), and fails if nobody answers, or where a copy
    /// of a ledger has begun and not ended.
    pub fn open(url: &str, tls: &EtcdTls) -> Result<Etcd, StoreError> {
        Etcd::open_forgetting(url, tls, HISTORY_AGE)
    }

    /// The same with another age at which history is forgotten. All servers of an etcd have the same.
    pub fn open_forgetting(url: &str, tls: &EtcdTls, age: Duration) -> Result<Etcd, StoreError> {
        let etcd = Etcd::connect(url, tls)?;
        let shared = etcd.shared.clone();
        let unfinished = async move {
            let range = KeyRange::prefix(copy::SCRATCH);
            shared.page(&range, 1, None, shared.hub.latest()).await
        };
        match wait(&etcd.shared.handle, unfinished)? {
            Ok(page) if page.entries.is_empty() => {}
            Ok(_) => {
                let why = "a copy of a ledger onto it has not ended: start over on an empty etcd";
                return Err(StoreError::NotSupported { url: url.to_owned(), why });
            }
            Err(ReadError::Store(error)) => return Err(error),
            Err(other) => {
                return Err(StoreError::io(format!("ask {url}"), std::io::Error::other(other)));
            }
        }
        etcd.shared.handle.spawn(compactor::compact(Arc::downgrade(&etcd.shared), age));
        Ok(etcd)
    }

    /// Every member that the URL names, and what it says of itself, or why it says nothing.
    pub fn members(&self) -> Vec<(String, Result<MemberStatus, StoreError>)> {
        let connection = self.shared.connection.clone();
        wait(&self.shared.handle, async move { connection.members().await }).unwrap_or_default()
    }

    fn connect(url: &str, tls: &EtcdTls) -> Result<Etcd, StoreError> {
        let building = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("etcd")
            .enable_all()
            .build();
        let runtime =
            building.map_err(|source| StoreError::io("start the client of etcd", source))?;
        let handle = runtime.handle().clone();
        let runtime = Background(Some(runtime));
        let connection = {
            // Channels are made where they will run.
            let _inside = handle.enter();
            Connection::open(url, tls)?
        };
        let first = connection.clone();
        let position = wait(&handle, async move { first.position().await })?;
        let (cluster, latest) = position.map_err(|failed| failed.of_open(url))?;
        let shared = Arc::new(Shared {
            connection,
            handle: handle.clone(),
            hub: Hub::new(latest),
            oldest: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            live_keys: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&shared);
        handle.spawn(follow::follow(weak, shared.connection.clone(), cluster, latest));
        Ok(Etcd { shared, _runtime: runtime })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.shared.hub.close();
    }
}

/// Runs `work` on the client's runtime and blocks until it is done.
fn wait<T: Send + 'static>(
    handle: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, StoreError> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    handle.spawn(async move {
        // Nobody waits any more: nobody needs the answer.
        let _gone = sender.send(work.await);
    });
    let receive = move || receiver.recv().map_err(|_ended| StoreError::Closed);
    match Handle::try_current().map(|it| it.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(receive),
        Ok(_) | Err(_) => receive(),
    }
}

impl Shared {
    fn oldest(&self) -> Revision {
        Revision(self.oldest.load(Ordering::Relaxed))
    }

    fn compacted(&self, oldest: Revision) {
        self.oldest.fetch_max(oldest.0, Ordering::Relaxed);
    }

    /// In the words of those who read.
    fn read_error(&self, failed: Failed, at: Revision) -> ReadError {
        match failed {
            Failed::Compacted => {
                self.compacted(at.next());
                ReadError::Compacted { oldest: self.oldest() }
            }
            Failed::Future => ReadError::Future { latest: self.hub.latest() },
            other => other.of(self.connection.url()).into(),
        }
    }

    fn store_error(&self, failed: Failed) -> StoreError {
        failed.of(self.connection.url())
    }

    /// Waits until this process has been told of a revision.
    async fn reached(&self, revision: Revision) -> Result<(), StoreError> {
        let reached = stdx::timeout(ANSWER, self.hub.reached(revision)).await;
        reached.unwrap_or_else(|| {
            let attempted = format!("follow {}", self.connection.url());
            let why = format!("not told of revision {revision} in {} s", ANSWER.as_secs());
            Err(StoreError::unavailable(attempted, why))
        })
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, CommitError> {
        if self.hub.closed() {
            return Err(StoreError::Closed.into());
        }
        let (request, expectations) = convert::transaction(&batch);
        let before = self.hub.latest();
        let writes = batch.writes.len() as u64;
        let leases = batch.writes.iter().filter_map(|write| match write.change {
            Change::Put { lease, .. } => lease,
            Change::Delete => None,
        });
        let lease = leases.last();
        let answered = match self.connection.txn(request.clone()).await {
            Err(failed) if failed.may_be_done() => {
                resolve::what_came_of(&self.connection, request, &batch, before, failed).await?
            }
            answered => answered.map(resolve::Known::Answer),
        };
        let known = answered.map_err(|failed| match failed {
            Failed::NoLease => CommitError::NoLease { lease: lease.unwrap_or(LeaseId(0)) },
            Failed::TooLarge => CommitError::TooLarge {
                what: "bytes in one batch (etcd's --max-request-bytes)".into(),
                size: batch.bytes(),
                limit: crate::VALUE_BYTES_MAX,
            },
            other => self.store_error(other).into(),
        })?;
        let revision = match known {
            resolve::Known::Written(revision) => revision,
            resolve::Known::Answer(answer) if answer.succeeded => {
                convert::revision(answer.header.as_ref())
            }
            resolve::Known::Answer(answer) => {
                return Err(convert::conflict(&expectations, &answer));
            }
        };
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(writes, Ordering::Relaxed);
        // It is written, whenever this process is told of it.
        let _told_later = self.reached(revision).await;
        Ok(revision)
    }

    async fn latest(&self) -> Result<Revision, StoreError> {
        let latest = self.connection.revision().await.map_err(|it| self.store_error(it))?;
        self.reached(latest).await?;
        Ok(latest)
    }

    async fn page(
        &self,
        range: &KeyRange,
        limit: usize,
        after: Option<&Key>,
        at: Revision,
    ) -> Result<Page, ReadError> {
        // For etcd, zero is the latest; for us the time before anything was, which is its one.
        let mut page = Page::default();
        let mut after = after.cloned();
        while page.entries.len() < limit {
            let Some(request) = convert::range(range, after.as_ref()) else { break };
            let step = PAGE.min(limit - page.entries.len());
            let request = RangeRequest {
                limit: i64::try_from(step).unwrap_or(i64::MAX),
                revision: convert::number(at.0.max(1)),
                ..request
            };
            let answer = self.connection.range(request).await;
            let answer = answer.map_err(|failed| self.read_error(failed, at))?;
            for pair in answer.kvs {
                page.entries.push(convert::entry(pair).map_err(|it| self.store_error(it))?);
            }
            page.more = answer.more;
            if !answer.more {
                return Ok(page);
            }
            after = page.entries.last().map(|entry| entry.key.clone());
        }
        Ok(page)
    }

    async fn count(&self, range: &KeyRange, at: Revision) -> Result<u64, ReadError> {
        let Some(request) = convert::range(range, None) else { return Ok(0) };
        let revision = convert::number(at.0.max(1));
        let request = RangeRequest { count_only: true, revision, ..request };
        let answer = self.connection.range(request).await;
        let answer = answer.map_err(|failed| self.read_error(failed, at))?;
        Ok(u64::try_from(answer.count).unwrap_or_default())
    }

    async fn compact(&self, before: Revision) -> Result<(), ReadError> {
        let latest = self.latest().await?;
        if before > latest {
            return Err(ReadError::Future { latest });
        }
        // etcd forgets a deletion at the very revision that it compacts to: it is told one less.
        if before.0 > 1 {
            let revision = convert::number(before.0 - 1);
            let request = CompactionRequest { revision, physical: false };
            match self.connection.compact(request).await {
                // Somebody has compacted more.
                Ok(()) | Err(Failed::Compacted) => {}
                Err(failed) => return Err(self.store_error(failed).into()),
            }
        }
        self.compacted(before);
        Ok(())
    }

    async fn keys_of(&self, lease: LeaseId) -> Result<(Vec<Key>, Duration), LeaseError> {
        let request = LeaseTimeToLiveRequest { id: convert::number(lease.0), keys: true };
        let answer = self.connection.time_to_live(request).await;
        let answer = answer.map_err(|it| self.store_error(it))?;
        if answer.ttl < 0 {
            return Err(LeaseError::Gone { lease });
        }
        let keys = answer.keys.into_iter().filter_map(|key| String::from_utf8(key).ok());
        let granted = Duration::from_secs(u64::try_from(answer.granted_ttl).unwrap_or_default());
        Ok((keys.map(Key::from).collect(), granted))
    }

    /// etcd would delete all keys at one revision.
    async fn revoke(&self, lease: LeaseId) -> Result<(), LeaseError> {
        let (mut keys, _) = self.keys_of(lease).await?;
        keys.sort();
        for key in keys {
            let deletion = Batch::new().delete(key, crate::Expect::Whatever);
            match self.commit(deletion).await {
                Ok(_) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
                Err(other) => unreachable!("a deletion expects nothing: {other}"),
            }
        }
        let request = LeaseRevokeRequest { id: convert::number(lease.0) };
        match self.connection.revoke(request).await {
            Ok(()) => Ok(()),
            Err(Failed::NoLease) => Err(LeaseError::Gone { lease }),
            Err(other) => Err(self.store_error(other).into()),
        }
    }

    async fn leases(&self) -> Result<Vec<(LeaseId, Duration)>, StoreError> {
        let answer = self.connection.leases().await;
        let answer = answer.map_err(|it| self.store_error(it))?;
        let mut leases = Vec::new();
        for status in answer.leases {
            let lease = LeaseId(status.id.cast_unsigned());
            match self.keys_of(lease).await {
                Ok((_, ttl)) => leases.push((lease, ttl)),
                Err(LeaseError::Gone { .. }) => {}
                Err(LeaseError::Store(error)) => return Err(error),
            }
        }
        Ok(leases)
    }
}

impl History for Shared {
    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn records_after(&self, after: Revision) -> Result<Vec<Record>, ReadError> {
        let connection = self.connection.clone();
        let upto = self.hub.latest();
        let read = async move { follow::catch_up(&connection, after, upto).await };
        wait(&self.handle, read)?.map_err(|failed| self.read_error(failed, after.next()))
    }
}

struct View {
    shared: Arc<Shared>,
    at: Revision,
}

impl View {
    fn ask<T: Send + 'static>(&self, work: impl AsyncFnOnceOn<T>) -> Result<T, ReadError> {
        let shared = self.shared.clone();
        wait(&self.shared.handle, work.on(shared, self.at))?
    }
}

/// A request as a value: what is asked of a ledger at a revision.
trait AsyncFnOnceOn<T> {
    fn on(self, shared: Arc<Shared>, at: Revision) -> BoxFuture<'static, Result<T, ReadError>>;
}

struct Get(Key);
struct Range(KeyRange, usize, Option<Key>);
struct Count(KeyRange);

impl AsyncFnOnceOn<Option<Entry>> for Get {
    fn on(
        self,
        shared: Arc<Shared>,
        at: Revision,
    ) -> BoxFuture<'static, Result<Option<Entry>, ReadError>> {
        Box::pin(async move {
            let end = format!("{}\0", self.0.as_str());
            let range = KeyRange { from: self.0, to: Key::from(end) };
            Ok(shared.page(&range, 1, None, at).await?.entries.pop())
        })
    }
}

impl AsyncFnOnceOn<Page> for Range {
    fn on(self, shared: Arc<Shared>, at: Revision) -> BoxFuture<'static, Result<Page, ReadError>> {
        Box::pin(async move { shared.page(&self.0, self.1, self.2.as_ref(), at).await })
    }
}

impl AsyncFnOnceOn<u64> for Count {
    fn on(self, shared: Arc<Shared>, at: Revision) -> BoxFuture<'static, Result<u64, ReadError>> {
        Box::pin(async move { shared.count(&self.0, at).await })
    }
}

impl Snapshot for View {
    fn revision(&self) -> Revision {
        self.at
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        self.readable()?;
        self.ask(Get(key.clone()))
    }

    fn range(
        &self,
        range: &KeyRange,
        limit: usize,
        after: Option<&Key>,
    ) -> Result<Page, ReadError> {
        self.readable()?;
        self.ask(Range(range.clone(), limit, after.cloned()))
    }

    fn count(&self, range: &KeyRange) -> Result<u64, ReadError> {
        self.readable()?;
        self.ask(Count(range.clone()))
    }
}

impl View {
    fn readable(&self) -> Result<(), ReadError> {
        let oldest = self.shared.oldest();
        if self.at < oldest { Err(ReadError::Compacted { oldest }) } else { Ok(()) }
    }
}

impl Etcd {
    /// Runs on the client's runtime, whichever the caller has.
    fn run<'a, T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &'a self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, E>> {
        let task = self.shared.handle.spawn(work);
        Box::pin(async move {
            match task.await {
                Ok(done) => done,
                Err(_ended) => Err(StoreError::Closed.into()),
            }
        })
    }
}

impl Store for Etcd {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision, CommitError>> {
        if let Err(refused) = batch.validate() {
            return Box::pin(std::future::ready(Err(refused)));
        }
        let shared = self.shared.clone();
        self.run(async move { shared.commit(batch).await })
    }

    fn latest(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let shared = self.shared.clone();
        self.run(async move { shared.latest().await })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        let shared = self.shared.clone();
        self.run(async move {
            let at = shared.latest().await?;
            Ok(Arc::new(View { shared, at }) as Arc<dyn Snapshot>)
        })
    }

    fn snapshot_at(&self, at: Revision) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, ReadError>> {
        let shared = self.shared.clone();
        self.run(async move {
            let latest = shared.latest().await?;
            if at > latest {
                return Err(ReadError::Future { latest });
            }
            let view = View { shared, at };
            view.readable()?;
            // Whether somebody else has compacted it.
            view.shared.count(&KeyRange::new("/", "/\0"), at).await?;
            Ok(Arc::new(view) as Arc<dyn Snapshot>)
        })
    }

    fn watch(&self, range: KeyRange, after: Revision) -> Result<Box<dyn Watch>, ReadError> {
        if self.shared.hub.closed() {
            return Err(StoreError::Closed.into());
        }
        startable(after, self.shared.oldest(), self.shared.hub.latest())?;
        Ok(Box::new(Follower::new(self.shared.clone(), range, after)))
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<(), ReadError>> {
        let shared = self.shared.clone();
        self.run(async move { shared.compact(before).await })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        let shared = self.shared.clone();
        self.run(async move {
            let ttl = convert::number(ttl.as_secs().max(1));
            let answer = shared.connection.grant(LeaseGrantRequest { ttl, id: 0 }).await;
            let answer = answer.map_err(|it| shared.store_error(it))?;
            Ok(LeaseId(answer.id.cast_unsigned()))
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        let shared = self.shared.clone();
        self.run(async move {
            let request = LeaseKeepAliveRequest { id: convert::number(lease.0) };
            let left = shared.connection.keep_alive(request).await;
            let left = left.map_err(|it| shared.store_error(it))?;
            if left > 0 { Ok(()) } else { Err(LeaseError::Gone { lease }) }
        })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        let shared = self.shared.clone();
        self.run(async move { shared.revoke(lease).await })
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<(LeaseId, Duration)>, StoreError>> {
        let shared = self.shared.clone();
        self.run(async move { shared.leases().await })
    }

    /// Bytes and syncs are etcd's own affair: zero. Keys: as last counted.
    fn figures(&self) -> Figures {
        let shared = self.shared.clone();
        let latest = self.shared.hub.latest();
        let count =
            async move { stdx::timeout(COUNTING, shared.count(&KeyRange::all(), latest)).await };
        if let Ok(Some(Ok(counted))) = wait(&self.shared.handle, count) {
            self.shared.live_keys.store(counted, Ordering::Relaxed);
        }
        Figures {
            commits: self.shared.commits.load(Ordering::Relaxed),
            writes: self.shared.writes.load(Ordering::Relaxed),
            live_keys: self.shared.live_keys.load(Ordering::Relaxed),
            oldest: self.shared.oldest(),
            latest,
            ..Figures::default()
        }
    }
}
