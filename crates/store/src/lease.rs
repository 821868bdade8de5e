//! Leases: which are running, and when each ends. Times live in memory only: a restart gives
//! every lease its whole time again, since nobody could keep it alive meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};
use stdx::Timestamp;

/// Names a lease. Never given out twice by one ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Running leases by their end.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    ttl: BTreeMap<LeaseId, (Duration, Timestamp)>,
    ends: BTreeSet<(Timestamp, LeaseId)>,
}

impl Leases {
    pub(crate) fn grant(&mut self, lease: LeaseId, ttl: Duration, now: Timestamp) {
        let end = now.plus(ttl);
        self.ttl.insert(lease, (ttl, end));
        self.ends.insert((end, lease));
    }

    pub(crate) fn exists(&self, lease: LeaseId) -> bool {
        self.ttl.contains_key(&lease)
    }

    /// False if there is no such lease.
    pub(crate) fn keep_alive(&mut self, lease: LeaseId, now: Timestamp) -> bool {
        let Some((ttl, end)) = self.ttl.get_mut(&lease) else { return false };
        self.ends.remove(&(*end, lease));
        *end = now.plus(*ttl);
        self.ends.insert((*end, lease));
        true
    }

    pub(crate) fn remove(&mut self, lease: LeaseId) {
        if let Some((_, end)) = self.ttl.remove(&lease) {
            self.ends.remove(&(end, lease));
        }
    }

    pub(crate) fn all(&self) -> Vec<(LeaseId, Duration)> {
        self.ttl.iter().map(|(lease, (ttl, _))| (*lease, *ttl)).collect()
    }

    pub(crate) fn expired(&self, now: Timestamp) -> Vec<LeaseId> {
        self.ends.iter().take_while(|(end, _)| *end <= now).map(|(_, lease)| *lease).collect()
    }

    /// How long until the next one ends, if any is running.
    pub(crate) fn next_end(&self, now: Timestamp) -> Option<Duration> {
        self.ends.first().map(|(end, _)| end.since(now))
    }
}
