//! What waits for the writer. Bounded: who commits waits for a place first.

use crate::{Batch, CommitError, LeaseError, LeaseId, ReadError, Revision, StoreError};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

/// Requests that may wait at once; the next ones wait for a place. Far more than the requests
/// that an API server lets in flight.
const WAITING_MAX: usize = 4096;

/// One group: enough to share a sync among all who are waiting, and small enough that the first
/// of them does not wait for the last.
const GROUP_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 2 << 20;

pub(super) enum Request {
    Commit { batch: Batch, answer: oneshot::Sender<Result<Revision, CommitError>> },
    Grant { ttl: Duration, answer: oneshot::Sender<Result<LeaseId, StoreError>> },
    Revoke { lease: LeaseId, answer: oneshot::Sender<Result<(), LeaseError>> },
    Compact { before: Revision, answer: oneshot::Sender<Result<(), ReadError>> },
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Request::Commit { batch, .. } => batch.bytes(),
            Request::Grant { .. } | Request::Revoke { .. } | Request::Compact { .. } => 0,
        }
    }
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Condvar,
    places: Semaphore,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
}

impl Queue {
    pub(super) fn new() -> Queue {
        let places = Semaphore::new(WAITING_MAX);
        Queue { waiting: Mutex::default(), news: Condvar::new(), places }
    }

    /// Waits for a place, which the caller keeps until it has its answer.
    pub(super) async fn place(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        self.places.acquire().await.map_err(|_closed| StoreError::Closed)
    }

    pub(super) fn push(&self, request: Request) -> Result<(), StoreError> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(StoreError::Closed);
        }
        waiting.requests.push_back(request);
        self.news.notify_one();
        Ok(())
    }

    /// Everything that waits, within a group's bounds; nothing if `patience` passes first. `None`
    /// once the queue is closed and empty.
    pub(super) fn take(&self, patience: Duration) -> Option<Vec<Request>> {
        let idle = |waiting: &mut Waiting| waiting.requests.is_empty() && !waiting.closed;
        let waited = self.news.wait_timeout_while(self.waiting(), patience, idle);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if waiting.closed && waiting.requests.is_empty() {
            return None;
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(request) = waiting.requests.front() {
            bytes += request.bytes();
            if !group.is_empty() && (group.len() >= GROUP_MAX || bytes > GROUP_BYTES_MAX) {
                break;
            }
            group.extend(waiting.requests.pop_front());
        }
        Some(group)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting().requests.is_empty()
    }

    /// Nothing more comes in; what waits is still taken.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.places.close();
        self.news.notify_all();
    }

    /// Drops what waits: its answers become `Closed`.
    pub(super) fn abandon(&self) {
        self.close();
        self.waiting().requests.clear();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
