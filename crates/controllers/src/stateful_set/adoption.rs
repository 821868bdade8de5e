//! Which pods and revisions are the set's: those that it controls and its selector chooses. Orphans
//! that fit are taken in, its own that fit no longer are let go.
//!
//! Upstream: `pkg/controller/controller_ref_manager.go` (1.36), ClaimObject; `stateful_set.go`,
//! adoptOrphanRevisions.

use crate::owner;
use api::{
    Kind,
    apps::{
        stateful_set::ordinal_of,
        v1::{ControllerRevision, StatefulSet},
    },
    core::v1::Pod,
    meta::Selector,
};
use std::sync::Arc;
use world::{Change, ObjectKey, Plan, Row, World};

/// Plans what has to change hands. Nothing planned: what the set controls is what it should.
pub(super) fn settle(world: &World, set: &StatefulSet, plan: &mut Plan) {
    if api::Object::is_deleting(set) {
        return;
    }
    let selector = Selector::of(set.spec.as_ref().map(|it| &it.selector));
    let is_ours = |row: &Row| ordinal_of(set, &row.meta.name).is_some();
    adopt::<Pod>(world, set, &selector, &is_ours, plan);
    adopt::<ControllerRevision>(world, set, &selector, &|_| true, plan);
    let pods = world.table::<Pod>().into_iter().flat_map(|it| it.owned(api::Object::uid(set)));
    for row in pods.filter(|it| controls(set, it)) {
        let fits = selector.matches(&row.meta.labels) && is_ours(row);
        if let Some(pod) = row.typed::<Pod>().filter(|_| !fits && row.meta.deletion.is_none()) {
            let mut pod = pod.to_owned();
            let mut owners = pod.metadata.owner_references.take().unwrap_or_default();
            owners.retain(|it| it.uid != api::Object::uid(set));
            pod.metadata.owner_references = (!owners.is_empty()).then_some(owners);
            plan.write([Change::update(pod)]);
        }
    }
}

fn adopt<T: Kind>(
    world: &World,
    set: &StatefulSet,
    selector: &Selector,
    is_ours: &dyn Fn(&Row) -> bool,
    plan: &mut Plan,
) {
    // The names of a set's pods and revisions begin with its own: that is how few are looked at.
    let prefix = format!("{}-", api::Object::name(set));
    let from = ObjectKey::new(api::Object::namespace(set), &prefix);
    let named = |row: &&Arc<Row>| {
        *row.meta.namespace == *from.namespace && row.meta.name.starts_with(&prefix)
    };
    let rows = world.table::<T>().into_iter().flat_map(|it| it.rows_after(&from)).take_while(named);
    let orphans = rows.filter(|it| it.meta.controller().is_none() && it.meta.deletion.is_none());
    for row in orphans.filter(|it| is_ours(it) && selector.matches(&it.meta.labels)) {
        let Some(object) = row.typed::<T>() else { continue };
        let mut object = object.to_owned();
        let owners = object.metadata_mut().owner_references.get_or_insert_default();
        owners.retain(|it| it.uid != api::Object::uid(set));
        owners.push(owner(set));
        // Only if the set is still there: an orphan of a set that goes is to stay one.
        plan.write([Change::update(object), Change::check(set)]);
    }
}

fn controls(set: &StatefulSet, row: &Row) -> bool {
    row.meta.controller().is_some_and(|it| it.uid == api::Object::uid(set))
}
