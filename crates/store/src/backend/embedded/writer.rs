//! The one thread that writes. It takes all who wait as a group, judges each against the state
//! after the ones before it, makes the group durable with one sync of the log, then publishes and
//! answers. Leases end here, and history is forgotten here, between groups.

use super::{
    Shared, ballast,
    codec::{self, Item},
    log::Log,
    queue::Request,
    tables::{State, Tables},
};
use crate::{
    Batch, Change, CommitError, Key, LeaseError, LeaseId, ReadError, Record, Revision, StoreError,
    judge::{Content, Row, judge},
    watch::record,
};
use redb::{Durability, WriteTransaction};
use std::{sync::Arc, time::Duration};
use stdx::Timestamp;
use tokio::sync::oneshot;

/// How often old history is looked for, and expired leases at the latest when the clock is
/// stepped. A safety net: commits look too.
const PERIOD: Duration = Duration::from_secs(10);

/// Below this much free space nothing new is accepted: room for what redb still has to write for
/// commits already acknowledged, and for the deletions that free space.
const RESERVE: u64 = 32 << 20;

/// Pages are moved together when the file takes more than this and twice its content: 3 times is
/// what is promised, and deleting goes on meanwhile.
const SLACK: u64 = 2 << 20;

/// Moving stops readers and writers for the time it takes to copy the content once.
const MOVE_PERIOD: Duration = Duration::from_secs(60);

/// What a row takes beside key and value, roughly.
const ROW_OVERHEAD: u64 = 128;

pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    swept: Timestamp,
    moved: Option<Timestamp>,
    forget: Revision,
    forgetters: Vec<(Revision, oneshot::Sender<Result<(), ReadError>>)>,
}

/// An answer that is sent when the group is durable.
enum Answer {
    Commit(oneshot::Sender<Result<Revision, CommitError>>, Result<Revision, CommitError>),
    Grant(oneshot::Sender<Result<LeaseId, StoreError>>, LeaseId),
    Revoke(oneshot::Sender<Result<(), LeaseError>>, Result<(), LeaseError>),
}

impl Answer {
    fn send(self, durable: Result<(), StoreError>) {
        // Who no longer waits for the answer does not get it.
        let _gone = match self {
            Answer::Commit(to, judged) => {
                to.send(durable.map_err(CommitError::from).and(judged)).is_err()
            }
            Answer::Grant(to, lease) => to.send(durable.map(|()| lease)).is_err(),
            Answer::Revoke(to, judged) => {
                to.send(durable.map_err(LeaseError::from).and(judged)).is_err()
            }
        };
    }
}

/// What a group does, decided and not yet durable.
#[derive(Default)]
struct Group {
    items: Vec<Item>,
    records: Vec<Record>,
    answers: Vec<Answer>,
    granted: Vec<(LeaseId, Duration)>,
    commits: u64,
}

impl Group {
    fn commit(
        &mut self,
        tables: &mut Tables<'_>,
        rows: Vec<Row>,
        at: Timestamp,
    ) -> Result<Revision, redb::StorageError> {
        let revision = tables.state.latest.next();
        let told = rows.iter().map(|row| record(revision, row.key.clone(), &row.content));
        self.records.extend(told);
        self.commits += 1;
        self.item(tables, Item::Commit { revision, at, rows })?;
        Ok(revision)
    }

    fn item(&mut self, tables: &mut Tables<'_>, item: Item) -> Result<(), redb::StorageError> {
        tables.apply(&item)?;
        self.items.push(item);
        Ok(())
    }

    fn revoke(
        &mut self,
        tables: &mut Tables<'_>,
        lease: LeaseId,
        at: Timestamp,
    ) -> Result<(), redb::StorageError> {
        for key in tables.leased(lease)? {
            self.commit(tables, vec![Row { key, content: Content::Delete }], at)?;
        }
        self.item(tables, Item::Revoke { lease })
    }
}

/// A conflict is the batch's own; redb's failure is everyone's.
enum Refusal {
    Batch(CommitError),
    Storage(redb::StorageError),
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Refusal {
        Refusal::Batch(error)
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, log: Log) -> Writer {
        let swept = shared.clock.now();
        Writer { shared, log, swept, moved: None, forget: Revision::ZERO, forgetters: Vec::new() }
    }

    /// Until the queue is closed; then a last checkpoint, so that the next start replays nothing.
    pub(super) fn run(mut self) {
        while let Some(requests) = self.shared.queue.take(self.patience()) {
            self.round(requests);
        }
        if self.shared.failure().is_none()
            && !self.log.is_fresh()
            && let Err(error) = self.checkpoint()
        {
            tracing::warn!(error = %stdx::one_line(&error), "no last checkpoint: the log keeps it");
        }
    }

    fn patience(&self) -> Duration {
        if self.forget > self.shared.state().oldest {
            return Duration::ZERO;
        }
        let now = self.shared.clock.now();
        self.shared.leases().next_end(now).map_or(PERIOD, |end| end.min(PERIOD))
    }

    fn round(&mut self, requests: Vec<Request>) {
        let now = self.shared.clock.now();
        let mut writes = Vec::new();
        for request in requests {
            match request {
                Request::Compact { before, answer } => {
                    self.forget = self.forget.max(before);
                    self.forgetters.push((before, answer));
                }
                write @ (Request::Commit { .. }
                | Request::Grant { .. }
                | Request::Revoke { .. }) => writes.push(write),
            }
        }
        self.write(writes, now);
        if let Err(error) = self.forget(now) {
            self.fail(error);
        }
    }

    fn write(&mut self, requests: Vec<Request>, now: Timestamp) {
        let room = self.room();
        let admitted = |request: &Request| match (&room, request) {
            (Ok(room), Request::Commit { batch, .. }) => room.admits(batch),
            (Ok(room), Request::Grant { .. }) => room.0 >= RESERVE,
            (Ok(_), Request::Revoke { .. } | Request::Compact { .. }) => true,
            (Err(_), _) => false,
        };
        let (requests, refused): (Vec<_>, Vec<_>) = requests.into_iter().partition(admitted);
        let refusal = match &room {
            Ok(_) => self.full(),
            Err(error) => error.clone(),
        };
        refuse(refused, &refusal);
        if room.is_err() {
            return;
        }
        let expired = self.shared.leases().expired(now);
        if requests.is_empty() && expired.is_empty() {
            return;
        }
        let mut group = Group::default();
        let written = self.group(&mut group, requests, expired, now);
        if let Err(error) = &written {
            self.fail(error.clone());
        } else {
            self.shared.count(group.commits, group.records.len() as u64);
            let mut leases = self.shared.leases();
            group.granted.iter().for_each(|(lease, ttl)| leases.grant(*lease, *ttl, now));
            drop(leases);
            self.shared.hub.publish(group.records);
        }
        group.answers.into_iter().for_each(|answer| answer.send(written.clone()));
    }

    /// Decides the group and makes it durable. After an error nobody knows what is on the disk.
    fn group(
        &mut self,
        group: &mut Group,
        requests: Vec<Request>,
        expired: Vec<LeaseId>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let database = shared.database()?;
        let attempted = "write a group of commits";
        let error = |error| shared.error(attempted, error);
        let transaction = database.begin_write().map_err(|error| shared.error(attempted, error))?;
        let mut tables = Tables::open(&transaction).map_err(error)?;
        for lease in expired {
            shared.leases().remove(lease);
            group.revoke(&mut tables, lease, now).map_err(error)?;
        }
        for request in requests {
            decide(&shared, group, &mut tables, request, now).map_err(error)?;
        }
        let mut payload = Vec::new();
        group.items.iter().for_each(|item| codec::push_item(&mut payload, item));
        if payload.is_empty() {
            drop(tables);
            return transaction.abort().map_err(error);
        }
        if self.log.fits(payload.len()) {
            let state = tables.state;
            tables.save().map_err(error)?;
            self.log.append(&payload).map_err(|source| self.log_error(source))?;
            self.commit(transaction, Durability::None)?;
            shared.set_state(state);
            Ok(())
        } else {
            let state = self.next_generation(tables)?;
            self.commit_checkpoint(transaction, state)
        }
    }

    fn commit(
        &self,
        mut transaction: WriteTransaction,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let error = |error: redb::Error| self.shared.error("commit", error);
        transaction.set_durability(durability).map_err(|e| error(e.into()))?;
        // Keeps redb from walking the whole file after a crash.
        transaction.set_quick_repair(matches!(durability, Durability::Immediate));
        transaction.commit().map_err(|e| error(e.into()))
    }

    /// Makes the pages durable with everything so far, and empties the log.
    pub(super) fn checkpoint(&mut self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let database = shared.database()?;
        let attempted = "write a checkpoint";
        let transaction = database.begin_write().map_err(|e| shared.error(attempted, e))?;
        let tables = Tables::open(&transaction).map_err(|e| shared.error(attempted, e))?;
        let state = self.next_generation(tables)?;
        self.commit_checkpoint(transaction, state)
    }

    fn next_generation(&self, mut tables: Tables<'_>) -> Result<State, StoreError> {
        tables.state.generation += 1;
        let state = tables.state;
        tables.save().map_err(|error| self.shared.error("write a checkpoint", error))?;
        Ok(state)
    }

    fn commit_checkpoint(
        &mut self,
        transaction: WriteTransaction,
        state: State,
    ) -> Result<(), StoreError> {
        self.commit(transaction, Durability::Immediate)?;
        self.shared.set_state(state);
        self.log.restart(state.generation).map_err(|source| self.log_error(source))
    }

    /// Forgets one step of history: what was asked for, or what has become too old.
    fn forget(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let asked = self.forget > self.shared.state().oldest;
        let due = now.since(self.swept) >= PERIOD;
        if asked || due {
            let shared = Arc::clone(&self.shared);
            let database = shared.database()?;
            let error = |error| shared.error("forget old history", error);
            let transaction =
                database.begin_write().map_err(|e| shared.error("forget old history", e))?;
            let mut tables = Tables::open(&transaction).map_err(error)?;
            let outdated = if due { tables.outdated(now).map_err(error)? } else { None };
            self.forget = self.forget.max(outdated.unwrap_or_default());
            let before = tables.state;
            let done = tables.compact(self.forget).map_err(error)?;
            let state = tables.state;
            if state == before {
                drop(tables);
                transaction.abort().map_err(error)?;
            } else {
                tables.save().map_err(error)?;
                // Forgotten again after a crash: nobody was promised that it is gone.
                self.commit(transaction, Durability::None)?;
                shared.set_state(state);
            }
            drop(database);
            if done {
                self.swept = now;
                self.move_pages(now)?;
            }
        }
        let oldest = self.shared.state().oldest;
        for (before, answer) in std::mem::take(&mut self.forgetters) {
            if before <= oldest {
                let _gone = answer.send(Ok(()));
            } else {
                self.forgetters.push((before, answer));
            }
        }
        Ok(())
    }

    /// Gives space back that deleted content has left in the file.
    fn move_pages(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let state = self.shared.state();
        let content = state.live_bytes + state.history_bytes + state.live_keys * ROW_OVERHEAD;
        let occupied = self.shared.pages_occupied();
        let recent = self.moved.is_some_and(|moved| now.since(moved) < MOVE_PERIOD);
        if recent || occupied <= SLACK + content * 2 || !self.shared.queue.is_empty() {
            return Ok(());
        }
        self.moved = Some(now);
        // What was freed since the last checkpoint can only be reused after it.
        self.checkpoint()?;
        let shared = Arc::clone(&self.shared);
        let pages = |error| shared.error("move pages together", redb::StorageError::Io(error));
        shared.pages.set_moving(true).map_err(pages)?;
        shared.compact_database()?;
        self.checkpoint()?;
        shared.pages.set_moving(false).map_err(pages)?;
        tracing::info!(
            from = occupied,
            to = shared.pages_occupied(),
            "moved the ledger's pages together"
        );
        Ok(())
    }

    fn room(&self) -> Result<Room, StoreError> {
        if let Some(failure) = self.shared.failure() {
            return Err(failure);
        }
        let available = self.shared.pages.medium().available();
        let available = available.map_err(|error| {
            self.shared.error("look for free space", redb::StorageError::Io(error))
        })?;
        if available >= RESERVE + ballast::BYTES {
            self.shared.pages.medium().lay_by();
        }
        Ok(Room(available))
    }

    fn full(&self) -> StoreError {
        let path = self.shared.pages.medium().path().to_owned();
        StoreError::Full { attempted: "commit".into(), path }
    }

    fn log_error(&self, source: std::io::Error) -> StoreError {
        StoreError::io(format!("append to the log of {}", self.shared.path().display()), source)
    }

    /// From here on nothing is written until the store is opened again: what the disk holds is
    /// only known then.
    fn fail(&mut self, error: StoreError) {
        tracing::error!(error = %stdx::one_line(&error), "the ledger takes no more writes");
        self.shared.fail(error.clone());
        for (_, answer) in self.forgetters.drain(..) {
            let _gone = answer.send(Err(error.clone().into()));
        }
        self.forget = Revision::ZERO;
    }
}

impl Drop for Writer {
    /// Also when the thread panics: nobody is to wait for an answer that never comes.
    fn drop(&mut self) {
        self.shared.queue.abandon();
        self.shared.close_database();
        self.shared.hub.close();
    }
}

/// Bytes that the disk has left.
struct Room(u64);

impl Room {
    fn admits(&self, batch: &Batch) -> bool {
        let deletes = |change: &Change| matches!(change, Change::Delete);
        if batch.writes.iter().all(|write| deletes(&write.change)) {
            self.0 >= RESERVE / 2
        } else {
            self.0 >= RESERVE + 4 * batch.bytes() as u64
        }
    }
}

fn decide(
    shared: &Shared,
    group: &mut Group,
    tables: &mut Tables<'_>,
    request: Request,
    now: Timestamp,
) -> Result<(), redb::StorageError> {
    match request {
        Request::Commit { batch, answer } => {
            let look = |key: &Key| tables.head(key).map_err(Refusal::Storage);
            let exists = |lease| shared.leases().exists(lease);
            let judged = match judge(batch, tables.state.latest.next(), look, exists) {
                Ok(rows) if rows.is_empty() => Ok(tables.state.latest),
                Ok(rows) => Ok(group.commit(tables, rows, now)?),
                Err(Refusal::Batch(error)) => Err(error),
                Err(Refusal::Storage(error)) => return Err(error),
            };
            group.answers.push(Answer::Commit(answer, judged));
        }
        Request::Grant { ttl, answer } => {
            let lease = LeaseId(tables.state.lease_last + 1);
            group.item(tables, Item::Grant { lease, ttl })?;
            group.granted.push((lease, ttl));
            group.answers.push(Answer::Grant(answer, lease));
        }
        Request::Revoke { lease, answer } => {
            let judged = if shared.leases().exists(lease) {
                shared.leases().remove(lease);
                group.revoke(tables, lease, now)?;
                Ok(())
            } else {
                Err(LeaseError::Gone { lease })
            };
            group.answers.push(Answer::Revoke(answer, judged));
        }
        Request::Compact { .. } => unreachable!("compactions are not part of a group"),
    }
    Ok(())
}

fn refuse(requests: Vec<Request>, refusal: &StoreError) {
    for request in requests {
        let refusal = refusal.clone();
        let _gone = match request {
            Request::Commit { answer, .. } => answer.send(Err(refusal.into())).is_err(),
            Request::Grant { answer, .. } => answer.send(Err(refusal)).is_err(),
            Request::Revoke { answer, .. } => answer.send(Err(refusal.into())).is_err(),
            Request::Compact { answer, .. } => answer.send(Err(refusal.into())).is_err(),
        };
    }
}
