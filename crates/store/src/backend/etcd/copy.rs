//! A ledger moves onto an empty etcd: every key ends at the revision that it has, so that nobody's resourceVersion goes
//! back or changes.
//!
//! etcd counts its own transactions, and nothing sets that number. So the keys are written in the order of their
//! revisions, all of one revision in one transaction, and what is missing in between is made up by writes to a scratch
//! key. As long as that key is there, the copy is not complete, and [`Etcd::open`] refuses it.

use super::{Etcd, EtcdTls, View, connection::Connection, convert, failed::Failed, wait};
use crate::{
    Batch, Change, Entry, Expect, Key, KeyRange, LeaseId, ReadError, Revision, Snapshot,
    StoreError, Write,
};
use ::etcd::{CompactionRequest, LeaseGrantRequest};
use std::{collections::BTreeMap, future::Future, time::Duration};
use tokio::task::JoinSet;

/// There while a copy is under way.
pub(super) const SCRATCH: &str = "/stanchion/copy";

/// Made-up revisions on their way at once: etcd writes them to its disk together.
const AHEAD: u64 = 512;

/// Made-up revisions are forgotten so often, for etcd's quota.
const FORGOTTEN: u64 = 100_000;

/// Entries read at once.
const PAGE: usize = 1000;

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub entries: u64,
    pub leases: u64,
    /// The latest revision of the copy.
    pub revision: Revision,
    /// Entries of revision 1, which an etcd has before anything is written: they are at 2 now.
    pub moved: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("{url} holds {keys} keys: a ledger is copied onto an empty etcd")]
    NotEmpty { url: String, keys: u64 },
    #[error("{url} is empty, but at revision {latest}: a ledger is copied onto a new etcd")]
    NotNew { url: String, latest: Revision },
    #[error("somebody else writes to {url}: revision {found} came where {expected} was due")]
    Disturbed { url: String, expected: Revision, found: Revision },
    #[error("{key} is not there as it was written")]
    Differs { key: Key },
    #[error("reading the ledger")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Etcd {
    /// Copies what `from` shows, with the leases that its entries hang on. `told` hears how far it is: the revision that
    /// is reached, and the one that will be.
    pub fn receive(
        url: &str,
        tls: &EtcdTls,
        from: &dyn Snapshot,
        leases: &[(LeaseId, Duration)],
        told: &mut dyn FnMut(Revision, Revision),
    ) -> Result<Copied, CopyError> {
        let etcd = Etcd::connect(url, tls)?;
        let begin = etcd.shared.hub.latest();
        let counter = etcd.shared.clone();
        let count = async move { counter.count(&KeyRange::all(), begin).await };
        let keys = wait(&etcd.shared.handle, count)??;
        if keys > 0 {
            return Err(CopyError::NotEmpty { url: url.to_owned(), keys });
        }
        let order = order(from)?;
        if begin > Revision(1) {
            return Err(CopyError::NotNew { url: url.to_owned(), latest: begin });
        }
        let connection = &etcd.shared.connection;
        etcd.done(grant(connection, leases))?;
        let first = begin.next();
        let upto = from.revision().max(first);
        let (mut at, mut moved) = (begin, 0);
        for (revision, keys) in order {
            etcd.pad(at, Revision(revision.0 - 1), &mut |at| told(at, upto))?;
            let mut batch = Batch::new();
            for key in keys {
                let Some(entry) = from.get(&key)? else { return Err(CopyError::Differs { key }) };
                moved += u64::from(entry.modified != revision);
                let change = Change::Put { value: entry.value, lease: entry.lease };
                batch.writes.push(Write { key, expect: Expect::Absent, change });
            }
            if revision == first {
                batch = batch.put(SCRATCH, Expect::Whatever, "begun");
            }
            etcd.expect(revision, etcd.done(write(connection, &batch))?)?;
            at = revision;
            told(at, upto);
        }
        etcd.pad(at, upto, &mut |at| told(at, upto))?;
        let entries = etcd.verify(from, upto, first)?;
        // Whoever was away meanwhile has to look again: the history in between is made up. Forgotten before the copy
        // counts as complete, so that nobody ever follows it.
        etcd.done(forget(connection, upto))?;
        let done = Batch::new().delete(SCRATCH, Expect::Present);
        let revision = etcd.done(write(connection, &done))?;
        etcd.expect(upto.next(), revision)?;
        Ok(Copied { entries, leases: leases.len() as u64, revision, moved })
    }
}

/// Keys by the revision of their value; those of etcd's first revision with those of the second.
fn order(from: &dyn Snapshot) -> Result<BTreeMap<Revision, Vec<Key>>, ReadError> {
    let mut order: BTreeMap<Revision, Vec<Key>> = BTreeMap::new();
    let mut after: Option<Key> = None;
    loop {
        let page = from.range(&KeyRange::all(), PAGE, after.as_ref())?;
        for entry in &page.entries {
            let revision = entry.modified.max(Revision(2));
            order.entry(revision).or_default().push(entry.key.clone());
        }
        after = page.entries.last().map(|it| it.key.clone());
        if !page.more {
            return Ok(order);
        }
    }
}

fn grant(
    connection: &Connection,
    leases: &[(LeaseId, Duration)],
) -> impl Future<Output = Result<(), Failed>> + Send + 'static {
    let (connection, leases) = (connection.clone(), leases.to_vec());
    async move {
        for (lease, ttl) in leases {
            let ttl = convert::number(ttl.as_secs().max(1));
            let request = LeaseGrantRequest { ttl, id: convert::number(lease.0) };
            match connection.grant(request).await {
                // By a copy that came no further than this: nothing hangs on it yet.
                Err(Failed::Refused(status)) if status.message().contains("already exists") => {}
                granted => drop(granted?),
            }
        }
        Ok(())
    }
}

/// The revision that the batch got.
fn write(
    connection: &Connection,
    batch: &Batch,
) -> impl Future<Output = Result<Revision, Failed>> + Send + 'static {
    let (connection, (request, _)) = (connection.clone(), convert::transaction(batch));
    async move {
        let answer = connection.txn(request).await?;
        match answer.succeeded {
            true => Ok(convert::revision(answer.header.as_ref())),
            false => Err(Failed::Strange("a key is there already".to_owned())),
        }
    }
}

fn forget(
    connection: &Connection,
    before: Revision,
) -> impl Future<Output = Result<(), Failed>> + Send + 'static {
    let connection = connection.clone();
    let request = CompactionRequest { revision: convert::number(before.0), physical: false };
    async move { connection.compact(request).await }
}

impl Etcd {
    /// Runs `work` to its end, with etcd's complaints as errors.
    fn done<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failed>> + Send + 'static,
    ) -> Result<T, CopyError> {
        let done = wait(&self.shared.handle, work)?;
        done.map_err(|failed| self.shared.store_error(failed).into())
    }

    /// Makes revisions up until `upto` is the latest.
    fn pad(
        &self,
        mut at: Revision,
        upto: Revision,
        told: &mut dyn FnMut(Revision),
    ) -> Result<(), CopyError> {
        let mark = Batch::new().put(SCRATCH, Expect::Whatever, "begun");
        while at < upto {
            let last = Revision(upto.0.min(at.0 + AHEAD));
            let writes: Vec<_> =
                (at.0..last.0).map(|_| write(&self.shared.connection, &mark)).collect();
            let latest = self.done(async move {
                let mut under_way: JoinSet<_> = writes.into_iter().collect();
                let mut latest = Revision::ZERO;
                while let Some(written) = under_way.join_next().await {
                    let ended = || Failed::Strange("a write ended early".to_owned());
                    latest = latest.max(written.map_err(|_| ended())??);
                }
                Ok(latest)
            })?;
            self.expect(last, latest)?;
            if last.0 / FORGOTTEN > at.0 / FORGOTTEN {
                self.done(forget(&self.shared.connection, last))?;
            }
            at = last;
            told(at);
        }
        Ok(())
    }

    fn expect(&self, expected: Revision, found: Revision) -> Result<(), CopyError> {
        let url = self.shared.connection.url().to_owned();
        match expected == found {
            true => Ok(()),
            false => Err(CopyError::Disturbed { url, expected, found }),
        }
    }

    /// Reads all of both.
    fn verify(&self, from: &dyn Snapshot, at: Revision, first: Revision) -> Result<u64, CopyError> {
        let same = |one: &Entry, other: &Entry| {
            one.key == other.key
                && one.value == other.value
                && one.modified.max(first) == other.modified
                && one.lease == other.lease
        };
        let (mut after, mut entries): (Option<Key>, u64) = (None, 0);
        let copy = View { shared: self.shared.clone(), at };
        let mut copied = Vec::new().into_iter();
        let mut behind: Option<Key> = None;
        loop {
            let page = from.range(&KeyRange::all(), PAGE, after.as_ref())?;
            for entry in &page.entries {
                let mut next = || loop {
                    match copied.next() {
                        Some(Entry { key, .. }) if key.as_str() == SCRATCH => {}
                        Some(entry) => return Ok::<_, CopyError>(Some(entry)),
                        None => {
                            let page = copy.range(&KeyRange::all(), PAGE, behind.as_ref())?;
                            let Some(last) = page.entries.last() else { return Ok(None) };
                            behind = Some(last.key.clone());
                            copied = page.entries.into_iter();
                        }
                    }
                };
                if !next()?.is_some_and(|it| same(entry, &it)) {
                    return Err(CopyError::Differs { key: entry.key.clone() });
                }
                entries += 1;
            }
            after = page.entries.last().map(|it| it.key.clone());
            if !page.more {
                return Ok(entries);
            }
        }
    }
}
