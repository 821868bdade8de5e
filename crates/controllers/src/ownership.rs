//! Whose an object is: orphans that a selector chooses are taken in, own ones that it chooses no longer
//! are let go.
//!
//! Upstream: `pkg/controller/controller_ref_manager.go` (1.36), ClaimObject.

use crate::owner;
use api::{Failure, Kind, apps::templated::Templated, core::v1::Pod};
use std::sync::Arc;
use world::{Change, Event, ObjectKey, Plan, Row, Touched, Typed, Verb, World};

/// What nobody controls wakes those that would have it.
pub(crate) fn choosers<O: Kind + Templated>(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let Some(row) = touched.new.as_ref().filter(|it| it.meta.controller().is_none()) else {
        return Vec::new();
    };
    let chooses = |it: &Typed<O>| it.own_pods().matches(&row.meta.labels);
    world.list::<O>(&touched.key.namespace).filter(chooses).map(|it| ObjectKey::of(&*it)).collect()
}

/// Pods of a namespace that nobody controls.
pub(crate) fn orphans<'a>(
    world: &'a World,
    namespace: &'a str,
) -> impl Iterator<Item = &'a Arc<Row>> {
    let pods = world.table::<Pod>().map(|it| it.indexed("orphan", namespace));
    pods.into_iter().flatten()
}

/// Says that a pod could not be made.
pub(crate) fn refused<O: Kind>(
    world: &World,
    key: &ObjectKey,
    changes: &[Change],
    failure: &Failure,
) -> Plan {
    let mut plan = Plan::default();
    let is_pod = changes.iter().any(|it| it.verb == Verb::Create);
    if let Some(by) = world.get::<O>(key).filter(|_| is_pod) {
        plan.event(Event::warning(&*by, "FailedCreate", format!("Error creating: {failure}")));
    }
    plan
}

/// Plans what has to change hands between `owner` and the objects of one kind. Nothing planned: what it
/// controls is what it should. `orphans` are objects of its namespace that nobody controls.
pub(crate) fn settle<'a, O: Kind + Templated, T: Kind>(
    world: &World,
    owner: &O,
    orphans: impl Iterator<Item = &'a Arc<Row>>,
    plan: &mut Plan,
) {
    if owner.is_deleting() {
        return;
    }
    let selector = owner.own_pods();
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
