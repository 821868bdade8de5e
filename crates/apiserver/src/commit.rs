//! From what was admitted to one revision of the ledger: all of it or nothing.
//!
//! Nothing is locked meanwhile. Each draft names the version that it judged; when another write came
//! first, the proposal is made again on what is there now.

use crate::{server::Server, view::View};
use api::{AnyObject, Failure, KindRef, core::v1::Namespace};
use bytes::Bytes;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};
use store::{Batch, Check, CommitError, Expect, Key, Revision, StoreError, Write};
use tokio::sync::{Mutex, MutexGuard};
use world::{ObjectKey, Row};

/// A proposal is made this often before its author hears of the conflict: each round somebody else's
/// write succeeded, so the ledger moves on all the same.
const ROUNDS: usize = 32;

/// When to try again what was not even begun: an etcd elects its leader within this time.
const RETRY_AFTER_S: u32 = 1;

/// What a commit will do to one object.
pub(crate) struct Draft {
    pub(crate) kind: KindRef,
    pub(crate) key: ObjectKey,
    /// The version that was judged.
    pub(crate) judged: Option<Arc<Row>>,
    pub(crate) effect: Effect,
    /// Other keys that the commit writes and checks for this object's sake.
    pub(crate) writes: Vec<Write>,
    pub(crate) checks: Vec<Check>,
    pub(crate) warnings: Vec<String>,
    /// Whether it uses more of a quota of its namespace.
    pub(crate) charges: bool,
}

pub(crate) enum Effect {
    /// The bytes to be stored, and the object that they say.
    Put(Bytes, AnyObject),
    Remove,
    /// The object is as it should be; `checked`: and must still be so at the commit.
    Keep {
        checked: bool,
    },
}

/// What a commit did.
pub(crate) struct Settled {
    pub(crate) revision: u64,
    pub(crate) outcomes: Vec<Outcome>,
}

pub(crate) struct Outcome {
    /// The object as it is now; for a removal as it was.
    pub(crate) row: Option<Arc<Row>>,
    pub(crate) removed: bool,
    pub(crate) warnings: Vec<String>,
}

/// Locks that are held from judging a namespace's quotas until the commit. Several namespaces may
/// share one; the ledger's own checks, not these, keep what is judged true.
pub(crate) struct Turns([Mutex<()>; 64]);

impl Default for Turns {
    fn default() -> Turns {
        Turns(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Turns {
    async fn of(&self, namespace: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % 64).unwrap_or(0);
        self.0[at].lock().await
    }
}

impl Draft {
    pub(crate) fn new(
        kind: &KindRef,
        key: ObjectKey,
        judged: Option<&Arc<Row>>,
        effect: Effect,
    ) -> Draft {
        Draft {
            kind: kind.clone(),
            key,
            judged: judged.cloned(),
            effect,
            writes: Vec::new(),
            checks: Vec::new(),
            warnings: Vec::new(),
            charges: false,
        }
    }

    fn expect(&self) -> Expect {
        self.judged.as_ref().map_or(Expect::Absent, |it| Expect::At(Revision(it.revision)))
    }
}

impl Server {
    /// Proposes until the commit holds. `propose` judges the view that it is given and nothing else.
    pub(crate) async fn write(
        &self,
        dry_run: bool,
        mut propose: impl FnMut(&View) -> Result<Vec<Draft>, Failure>,
    ) -> Result<Settled, Failure> {
        let mut view = self.ledger.view();
        let mut contested = None;
        let mut turn = None;
        for _ in 0..ROUNDS {
            let drafts = propose(&view)?;
            if let Some(charged) = drafts.iter().find(|it| it.charges)
                && turn.is_none()
                && !dry_run
            {
                // The next round judges what the one before this left.
                turn = Some(self.turns.of(&charged.key.namespace).await);
                view = self.ledger.view();
                continue;
            }
            contested = drafts.first().map(|it| (it.kind.clone(), it.key.name.clone()));
            if dry_run {
                return settle_dry(&view, drafts);
            }
            let batch = self.batch(&drafts).await?;
            let handed = self.ledger.hand_over(&drafts);
            let committed = self.store.commit(batch).await;
            match committed {
                Ok(revision) => {
                    // It is written, whenever this process is told of it: an etcd may be gone by now.
                    let view = self.ledger.reached_soon(revision.0).await;
                    let view = view.unwrap_or_else(|| self.ledger.view());
                    drop(handed);
                    for it in drafts.iter().filter(|it| is_namespace_that_goes(it)) {
                        self.recorder.sweep(&it.key.name);
                    }
                    return settle(&view, revision.0, drafts);
                }
                Err(CommitError::Conflict { key, .. }) if crate::epoch::is_key(&key) => {
                    return Err(Failure::unavailable("another server leads now"));
                }
                Err(CommitError::Conflict { actual, .. }) => {
                    let seen = match actual {
                        Some(revision) => revision,
                        None => self.store.latest().await.map_err(store_failure)?,
                    };
                    let behind = || {
                        let why = "nothing was written: the ledger has changed, and this server is not told how";
                        Failure::unavailable(why)
                    };
                    view = self.ledger.reached_soon(seen.0).await.ok_or_else(behind)?;
                }
                // The lease that events hang on has ended: the next batch gets another.
                Err(CommitError::NoLease { .. }) => self.recorder.forget_lease(),
                Err(error) => return Err(commit_failure(error)),
            }
        }
        Err(match contested {
            Some((kind, name)) => Failure::modified(&kind, &name),
            None => Failure::internal("nothing was proposed"),
        })
    }

    async fn batch(&self, drafts: &[Draft]) -> Result<Batch, Failure> {
        let mut batch = Batch::new();
        let mut checks: Vec<Check> = Vec::new();
        for draft in drafts {
            let key: Key = draft.kind.key(&draft.key.namespace, &draft.key.name).into();
            match &draft.effect {
                Effect::Put(bytes, _) => {
                    let lease = match crate::view::is_event(&draft.kind) {
                        true => Some(self.recorder.lease(self).await?),
                        false => None,
                    };
                    let entropy = &*self.config.entropy;
                    let sealed = self.config.access.encryption.seal(
                        &draft.kind,
                        key.as_str(),
                        bytes,
                        entropy,
                    );
                    let value = sealed.map_err(Failure::internal)?;
                    let change = store::Change::Put { value, lease };
                    batch.writes.push(Write { key, expect: draft.expect(), change });
                }
                Effect::Remove => {
                    let change = store::Change::Delete;
                    batch.writes.push(Write { key, expect: draft.expect(), change });
                }
                Effect::Keep { checked: true } => {
                    checks.push(Check { key, expect: draft.expect() });
                }
                Effect::Keep { checked: false } => {}
            }
            batch.writes.extend(draft.writes.iter().cloned());
            checks.extend(draft.checks.iter().cloned());
        }
        // A batch names a key once: what is written is checked by its write.
        checks.sort_by(|a, b| a.key.cmp(&b.key));
        checks.dedup_by(|a, b| a.key == b.key);
        checks.retain(|check| batch.writes.iter().all(|write| write.key != check.key));
        batch.checks = checks;
        Ok(batch)
    }
}

fn is_namespace_that_goes(draft: &Draft) -> bool {
    let goes = match &draft.effect {
        Effect::Remove => true,
        Effect::Put(_, object) => object.metadata().deletion_timestamp.is_some(),
        Effect::Keep { .. } => false,
    };
    goes && draft.kind == *api::kind_of::<Namespace>()
}

fn settle(view: &View, revision: u64, drafts: Vec<Draft>) -> Result<Settled, Failure> {
    let outcome = |draft: Draft| -> Result<Outcome, Failure> {
        let removed = matches!(draft.effect, Effect::Remove);
        let row = match draft.effect {
            Effect::Put(bytes, _) => match view.row(&draft.kind, &draft.key) {
                Some(row) if row.revision == revision => Some(row.clone()),
                // Somebody wrote again since: the answer is what this commit wrote.
                _ => Some(Arc::new(
                    Row::new(&draft.kind, bytes, revision).map_err(Failure::internal)?,
                )),
            },
            Effect::Remove | Effect::Keep { .. } => draft.judged,
        };
        Ok(Outcome { row, removed, warnings: draft.warnings })
    };
    let outcomes = drafts.into_iter().map(outcome).collect::<Result<_, _>>()?;
    Ok(Settled { revision, outcomes })
}

/// What the commit would have done: an object that never was has no revision.
fn settle_dry(view: &View, drafts: Vec<Draft>) -> Result<Settled, Failure> {
    let outcome = |draft: Draft| -> Result<Outcome, Failure> {
        let removed = matches!(draft.effect, Effect::Remove);
        let revision = draft.judged.as_ref().map_or(0, |it| it.revision);
        let row = match draft.effect {
            Effect::Put(bytes, _) => {
                Some(Arc::new(Row::new(&draft.kind, bytes, revision).map_err(Failure::internal)?))
            }
            Effect::Remove | Effect::Keep { .. } => draft.judged,
        };
        Ok(Outcome { row, removed, warnings: draft.warnings })
    };
    let outcomes = drafts.into_iter().map(outcome).collect::<Result<_, _>>()?;
    Ok(Settled { revision: view.revision, outcomes })
}

pub(crate) fn store_failure(error: StoreError) -> Failure {
    match error {
        StoreError::Closed => Failure::unavailable("the server is shutting down"),
        StoreError::Full { .. } => {
            let why = stdx::one_line(&error);
            let why =
                format!("nothing was written: {why}; reads go on, and writes once there is room");
            Failure::new(507, "InsufficientStorage", why)
        }
        StoreError::Unavailable { .. } => {
            let mut failure = Failure::unavailable(format!(
                "nothing was done: the ledger does not answer: {}",
                stdx::one_line(&error)
            ));
            failure.details.get_or_insert_default().retry_after_seconds = RETRY_AFTER_S;
            failure
        }
        error => Failure::internal(stdx::one_line(&error)),
    }
}

pub(crate) fn commit_failure(error: CommitError) -> Failure {
    match error {
        CommitError::TooLarge { .. } => {
            let why = format!("Request entity too large: {error}");
            Failure::new(413, "RequestEntityTooLarge", why)
        }
        CommitError::Store(error) => store_failure(error),
        error => Failure::internal(stdx::one_line(&error)),
    }
}
