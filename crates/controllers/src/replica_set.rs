//! ReplicaSet: as many pods of a template as are wanted, whichever they are.
//!
//! Upstream: `pkg/controller/replicaset/replica_set.go` (1.36), syncReplicaSet and manageReplicas.

mod victims;

use crate::{namespace::is_terminating, ownership, pod_template};
use api::{
    Failure, Kind, Object,
    apps::{
        replica_set::replicas,
        templated::Templated,
        v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
    },
    core::{
        pod::{condition, is_available, is_ready, is_terminal},
        v1::{Pod, PodTemplateSpec},
    },
    meta::{self, Selector, counted},
};
use std::{borrow::Cow, time::Duration};
use stdx::Timestamp;
use world::{Change, Controller, Event, ObjectKey, Plan, Verb, Watch, World};

pub struct ReplicaSetController;

/// Pods made or removed by one plan: a set of many thousands lets others have their turn.
const BURST: usize = 500;

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        watches::<ReplicaSet>()
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        reconcile::<ReplicaSet>(world, key, now)
    }

    fn refused(
        &self,
        world: &World,
        key: &ObjectKey,
        changes: &[Change],
        failure: &Failure,
        now: Timestamp,
    ) -> Plan {
        refused::<ReplicaSet>(world, key, changes, failure, now)
    }
}

/// A kind that is kept as a ReplicaSet is: one itself, or what can be read as one.
pub(crate) trait Replicated: Kind + Templated {
    fn as_set(&self) -> Cow<'_, ReplicaSet>;

    fn say(&mut self, status: ReplicaSetStatus);
}

impl Replicated for ReplicaSet {
    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn say(&mut self, status: ReplicaSetStatus) {
        self.status = Some(status);
    }
}

pub(crate) fn watches<O: Replicated>() -> Vec<Watch> {
    vec![Watch::of::<O>(), Watch::owned::<Pod, O>(), Watch::mapped::<Pod>(ownership::choosers::<O>)]
}

pub(crate) fn reconcile<O: Replicated>(world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(by) = world.get::<O>(key) else { return plan };
    let orphans = ownership::orphans(world, &key.namespace);
    ownership::settle::<O, Pod>(world, &*by, orphans, &mut plan);
    if !plan.steps.is_empty() {
        // The next look sees what is ours.
        return plan;
    }
    let set = by.as_set();
    let pods: Vec<Pod> = world.owned::<Pod>(set.uid()).map(|it| it.to_owned()).collect();
    if !set.is_deleting() {
        manage(world, &*by, &set, &pods, now, &mut plan);
    }
    let mut status = status(&set, &pods, now);
    if !plan.steps.is_empty() {
        // A failure stands until what failed has been done.
        status.conditions = set.status.as_ref().and_then(|it| it.conditions.clone());
    }
    write_status(&*by, &set, status, &mut plan);
    plan.requeue = next_available(&set, &pods, now);
    plan
}

pub(crate) fn refused<O: Replicated>(
    world: &World,
    key: &ObjectKey,
    changes: &[Change],
    failure: &Failure,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let Some(by) = world.get::<O>(key) else { return plan };
    let set = by.as_set();
    if let Some(status) = write_condition(&*by, &set, changes, failure, now, &mut plan) {
        write_status(&*by, &set, status, &mut plan);
    }
    plan
}

/// Tells of a refused commit; the status that says so, unless it says so already. `by` is what users
/// see: `set` itself, or what it stands for.
fn write_condition<O: Kind>(
    by: &O,
    set: &ReplicaSet,
    changes: &[Change],
    failure: &Failure,
    now: Timestamp,
    plan: &mut Plan,
) -> Option<ReplicaSetStatus> {
    let (reason, doing) = match changes.first().map(|it| it.verb) {
        Some(Verb::Create) => ("FailedCreate", "creating"),
        Some(Verb::Delete { .. }) => ("FailedDelete", "deleting"),
        _ => return None,
    };
    plan.event(Event::warning(by, reason, format!("Error {doing}: {failure}")));
    let condition = ReplicaSetCondition {
        type_: "ReplicaFailure".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(failure.to_string()),
        last_transition_time: Some(meta::time(now)),
    };
    let known = set.status.as_ref().and_then(|it| it.conditions.as_ref());
    let is_told = known.into_iter().flatten().any(|it| {
        it.type_ == condition.type_
            && it.reason == condition.reason
            && it.message == condition.message
    });
    if is_told {
        return None;
    }
    Some(ReplicaSetStatus {
        observed_generation: set.metadata.generation,
        conditions: Some(vec![condition]),
        ..set.status.clone().unwrap_or_default()
    })
}

/// Not at its end, and not on its way there.
fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !pod.is_deleting()
}

/// Makes and removes pods of `by`, which is `set` itself or what it stands for.
fn manage<O: Kind>(
    world: &World,
    by: &O,
    set: &ReplicaSet,
    pods: &[Pod],
    now: Timestamp,
    plan: &mut Plan,
) {
    let active: Vec<&Pod> = pods.iter().filter(|it| is_active(it)).collect();
    let wanted = usize::try_from(replicas(set)).unwrap_or(0);
    if active.len() < wanted && !is_terminating(world, set.namespace()) {
        let empty = PodTemplateSpec::default();
        let template = set.spec.as_ref().and_then(|it| it.template.as_ref()).unwrap_or(&empty);
        for nth in 0..(wanted - active.len()).min(BURST) {
            let pod = pod_template::pod(world, by, template, nth);
            let message = format!("Created pod: {}", pod.name());
            plan.event(Event::normal(by, "SuccessfulCreate", message));
            plan.write([Change::create(pod)]);
        }
    }
    if active.len() > wanted {
        let surplus = (active.len() - wanted).min(BURST);
        for pod in victims::choose(world, set, active, surplus, now) {
            let message = format!("Deleted pod: {}", pod.name());
            plan.event(Event::normal(by, "SuccessfulDelete", message));
            plan.write([Change::delete(pod)]);
        }
    }
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|it| it.min_ready_seconds).unwrap_or(0)
}

fn status(set: &ReplicaSet, pods: &[Pod], now: Timestamp) -> ReplicaSetStatus {
    let template = set.spec.as_ref().and_then(|it| it.template.as_ref()?.metadata.as_ref());
    let labels = template.and_then(|it| it.labels.clone()).unwrap_or_default();
    let labels = Selector::of_map(&labels);
    let active = || pods.iter().filter(|it| is_active(it));
    let count = |is: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active().filter(|it| is(it)).count()).unwrap_or(i32::MAX)
    };
    let leaving = pods.iter().filter(|it| it.is_deleting() && !is_terminal(it)).count();
    let is_labeled = |it: &Pod| labels.matches(it.metadata.labels.as_ref().unwrap_or(&[].into()));
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: counted(count(&is_labeled)),
        ready_replicas: counted(count(&is_ready)),
        available_replicas: counted(count(&|it| is_available(it, min_ready_seconds(set), now))),
        terminating_replicas: Some(i32::try_from(leaving).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation,
        conditions: None,
    }
}

fn write_status<O: Replicated>(
    by: &O,
    set: &ReplicaSet,
    status: ReplicaSetStatus,
    plan: &mut Plan,
) {
    let mut told = by.clone();
    told.say(status);
    // Compared as it is kept: an older kind has no place for all of it.
    if told.as_set().status != set.status {
        plan.status = Some(Change::status(told));
    }
}

/// When the next ready pod will have been ready for long enough.
fn next_available(set: &ReplicaSet, pods: &[Pod], now: Timestamp) -> Option<Duration> {
    let seconds = min_ready_seconds(set);
    let wait = Duration::from_secs(seconds.unsigned_abs().into());
    let waiting = pods.iter().filter(|it| is_ready(it) && !is_available(it, seconds, now));
    let ends = waiting.filter_map(|it| {
        let since = condition(it, "Ready")?.last_transition_time.as_ref()?;
        Some(meta::timestamp_of(since).plus(wait).since(now) + Duration::from_millis(1))
    });
    ends.min()
}

#[cfg(test)]
mod tests;
