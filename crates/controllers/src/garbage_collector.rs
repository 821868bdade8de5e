//! Deletes objects whose owners are all gone, and sees to deletions that wait for their dependents.
//!
//! Upstream: `pkg/controller/garbagecollector/garbagecollector.go` (1.36), attemptToDeleteItem and
//! attemptToOrphanWorker. There is no graph: the world's index of owners is it. An owner counts as
//! gone only if its kind is known and no object of its uid is there, which the commit checks again.

use api::{
    AnyObject, KindRef, Scope,
    deletion::{FOREGROUND, ORPHAN, Propagation},
    meta::{Meta, Owner},
};
use std::{sync::Arc, time::Duration};
use stdx::Timestamp;
use world::{Change, Controller, Expected, ObjectKey, Plan, Row, Touched, Verb, Watch, World};

/// Its keys name the kind too: `<namespace>/<group>/<plural>/<name>`.
pub struct GarbageCollector;

/// Dependents that one plan lets go: what a loop may keep the ledger busy with before it looks again.
const DEPENDENTS_MOST: usize = 256;

/// How long until a kind that nobody knew is looked for again. Its first object wakes nobody who waits
/// for an owner of that kind.
const UNKNOWN_KIND: Duration = Duration::from_secs(30);

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "generic-garbage-collector"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::Any(concerned)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(row) = row_of(world, key) else { return plan };
        if row.meta.deletion.is_some() {
            if has(&row.meta, ORPHAN) {
                orphan(world, row, &mut plan);
            } else if has(&row.meta, FOREGROUND) {
                wait_for_dependents(world, row, &mut plan);
            }
            return plan;
        }
        collect(world, row, &mut plan);
        plan
    }
}

/// The object itself, when what it depends on changed; its dependents, when it goes; its owners, when
/// they wait for it.
fn concerned(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let (old, new) = (touched.old.as_deref(), touched.new.as_deref());
    let what = |row: Option<&Row>| {
        row.map(|it| (it.meta.owners.clone(), it.meta.finalizers.clone(), it.meta.deletion))
    };
    let is_replaced = old.zip(new).is_some_and(|(old, new)| old.meta.uid != new.meta.uid);
    if what(old) == what(new) && !is_replaced {
        return Vec::new();
    }
    let mut keys = Vec::new();
    if let Some(row) = new
        && (!row.meta.owners.is_empty() || row.meta.deletion.is_some())
    {
        keys.push(key_of(row));
    }
    let goes = new.is_none_or(|it| it.meta.deletion.is_some()) || is_replaced;
    if goes && let Some(uid) = old.or(new).map(|it| it.meta.uid.as_str()) {
        keys.extend(dependents(world, uid).map(|it| key_of(it)));
    }
    if let Some(old) = old {
        for owner in &old.meta.owners {
            if let Found::Here(owner) = find(world, old, owner)
                && owner.meta.deletion.is_some()
            {
                keys.push(key_of(owner));
            }
        }
    }
    keys
}

/// No owner is left: the object goes. Some are: it forgets the others.
fn collect(world: &World, row: &Arc<Row>, plan: &mut Plan) {
    if row.meta.owners.is_empty() {
        return;
    }
    let (mut solid, mut waiting, mut lost) = (0, Vec::new(), Vec::new());
    let mut checks = Vec::new();
    for owner in &row.meta.owners {
        match find(world, row, owner) {
            Found::Here(it) if it.meta.deletion.is_some() && has(&it.meta, FOREGROUND) => {
                waiting.push(owner);
            }
            // Upstream: a reference that cannot hold is left as it is, and so is the object.
            Found::Here(_) | Found::Misplaced => solid += 1,
            Found::Gone(check) => {
                lost.push(owner);
                checks.push(check);
            }
            Found::UnknownKind => {
                plan.requeue = Some(UNKNOWN_KIND);
                return;
            }
        }
    }
    checks.dedup_by(|one, other| one.kind == other.kind && one.key == other.key);
    let stale: Vec<&str> = waiting.iter().chain(&lost).map(|it| it.uid.as_str()).collect();
    if solid > 0 {
        if !stale.is_empty()
            && let Some(change) = without_owners(row, &stale)
        {
            plan.write([change].into_iter().chain(checks));
        }
        return;
    }
    let has_dependents = dependents(world, &row.meta.uid).next().is_some();
    let propagation = if !waiting.is_empty() && has_dependents {
        // What waits for this object waits for what depends on it too.
        unblock_circles(world, row, plan);
        Propagation::Foreground
    } else if has(&row.meta, ORPHAN) {
        Propagation::Orphan
    } else if has(&row.meta, FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    let mut change = Change::delete_row(row, Some(propagation));
    // An owner that was added meanwhile is to be seen first.
    change.expected = Expected::Revision(row.revision);
    plan.write([change].into_iter().chain(checks));
}

/// A dependent that waits for its own dependents would wait for this object, which waits for it.
fn unblock_circles(world: &World, row: &Row, plan: &mut Plan) {
    let circular = |it: &&Arc<Row>| it.meta.deletion.is_some() && has(&it.meta, FOREGROUND);
    for dependent in dependents(world, &row.meta.uid).filter(circular).take(DEPENDENTS_MOST) {
        let Ok(mut object) = dependent.copy() else { continue };
        let owners = object.metadata_mut().owner_references.iter_mut().flatten();
        let mut changed = false;
        for owner in owners.filter(|it| it.uid == row.meta.uid) {
            changed |= owner.block_owner_deletion == Some(true);
            owner.block_owner_deletion = Some(false);
        }
        if changed {
            plan.write([Change::update_any(&dependent.kind, object)]);
        }
    }
}

/// The owner goes, its dependents stay, without it.
fn orphan(world: &World, row: &Arc<Row>, plan: &mut Plan) {
    let uid = row.meta.uid.as_str();
    for dependent in dependents(world, uid).take(DEPENDENTS_MOST) {
        if let Some(change) = without_owners(dependent, &[uid]) {
            plan.write([change]);
        }
    }
    if plan.steps.is_empty() {
        drop_finalizer(row, ORPHAN, plan);
    }
}

/// The owner stays until those that block its deletion are gone; they see that for themselves.
fn wait_for_dependents(world: &World, row: &Arc<Row>, plan: &mut Plan) {
    let uid = row.meta.uid.as_str();
    let blocks = |it: &&Arc<Row>| {
        it.meta.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion)
    };
    if dependents(world, uid).find(blocks).is_none() {
        drop_finalizer(row, FOREGROUND, plan);
    }
}

fn drop_finalizer(row: &Arc<Row>, finalizer: &str, plan: &mut Plan) {
    let change = changed(row, |object| {
        let finalizers = object.metadata_mut().finalizers.get_or_insert_default();
        finalizers.retain(|it| it != finalizer);
    });
    plan.write(change);
}

fn without_owners(row: &Arc<Row>, uids: &[&str]) -> Option<Change> {
    changed(row, |object| {
        let owners = &mut object.metadata_mut().owner_references;
        owners.get_or_insert_default().retain(|it| !uids.contains(&it.uid.as_str()));
        if owners.as_ref().is_some_and(Vec::is_empty) {
            *owners = None;
        }
    })
}

/// A write of the object with a change; none for bytes that cannot be read.
fn changed(row: &Arc<Row>, change: impl FnOnce(&mut AnyObject)) -> Option<Change> {
    let mut object = row.copy().ok()?;
    change(&mut object);
    Some(Change::update_any(&row.kind, object))
}

enum Found<'a> {
    Here(&'a Arc<Row>),
    /// With what the commit has to check for it to stay so.
    Gone(Change),
    /// An object of the cluster cannot be owned by one of a namespace.
    Misplaced,
    UnknownKind,
}

/// Looks for the owner that a reference of `row` names.
fn find<'a>(world: &'a World, row: &Row, owner: &Owner) -> Found<'a> {
    let Some(kind) = kind_named(world, owner) else { return Found::UnknownKind };
    let key = match kind.scope {
        Scope::Cluster => ObjectKey::cluster(&owner.name),
        Scope::Namespaced if row.meta.namespace.is_empty() => return Found::Misplaced,
        Scope::Namespaced => ObjectKey::new(&row.meta.namespace, &owner.name),
    };
    let expected = match world.row(&kind.resource(), &key) {
        Some(it) if it.meta.uid == owner.uid => return Found::Here(it),
        Some(namesake) => Expected::Uid(namesake.meta.uid.clone()),
        None => Expected::Absent,
    };
    Found::Gone(Change { verb: Verb::Check, kind, key, expected, object: None })
}

/// The kind that a reference names, if it is built in or has had objects, and lives in the world.
fn kind_named(world: &World, owner: &Owner) -> Option<KindRef> {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let fits = |it: &&KindRef| {
        it.kind == owner.kind
            && it.group == group
            && it.served.iter().any(|it| it == version)
            // Events are not in the world: nobody can say here that one is gone.
            && !(it.group.is_empty() && it.plural == "events")
    };
    let built_in = api::kinds().iter().find(fits).cloned();
    built_in.or_else(|| world.tables().map(|it| &it.kind).find(fits).cloned())
}

fn dependents<'a>(world: &'a World, uid: &'a str) -> impl Iterator<Item = &'a Arc<Row>> {
    world.tables().flat_map(move |it| it.owned(uid))
}

fn has(meta: &Meta, finalizer: &str) -> bool {
    meta.finalizers.iter().any(|it| it == finalizer)
}

fn key_of(row: &Row) -> ObjectKey {
    let name = format!("{}/{}/{}", row.kind.group, row.kind.plural, row.meta.name);
    ObjectKey::new(&row.meta.namespace, &name)
}

fn row_of<'a>(world: &'a World, key: &ObjectKey) -> Option<&'a Arc<Row>> {
    let mut parts = key.name.splitn(3, '/');
    let (group, plural, name) = (parts.next()?, parts.next()?, parts.next()?);
    let resource = api::GroupResource { group: group.into(), resource: plural.into() };
    world.row(&resource, &ObjectKey::new(&key.namespace, name))
}

#[cfg(test)]
mod tests;
