//! Which pods and revisions are the set's: those that it controls and its selector chooses. Orphans
//! that fit are taken in, its own that fit no longer are let go.
//!
//! Upstream: `pkg/controller/controller_ref_manager.go` (1.36), ClaimObject; `stateful_set.go`,
//! adoptOrphanRevisions.

use crate::ownership;
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
use world::{ObjectKey, Plan, Row, World};

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
    for row in pods.filter(|it| ownership::is_controlled(set, it) && it.meta.deletion.is_none()) {
        if !selector.matches(&row.meta.labels) || !is_ours(row) {
            ownership::release::<StatefulSet, Pod>(set, row, plan);
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
        ownership::adopt::<StatefulSet, T>(set, row, plan);
    }
}
