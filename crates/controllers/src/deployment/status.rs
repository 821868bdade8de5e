//! What a Deployment says of itself: how many pods, whether enough of them, whether it gets on.
//!
//! Upstream: `pkg/controller/deployment/progress.go`, `sync.go` (calculateStatus).

use super::Look;
use api::{
    Object,
    apps::{
        deployment::{fenceposts, replicas},
        v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus},
    },
    meta::{self, counted},
};
use std::time::Duration;
use stdx::Timestamp;
use world::{Change, Plan};

const PROGRESSING: &str = "Progressing";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const AVAILABLE: &str = "NewReplicaSetAvailable";

/// Plans the status, if it says something new. `judges`: whether this look may say how it gets on.
pub(super) fn write(look: &mut Look<'_>, before: &Deployment, judges: bool) {
    let mut status = counts(look);
    if judges {
        judge(look, before, &mut status);
    }
    look.plan.requeue = next_look(&look.deployment, &status, look.now);
    look.deployment.status = Some(status);
    if look.deployment != *before {
        look.plan.status = Some(Change::status(look.deployment.clone()));
    }
}

fn counts(look: &Look<'_>) -> DeploymentStatus {
    let deployment = &look.deployment;
    let sum = |field: fn(&ReplicaSetStatus) -> i32| {
        look.sets.all().filter_map(|it| it.status.as_ref()).map(field).sum::<i32>()
    };
    let available = look.sets.available();
    let old = deployment.status.clone().unwrap_or_default();
    let latest = look.sets.latest.as_ref().and_then(|it| it.status.as_ref());
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: counted(sum(|it| it.replicas)),
        updated_replicas: counted(latest.map_or(0, |it| it.replicas)),
        ready_replicas: counted(sum(|it| it.ready_replicas.unwrap_or(0))),
        available_replicas: counted(available),
        unavailable_replicas: counted((look.sets.wanted() - available).max(0)),
        terminating_replicas: Some(sum(|it| it.terminating_replicas.unwrap_or(0))),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let enough = available >= replicas(deployment) - fenceposts(deployment).1;
    let (holds, reason, message) = match enough {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        ),
    };
    set(&mut status, condition("Available", holds, reason, message.to_owned(), look.now));
    status
}

fn judge(look: &Look<'_>, before: &Deployment, status: &mut DeploymentStatus) {
    let deployment = &look.deployment;
    let current = find(status, PROGRESSING).cloned();
    let is_done = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|it| it.reason.as_deref() == Some(AVAILABLE));
    if deadline(deployment).is_none() {
        remove(status, PROGRESSING);
    } else if !is_done {
        let subject = match &look.sets.latest {
            Some(set) => format!("ReplicaSet \"{}\"", set.name()),
            None => format!("Deployment \"{}\"", deployment.name()),
        };
        let told = |holds, reason, end: &str| {
            condition(PROGRESSING, holds, reason, format!("{subject} {end}"), look.now)
        };
        let empty = DeploymentStatus::default();
        if is_complete(deployment, Some(status)) {
            set(status, told("True", AVAILABLE, "has successfully progressed."));
        } else if has_progressed(before.status.as_ref().unwrap_or(&empty), status) {
            let mut next = told("True", "ReplicaSetUpdated", "is progressing.");
            if let Some(current) = current.filter(|it| it.status == "True") {
                next.last_transition_time = current.last_transition_time;
            }
            remove(status, PROGRESSING);
            set(status, next);
        } else if has_timed_out(deployment, status, look.now) {
            set(status, told("False", TIMED_OUT, "has timed out progressing."));
        }
    }
    match look.sets.latest.iter().chain(&look.sets.old).find_map(replica_failure) {
        Some(failure) => set(status, failure),
        None => remove(status, "ReplicaFailure"),
    }
}

fn replica_failure(set: &ReplicaSet) -> Option<DeploymentCondition> {
    let conditions = set.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions.iter().find(|it| it.type_ == "ReplicaFailure")?;
    Some(DeploymentCondition {
        type_: failure.type_.clone(),
        status: failure.status.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        last_transition_time: failure.last_transition_time.clone(),
        last_update_time: failure.last_transition_time.clone(),
    })
}

pub(super) fn is_complete(deployment: &Deployment, status: Option<&DeploymentStatus>) -> bool {
    let is_all = |it: Option<i32>| it.unwrap_or(0) == replicas(deployment);
    status.is_some_and(|it| {
        is_all(it.updated_replicas)
            && is_all(it.replicas)
            && is_all(it.available_replicas)
            && it.observed_generation >= deployment.metadata.generation
    })
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let of = |it: Option<i32>| it.unwrap_or(0);
    let left = |it: &DeploymentStatus| of(it.replicas) - of(it.updated_replicas);
    of(new.updated_replicas) > of(old.updated_replicas)
        || left(new) < left(old)
        || of(new.ready_replicas) > of(old.ready_replicas)
        || of(new.available_replicas) > of(old.available_replicas)
}

fn has_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some(current) = find(status, PROGRESSING) else { return false };
    match current.reason.as_deref() {
        Some(AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => timeout(deployment, current).is_some_and(|it| it < now),
    }
}

/// When a Deployment that has not moved since the condition was updated is late.
fn timeout(deployment: &Deployment, current: &DeploymentCondition) -> Option<Timestamp> {
    let since = current.last_update_time.as_ref()?;
    Some(meta::timestamp_of(since).plus(deadline(deployment)?))
}

/// A deadline of the largest number is none, as upstream has it.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| Duration::from_secs(seconds.unsigned_abs().into()))
}

fn next_look(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let current = find(status, PROGRESSING)?;
    let reason = current.reason.as_deref();
    if is_complete(deployment, Some(status)) || reason == Some(TIMED_OUT) {
        return None;
    }
    // Times are written in seconds: one more, and it is surely over.
    Some(timeout(deployment, current)?.since(now) + Duration::from_secs(1))
}

/// Pausing and resuming start the clock of the deadline again.
pub(super) fn note_pause(deployment: &mut Deployment, paused: bool, now: Timestamp) {
    if deadline(deployment).is_none() {
        return;
    }
    let status = deployment.status.get_or_insert_default();
    let reason = find(status, PROGRESSING).and_then(|it| it.reason.clone());
    let (reason, message) = match (paused, reason.as_deref()) {
        (_, Some(TIMED_OUT)) | (true, Some("DeploymentPaused")) => return,
        (true, _) => ("DeploymentPaused", "Deployment is paused"),
        (false, Some("DeploymentPaused")) => ("DeploymentResumed", "Deployment is resumed"),
        (false, _) => return,
    };
    set(status, condition(PROGRESSING, "Unknown", reason, message.to_owned(), now));
}

pub(super) fn note_created(deployment: &mut Deployment, set_name: &str, now: Timestamp) {
    let message = format!("Created new replica set \"{set_name}\"");
    note(deployment, "NewReplicaSetCreated", message, now);
}

/// A ReplicaSet that was there before the Deployment looked.
pub(super) fn note_found(deployment: &mut Deployment, set_name: &str, now: Timestamp) {
    let status = deployment.status.get_or_insert_default();
    if find(status, PROGRESSING).is_none() {
        let message = format!("Found new replica set \"{set_name}\"");
        note(deployment, "FoundNewReplicaSet", message, now);
    }
}

fn note(deployment: &mut Deployment, reason: &'static str, message: String, now: Timestamp) {
    if deadline(deployment).is_some() {
        let status = deployment.status.get_or_insert_default();
        set(status, condition(PROGRESSING, "True", reason, message, now));
    }
}

pub(super) fn cannot_create(
    deployment: &Deployment,
    message: &str,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut deployment = deployment.clone();
    let before = deployment.status.clone();
    if deadline(&deployment).is_some() {
        let (reason, message) = ("ReplicaSetCreateError", message.to_owned());
        let status = deployment.status.get_or_insert_default();
        set(status, condition(PROGRESSING, "False", reason, message, now));
    }
    if deployment.status != before {
        plan.status = Some(Change::status(deployment));
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|it| it.type_ == kind)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|it| it.type_ != kind);
    }
}

/// Puts a condition in, unless it says what is known. The time of transition moves with the status only.
fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = find(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

fn condition(
    kind: &str,
    holds: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: holds.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(meta::time(now)),
        last_transition_time: Some(meta::time(now)),
    }
}
