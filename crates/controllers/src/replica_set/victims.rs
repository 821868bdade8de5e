//! Which pods go when there are too many: those whose loss hurts least.
//!
//! Upstream: `pkg/controller/controller_utils.go` (1.36), ActivePodsWithRanks.

use api::{
    Object,
    apps::v1::ReplicaSet,
    core::{
        pod::{condition, is_ready, node_name, phase},
        v1::Pod,
    },
    meta,
};
use std::{cmp::Reverse, collections::BTreeMap};
use stdx::Timestamp;
use world::World;

/// What a pod says of itself: the lower, the sooner it goes.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The first `count` pods in the order in which they can be spared.
pub(super) fn choose<'a>(
    world: &World,
    set: &ReplicaSet,
    mut pods: Vec<&'a Pod>,
    count: usize,
    now: Timestamp,
) -> Vec<&'a Pod> {
    if count < pods.len() {
        let crowd = crowd(world, set);
        pods.sort_by_cached_key(|pod| {
            let neighbours = crowd.get(node_name(pod)).copied().unwrap_or(0);
            (
                !node_name(pod).is_empty(),
                match phase(pod) {
                    "Pending" => 0,
                    "Running" => 2,
                    _ => 1,
                },
                is_ready(pod),
                cost(pod),
                Reverse(neighbours),
                ready_for(pod, now),
                Reverse(restarts(pod)),
                age(pod, now),
                pod.uid().to_owned(),
            )
        });
    }
    pods.truncate(count);
    pods
}

/// Pods on each node that belong to this set or to others of the same owner.
fn crowd(world: &World, set: &ReplicaSet) -> BTreeMap<String, usize> {
    let controller = |it: &ReplicaSet| {
        let mut owners = it.metadata.owner_references.iter().flatten();
        owners.find(|it| it.controller == Some(true)).map(|it| it.uid.clone())
    };
    let own = vec![set.uid().to_owned()];
    let sets = match controller(set) {
        None => own,
        Some(uid) => world.owned::<ReplicaSet>(&uid).map(|it| it.uid().to_owned()).collect(),
    };
    let mut crowd = BTreeMap::new();
    for pod in sets.iter().flat_map(|uid| world.owned::<Pod>(uid)) {
        if super::is_active(&pod) {
            *crowd.entry(node_name(&pod).to_owned()).or_default() += 1;
        }
    }
    crowd
}

fn cost(pod: &Pod) -> i32 {
    pod.annotation(DELETION_COST).and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// How long it has been ready, roughly: the doublings of a second. Newer ones go first.
fn ready_for(pod: &Pod, now: Timestamp) -> u32 {
    let ready = condition(pod, "Ready").filter(|it| it.status == "True");
    let since = ready.and_then(|it| it.last_transition_time.as_ref());
    since.map_or(0, |it| doublings(meta::timestamp_of(it), now))
}

fn age(pod: &Pod, now: Timestamp) -> u32 {
    let created = pod.metadata.creation_timestamp.as_ref();
    created.map_or(0, |it| doublings(meta::timestamp_of(it), now))
}

fn doublings(since: Timestamp, now: Timestamp) -> u32 {
    let seconds = u64::try_from(now.seconds() - since.seconds()).unwrap_or(0);
    u64::BITS - seconds.leading_zeros()
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|it| it.container_statuses.iter().flatten());
    statuses.map(|it| it.restart_count).max().unwrap_or(0)
}
