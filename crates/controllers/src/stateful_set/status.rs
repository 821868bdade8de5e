//! What the set says of itself.
//!
//! Upstream: `stateful_set_control.go`, updateStatus and completeRollingUpdate.

use super::revisions::Revisions;
use api::{
    Object,
    apps::{
        stateful_set::{REVISION_LABEL, replicas},
        v1::{StatefulSet, StatefulSetStatus},
    },
    core::{
        pod::{is_available, is_ready, phase},
        v1::Pod,
    },
    meta::counted,
};
use stdx::Timestamp;
use world::{Change, Plan};

/// Plans the status, if it says something new.
pub(super) fn write(
    set: &StatefulSet,
    revisions: &Revisions,
    pods: &[Pod],
    now: Timestamp,
    plan: &mut Plan,
) {
    let status = status(set, revisions, pods, now);
    if set.status.as_ref() != Some(&status) {
        let mut set = set.clone();
        set.status = Some(status);
        plan.status = Some(Change::status(set));
    }
}

fn status(
    set: &StatefulSet,
    revisions: &Revisions,
    pods: &[Pod],
    now: Timestamp,
) -> StatefulSetStatus {
    let seconds = set.spec.as_ref().and_then(|it| it.min_ready_seconds).unwrap_or(0);
    let runs_ready = |it: &Pod| phase(it) == "Running" && is_ready(it);
    let count = |is: &dyn Fn(&Pod) -> bool| {
        i32::try_from(pods.iter().filter(|it| is(it)).count()).unwrap_or(i32::MAX)
    };
    let has = |pod: &Pod, revision: &str| {
        pod.label(REVISION_LABEL) == Some(revision) && !pod.is_deleting()
    };
    let mut status = StatefulSetStatus {
        replicas: count(&|it| !phase(it).is_empty()),
        ready_replicas: counted(count(&runs_ready)),
        available_replicas: Some(count(&|it| runs_ready(it) && is_available(it, seconds, now))),
        current_replicas: counted(count(&|it| has(it, &revisions.current_name))),
        updated_replicas: counted(count(&|it| has(it, &revisions.update_name))),
        current_revision: Some(revisions.current_name.clone()),
        update_revision: Some(revisions.update_name.clone()),
        observed_generation: set.metadata.generation,
        collision_count: Some(revisions.collisions),
        conditions: set.status.as_ref().and_then(|it| it.conditions.clone()),
    };
    let strategy = set.spec.as_ref().and_then(|it| it.update_strategy.as_ref());
    let is_rolling = strategy.is_none_or(|it| it.type_.as_deref() != Some("OnDelete"));
    if is_rolling
        && status.updated_replicas == counted(status.replicas)
        && status.ready_replicas == counted(status.replicas)
        && status.replicas == replicas(set)
    {
        // The update is through: what was to come is what is.
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
    status
}
