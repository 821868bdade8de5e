//! Which templates there were, which one is current and which one is to come.
//!
//! Upstream: `stateful_set_control.go`, getStatefulSetRevisions and truncateHistory.

use crate::owner;
use api::{
    Object,
    apps::{
        history::{at_revision, revision_of, same_template},
        stateful_set::{REVISION_LABEL, first_ordinal},
        v1::{ControllerRevision, StatefulSet},
    },
    core::v1::Pod,
};
use world::{Change, ObjectKey, Plan, World};

pub(super) struct Revisions {
    /// What a pod gets below the partition: the template before the update that is under way.
    pub(super) current: ControllerRevision,
    pub(super) current_name: String,
    /// The template as it is now.
    pub(super) update_name: String,
    pub(super) collisions: i32,
    /// Pods that have the current template now. The status may say what was true a moment ago.
    at_current: i32,
    is_new: bool,
}

/// A template to make a pod from.
pub(super) struct Source {
    pub(super) set: StatefulSet,
    pub(super) name: String,
}

/// Finds the revisions; plans the one that is missing.
pub(super) fn look(world: &World, set: &StatefulSet, pods: &[Pod], plan: &mut Plan) -> Revisions {
    let mut collisions = set.status.as_ref().and_then(|it| it.collision_count).unwrap_or(0);
    let known = history(world, set);
    let next = known.last().map_or(1, |it| it.revision + 1);
    let mut wanted = revision_of(set, next, collisions);
    let namesake = |it: &ControllerRevision| world.get::<ControllerRevision>(&ObjectKey::of(it));
    while namesake(&wanted).is_some_and(|it| !same_template(&it, &wanted)) {
        collisions += 1;
        wanted = revision_of(set, next, collisions);
    }
    wanted.metadata.owner_references = Some(vec![owner(set)]);
    let same = known.iter().rfind(|it| same_template(it, &wanted)).cloned();
    let is_new = same.is_none();
    let update = match same {
        None => {
            // One of the same name and template may be there still, of a set that goes.
            if !set.is_deleting() && namesake(&wanted).is_none() {
                plan.write([Change::create(wanted.clone())]);
            }
            wanted
        }
        // An old template came back: it is the latest again.
        Some(mut old) if known.last().is_some_and(|it| it.name() != old.name()) => {
            old.revision = next;
            if !set.is_deleting() {
                plan.write([Change::update(old.clone())]);
            }
            old
        }
        Some(latest) => latest,
    };
    let current_name = set.status.as_ref().and_then(|it| it.current_revision.as_deref());
    let current = known.iter().find(|it| Some(it.name()) == current_name);
    let current = current.cloned().unwrap_or_else(|| update.clone());
    let has_current = |it: &&Pod| it.label(REVISION_LABEL) == Some(current.name());
    let at_current = pods.iter().filter(has_current).filter(|it| !it.is_deleting()).count();
    Revisions {
        at_current: i32::try_from(at_current).unwrap_or(i32::MAX),
        current_name: current.name().to_owned(),
        current,
        update_name: update.name().to_owned(),
        collisions,
        is_new,
    }
}

impl Revisions {
    /// Below the partition, and while an update is under way below what it has reached, a new pod
    /// gets the template that its predecessor had.
    pub(super) fn for_new_pod(&self, set: &StatefulSet, ordinal: i32) -> Source {
        let strategy = set.spec.as_ref().and_then(|it| it.update_strategy.as_ref());
        let is_rolling = strategy.is_none_or(|it| it.type_.as_deref() != Some("OnDelete"));
        let partition = strategy.and_then(|it| it.rolling_update.as_ref()?.partition);
        let first = first_ordinal(set);
        let below = match partition {
            Some(partition) => ordinal < first + partition,
            None => is_rolling && ordinal < first + self.at_current,
        };
        if is_rolling && below && self.current_name != self.update_name {
            let set = at_revision(set, &self.current);
            return Source { set, name: self.current_name.clone() };
        }
        Source { set: set.clone(), name: self.update_name.clone() }
    }
}

/// Drops revisions that nothing uses, the oldest first, beyond the limit.
pub(super) fn forget_old(
    world: &World,
    set: &StatefulSet,
    revisions: &Revisions,
    pods: &[Pod],
    plan: &mut Plan,
) {
    let limit = set.spec.as_ref().and_then(|it| it.revision_history_limit).unwrap_or(10);
    let live = |it: &ControllerRevision| {
        it.name() == revisions.current_name
            || it.name() == revisions.update_name
            || pods.iter().any(|pod| pod.label(REVISION_LABEL) == Some(it.name()))
    };
    let unused: Vec<_> = history(world, set).into_iter().filter(|it| !live(it)).collect();
    // A negative limit keeps all.
    let Ok(keep) = usize::try_from(limit) else { return };
    if revisions.is_new {
        return;
    }
    for old in unused.iter().take(unused.len().saturating_sub(keep)) {
        plan.write([Change::delete(old)]);
    }
}

/// All revisions of the set, the oldest first.
fn history(world: &World, set: &StatefulSet) -> Vec<ControllerRevision> {
    let mut all: Vec<ControllerRevision> =
        world.owned::<ControllerRevision>(set.uid()).map(|it| it.to_owned()).collect();
    all.sort_by(|a, b| (a.revision, a.name()).cmp(&(b.revision, b.name())));
    all
}
