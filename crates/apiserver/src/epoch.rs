//! Several servers on one ledger, loops in one of them: who was told to lead writes a key, and every commit of its loops
//! expects that key as it left it. Whoever leads next writes it again, and nothing of the one before comes in any more,
//! however late it finds out.

use crate::{
    commit::{commit_failure, store_failure},
    server::Server,
};
use api::{Failure, KindRef, coordination::v1::Lease};
use store::{Batch, Check, CommitError, Expect, Key, Revision};
use world::ObjectKey;

const KEY: &str = "/registry/stanchion/epoch";

/// The time in which one server leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(Revision);

impl Epoch {
    pub(crate) fn check(self) -> Check {
        Check { key: KEY.into(), expect: Expect::At(self.0) }
    }
}

pub(crate) fn is_key(key: &Key) -> bool {
    key.as_str() == KEY
}

impl Server {
    /// Begins a new epoch, if the lease by which this server leads is still the one that it wrote at `revision`.
    pub async fn begin_epoch(
        &self,
        lease: &ObjectKey,
        revision: u64,
        leader: &str,
    ) -> Result<Epoch, Failure> {
        let kind: &KindRef = api::kind_of::<Lease>();
        let held = kind.key(&lease.namespace, &lease.name);
        let batch = Batch::new().check(held, Expect::At(Revision(revision))).put(
            KEY,
            Expect::Whatever,
            leader.to_owned(),
        );
        let began = self.store.commit(batch).await.map_err(|error| match error {
            CommitError::Conflict { .. } => Failure::modified(kind, &lease.name),
            CommitError::Store(error) => store_failure(error),
            error => commit_failure(error),
        })?;
        Ok(Epoch(began))
    }
}
