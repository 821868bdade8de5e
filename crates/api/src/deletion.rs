//! What a deletion does to an object: one set of rules for the door and for `World::after`.
//!
//! Upstream: `apiserver/pkg/registry/rest/delete.go`, `registry/generic/registry/store.go`.

use crate::{
    any::{AnyKind, AnyObject, Erased},
    meta,
};
use stdx::Timestamp;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// Who is deleted with an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents go afterwards.
    Background,
    /// The owner waits for its dependents.
    Foreground,
    /// Dependents stay, without this owner.
    Orphan,
}

/// What becomes of the object now.
#[derive(Clone, Debug)]
pub enum Deletion {
    /// Nothing holds it: it goes in this commit.
    Gone,
    /// It stays, marked, until its finalizers and its grace are over.
    Marked(AnyObject),
    /// It was marked before, and stays as it is.
    Unchanged,
}

/// What becomes of dependents when nobody says: what was decided before, else what the kind does.
pub fn unasked(kind: &AnyKind, object: &dyn Erased) -> Option<Propagation> {
    let finalizers = object.metadata().finalizers.as_deref().unwrap_or_default();
    let decided = finalizers.iter().any(|it| it == ORPHAN || it == FOREGROUND);
    (kind.orphans && !decided).then_some(Propagation::Orphan)
}

/// Decides one deletion.
pub fn delete(
    kind: &AnyKind,
    object: &dyn Erased,
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
    now: Timestamp,
) -> Deletion {
    let mut marked = object.clone_box();
    let grace = kind.rules.deletion_grace(object, grace_seconds);
    let meta = marked.metadata_mut();
    let mut changed = false;
    let finalizers = meta.finalizers.get_or_insert_default();
    let mut want = |finalizer: &str, wanted: bool| {
        let has = finalizers.iter().position(|it| it == finalizer);
        match (wanted, has) {
            (true, None) => finalizers.push(finalizer.to_owned()),
            (false, Some(at)) => drop(finalizers.remove(at)),
            _ => return,
        }
        changed = true;
    };
    if let Some(propagation) = propagation {
        want(ORPHAN, propagation == Propagation::Orphan);
        want(FOREGROUND, propagation == Propagation::Foreground);
    }
    let held = !finalizers.is_empty();
    if !held {
        meta.finalizers = None;
    }
    let seconds = grace.unwrap_or(0).max(0);
    if kind.rules.is_held(object) {
        // Upstream: pkg/registry/core/namespace/storage, Delete. There is no grace to count.
        if meta.deletion_timestamp.is_none() {
            meta.deletion_timestamp = Some(meta::time(now));
            changed = true;
            kind.rules.begin_deletion(&mut marked);
        }
        return if changed { Deletion::Marked(marked) } else { Deletion::Unchanged };
    }
    if !held && seconds == 0 {
        return Deletion::Gone;
    }
    match (&meta.deletion_timestamp, meta.deletion_grace_period_seconds) {
        (Some(_), before) if before.unwrap_or(0) <= seconds => {}
        (Some(at), before) => {
            // A shorter grace counts from the first request.
            let begun = meta::timestamp_of(at).seconds() - before.unwrap_or(0);
            let end = (begun + seconds).max(now.seconds());
            meta.deletion_timestamp = Some(meta::time(Timestamp::from_seconds(end)));
            meta.deletion_grace_period_seconds = Some(seconds);
            changed = true;
        }
        (None, _) => {
            let end = Timestamp::from_seconds(now.seconds() + seconds);
            meta.deletion_timestamp = Some(meta::time(end));
            meta.deletion_grace_period_seconds = Some(seconds);
            if kind.rules.generation() {
                meta.generation = Some(meta.generation.unwrap_or(0) + 1);
            }
            changed = true;
        }
    }
    if changed { Deletion::Marked(marked) } else { Deletion::Unchanged }
}

/// Whether an object that is being written has nothing left to wait for and goes instead.
pub fn is_over(kind: &AnyKind, object: &dyn Erased) -> bool {
    let meta = object.metadata();
    meta.deletion_timestamp.is_some()
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && !kind.rules.is_held(object)
}
