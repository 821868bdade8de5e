//! The templates that a DaemonSet has had, as ControllerRevisions; its pods bear the hash of theirs.
//!
//! Upstream: `pkg/controller/daemon/update.go` (1.36), constructHistory.

use super::Look;
use crate::owner;
use api::{
    Object,
    apps::{
        history::{HASH_LABEL, revision_of, same_template},
        stateful_set::REVISION_LABEL,
        v1::{ControllerRevision, DaemonSet},
    },
};
use world::{Change, ObjectKey, Plan, World};

pub(super) struct Latest {
    pub(super) hash: String,
    pub(super) collisions: i32,
}

/// Finds the revision of the template as it is now; plans it, or its return to the top.
pub(super) fn look(world: &World, set: &DaemonSet, plan: &mut Plan) -> Latest {
    let mut collisions = set.status.as_ref().and_then(|it| it.collision_count).unwrap_or(0);
    let known = history(world, set);
    let next = known.last().map_or(1, |it| it.revision + 1);
    if let Some(same) = known.iter().rfind(|it| same_template(it, &revision_of(set, next, 0))) {
        if known.last().is_some_and(|it| it.name() != same.name()) && !set.is_deleting() {
            let mut again = same.clone();
            again.revision = next;
            plan.write([Change::update(again)]);
        }
        let hash = same.label(REVISION_LABEL).or_else(|| same.label(HASH_LABEL));
        return Latest { hash: hash.unwrap_or_default().to_owned(), collisions };
    }
    let mut wanted = revision_of(set, next, collisions);
    while world.row_of::<ControllerRevision>(&ObjectKey::of(&wanted)).is_some() {
        collisions += 1;
        wanted = revision_of(set, next, collisions);
    }
    let hash = wanted.label(HASH_LABEL).unwrap_or_default().to_owned();
    let labels = wanted.metadata.labels.get_or_insert_default();
    labels.remove(HASH_LABEL);
    labels.insert(REVISION_LABEL.to_owned(), hash.clone());
    wanted.metadata.owner_references = Some(vec![owner(set)]);
    if !set.is_deleting() {
        plan.write([Change::create(wanted)]);
    }
    Latest { hash, collisions }
}

impl Look<'_> {
    /// Drops revisions that no pod has, the oldest first, beyond the limit.
    pub(super) fn forget_old_revisions(&mut self) {
        let limit = self.spec.revision_history_limit.unwrap_or(10);
        let Ok(keep) = usize::try_from(limit) else { return };
        let is_live = |it: &ControllerRevision| {
            let hash = it.label(REVISION_LABEL);
            hash == Some(&self.revision)
                || self.pods.values().flatten().any(|pod| pod.label(REVISION_LABEL) == hash)
        };
        let unused: Vec<_> =
            history(self.world, self.set).into_iter().filter(|it| !is_live(it)).collect();
        for old in unused.iter().take(unused.len().saturating_sub(keep)) {
            self.plan.write([Change::delete(old)]);
        }
    }
}

/// All revisions of the set, the oldest first.
fn history(world: &World, set: &DaemonSet) -> Vec<ControllerRevision> {
    let mut all: Vec<ControllerRevision> =
        world.owned::<ControllerRevision>(set.uid()).map(|it| it.to_owned()).collect();
    all.sort_by(|a, b| (a.revision, a.name()).cmp(&(b.revision, b.name())));
    all
}
