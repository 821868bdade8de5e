//! Whose an object is: orphans that a selector chooses are taken in, own ones that it chooses no longer
//! are let go.
//!
//! Upstream: `pkg/controller/controller_ref_manager.go` (1.36), ClaimObject.

use crate::owner;
use api::{Kind, meta::Selector};
use std::sync::Arc;
use world::{Change, Plan, Row, World};

/// Plans what has to change hands between `owner` and the objects of one kind. Nothing planned: what it
/// controls is what it should. `orphans` are objects of its namespace that nobody controls.
pub(crate) fn settle<'a, O: Kind, T: Kind>(
    world: &World,
    owner: &O,
    selector: &Selector,
    orphans: impl Iterator<Item = &'a Arc<Row>>,
    plan: &mut Plan,
) {
    if owner.is_deleting() {
        return;
    }
    for row in orphans.filter(|it| it.meta.controller().is_none() && it.meta.deletion.is_none()) {
        if selector.matches(&row.meta.labels) {
            adopt::<O, T>(owner, row, plan);
        }
    }
    let owned = world.table::<T>().into_iter().flat_map(|it| it.owned(owner.uid()));
    for row in owned.filter(|it| is_controlled(owner, it) && it.meta.deletion.is_none()) {
        if !selector.matches(&row.meta.labels) {
            release::<O, T>(owner, row, plan);
        }
    }
}

/// Only if the owner is still there: an orphan of one that goes is to stay an orphan.
pub(crate) fn adopt<O: Kind, T: Kind>(by: &O, row: &Row, plan: &mut Plan) {
    let Some(object) = row.typed::<T>() else { return };
    let mut object = object.to_owned();
    let owners = object.metadata_mut().owner_references.get_or_insert_default();
    owners.retain(|it| it.uid != by.uid());
    owners.push(owner(by));
    plan.write([Change::update(object), Change::check(by)]);
}

pub(crate) fn release<O: Kind, T: Kind>(by: &O, row: &Row, plan: &mut Plan) {
    let Some(object) = row.typed::<T>() else { return };
    let mut object = object.to_owned();
    let mut owners = object.metadata_mut().owner_references.take().unwrap_or_default();
    owners.retain(|it| it.uid != by.uid());
    object.metadata_mut().owner_references = (!owners.is_empty()).then_some(owners);
    plan.write([Change::update(object)]);
}

pub(crate) fn is_controlled<O: Kind>(by: &O, row: &Row) -> bool {
    row.meta.controller().is_some_and(|it| it.uid == by.uid())
}
