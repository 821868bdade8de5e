//! Telling watchers. Recent changes come from a bounded ring in memory that all watchers share,
//! older ones from the backend's history: a slow watcher costs nothing but its position.

use crate::{Key, KeyRange, ReadError, Record, Recorded, Revision, StoreError, Watch, judge};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use stdx::BoxFuture;
use tokio::sync::watch;

/// Enough for watchers that keep up to never touch the disk, and small beside the 50 MB that an
/// idle server may take.
const RING_BYTES_MAX: usize = 4 << 20;

/// How much a watcher that fell behind reads from history at once.
pub(crate) const CATCH_UP_RECORDS: usize = 512;

/// Where changes are found that the ring has forgotten.
pub(crate) trait History: Send + Sync {
    fn hub(&self) -> &Hub;

    /// Whole revisions after `after`, in order, at least one if there is any; stops soon after
    /// [`CATCH_UP_RECORDS`].
    fn records_after(&self, after: Revision) -> Result<Vec<Record>, ReadError>;

    /// For a backend without a thread of its own: does what time has made due, and says how long
    /// until the next such moment.
    fn tick(&self) -> Option<Duration> {
        None
    }
}

/// The newest changes and the news that there are some.
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    latest: watch::Sender<Published>,
}

#[derive(Clone, Copy, Debug)]
struct Published {
    latest: Revision,
    closed: bool,
}

struct Ring {
    groups: VecDeque<Group>,
    bytes: usize,
    /// The ring holds every change after this revision.
    floor: Revision,
}

struct Group {
    last: Revision,
    records: Arc<[Record]>,
    bytes: usize,
}

impl Hub {
    pub(crate) fn new(latest: Revision) -> Hub {
        Hub {
            ring: Mutex::new(Ring { groups: VecDeque::new(), bytes: 0, floor: latest }),
            latest: watch::Sender::new(Published { latest, closed: false }),
        }
    }

    pub(crate) fn latest(&self) -> Revision {
        self.latest.borrow().latest
    }

    pub(crate) fn closed(&self) -> bool {
        self.latest.borrow().closed
    }

    /// Makes durable changes visible. They are in order and come right after the ones before.
    pub(crate) fn publish(&self, records: Vec<Record>) {
        let Some(last) = records.last().map(|record| record.revision) else { return };
        assert!(last > self.latest(), "revisions only go forward");
        let bytes = records.iter().map(record_bytes).sum();
        {
            let mut ring = self.ring();
            ring.groups.push_back(Group { last, records: records.into(), bytes });
            ring.bytes += bytes;
            while ring.bytes > RING_BYTES_MAX {
                let Some(oldest) = ring.groups.pop_front() else { break };
                ring.bytes -= oldest.bytes;
                ring.floor = oldest.last;
            }
        }
        self.latest.send_modify(|published| published.latest = last);
    }

    /// Goes on at `latest` without telling what came before it: it is lost.
    pub(crate) fn skip(&self, latest: Revision) {
        {
            let mut ring = self.ring();
            ring.groups.clear();
            ring.bytes = 0;
            ring.floor = latest;
        }
        self.latest.send_modify(|published| published.latest = published.latest.max(latest));
    }

    /// Waits until a revision is published.
    pub(crate) async fn reached(&self, revision: Revision) -> Result<(), StoreError> {
        let mut latest = self.latest.subscribe();
        let reached = latest.wait_for(|it| it.latest >= revision || it.closed).await;
        match reached {
            Ok(published) if published.latest >= revision => Ok(()),
            Ok(_) | Err(_) => Err(StoreError::Closed),
        }
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        self.latest.send_modify(|published| published.closed = true);
    }

    /// The first group with something after `after`, whole; `None` if the ring has forgotten.
    fn after(&self, after: Revision) -> Option<Arc<[Record]>> {
        let ring = self.ring();
        if after < ring.floor {
            return None;
        }
        let index = ring.groups.partition_point(|group| group.last <= after);
        ring.groups.get(index).map(|group| Arc::clone(&group.records))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record_bytes(record: &Record) -> usize {
    let value = match &record.change {
        Recorded::Put { value, .. } => value.len(),
        Recorded::Delete => 0,
    };
    record.key.as_str().len() + value + size_of::<Record>()
}

/// What a watch says of a row.
pub(crate) fn record(revision: Revision, key: Key, content: &judge::Content) -> Record {
    let change = match content {
        judge::Content::Put { value, created, .. } => {
            Recorded::Put { value: value.clone(), created: *created }
        }
        judge::Content::Delete => Recorded::Delete,
    };
    Record { revision, key, change }
}

/// One watcher: a position in the history.
pub(crate) struct Follower<H> {
    history: Arc<H>,
    range: KeyRange,
    after: Revision,
    latest: watch::Receiver<Published>,
}

impl<H: History> Follower<H> {
    pub(crate) fn new(history: Arc<H>, range: KeyRange, after: Revision) -> Follower<H> {
        let latest = history.hub().latest.subscribe();
        Follower { history, range, after, latest }
    }

    async fn follow(&mut self) -> Result<Arc<[Record]>, ReadError> {
        loop {
            let published = *self.latest.borrow_and_update();
            if self.after < published.latest {
                let records = match self.history.hub().after(self.after) {
                    Some(records) => records,
                    None => self.history.records_after(self.after)?.into(),
                };
                let last = records.last().expect("history is there up to the latest").revision;
                let records = self.wanted(records);
                self.after = last;
                if !records.is_empty() {
                    return Ok(records);
                }
            } else if published.closed {
                return Err(StoreError::Closed.into());
            } else {
                self.wait().await?;
            }
        }
    }

    async fn wait(&mut self) -> Result<(), ReadError> {
        let due = self.history.tick();
        let changed = self.latest.changed();
        let changed = match due {
            Some(due) => match stdx::timeout(due, changed).await {
                Some(changed) => changed,
                None => return Ok(()),
            },
            None => changed.await,
        };
        changed.map_err(|_gone| StoreError::Closed.into())
    }

    /// What is in range and not yet told; the shared batch itself where that is all of it.
    fn wanted(&self, records: Arc<[Record]>) -> Arc<[Record]> {
        let wants = |r: &Record| r.revision > self.after && self.range.contains(&r.key);
        if records.iter().all(wants) {
            return records;
        }
        records.iter().filter(|record| wants(record)).cloned().collect()
    }
}

impl<H: History> Watch for Follower<H> {
    fn next(&mut self) -> BoxFuture<'_, Result<Arc<[Record]>, ReadError>> {
        Box::pin(self.follow())
    }
}

/// Whether a watch can start there.
pub(crate) fn startable(
    after: Revision,
    oldest: Revision,
    latest: Revision,
) -> Result<(), ReadError> {
    if after > latest {
        return Err(ReadError::Future { latest });
    }
    if after.next() < oldest {
        return Err(ReadError::Compacted { oldest });
    }
    Ok(())
}
