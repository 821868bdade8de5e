//! Says that nodes are gone of which nothing is heard, and taints nodes by their conditions.
//!
//! Upstream: `pkg/controller/nodelifecycle/node_lifecycle_controller.go` (1.36). Upstream remembers when
//! it last saw a sign of life; here the node carries an annotation that says since when the controller
//! has watched it be silent. So a server that was down does not take its own absence for the nodes':
//! a node is called unknown only after it was also silent for a while under the controller's eyes,
//! and nodes renew their lease at once when they start. Evictions are not rate limited by zone.

use api::{
    Object,
    coordination::v1::Lease,
    core::{
        node::{condition, is_unschedulable},
        pod,
        v1::{Node, NodeCondition, Pod, Taint},
    },
    meta,
};
use std::time::Duration;
use stdx::Timestamp;
use world::{Change, Controller, Event, ObjectKey, Plan, Touched, Watch, World};

/// Its keys are nodes.
pub struct NodeLifecycle;

/// Silence after which a node is called unknown: upstream's --node-monitor-grace-period.
const SILENCE_MOST: Duration = Duration::from_secs(50);
/// The same for a node that has never said how it is: upstream's --node-startup-grace-period.
const STARTUP_MOST: Duration = Duration::from_secs(60);
/// The part of the silence that the controller must have seen itself. A lease is renewed every 10 s.
const SEEN_SILENT: Duration = Duration::from_secs(25);
/// What was seen longer ago than this plus the above was seen before the server was away.
const SLACK: Duration = Duration::from_secs(10);

const LEASES: &str = "kube-node-lease";
/// On a node: `<its last sign of life> <since when the controller watches>`.
const SILENT_SINCE: &str = "node.stanchion.dev/silent-since";
/// On nodes that do not count when the question is whether all are gone.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Which status of which condition keeps new pods away, and the taint that does.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<Node>(),
            Watch::mapped::<Lease>(node_of_lease),
            Watch::mapped::<Node>(every_node_when_one_turns),
            Watch::mapped::<Pod>(node_of_pod),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(old) = world.get::<Node>(key) else { return plan };
        let mut node = old.to_owned();
        let health = health(world, &old, now);
        match health {
            Health::Heard { look_again } => plan.requeue = Some(look_again),
            Health::Suspected { sign, look_again } => {
                let since = format!("{} {}", sign.rfc3339_micros(), now.rfc3339_micros());
                let annotations = node.metadata.annotations.get_or_insert_default();
                annotations.insert(SILENT_SINCE.to_owned(), since);
                plan.requeue = Some(look_again);
            }
            Health::Silent => set_unknown(&mut node, now),
        }
        set_taints(world, &mut node, now);
        if node != *old {
            plan.write([Change::both(node.clone())]);
        }
        if condition(&old, "Ready") == Some("True") && condition(&node, "Ready") != Some("True") {
            let message = format!("Node {} status is now: NodeNotReady", node.name());
            plan.event(Event::normal(&*old, "NodeNotReady", message));
        }
        if condition(&node, "Ready") == Some("Unknown") {
            mark_pods(world, &node, now, &mut plan);
        }
        plan
    }
}

fn node_of_lease(_world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let is_nodes = &*touched.key.namespace == LEASES;
    is_nodes.then(|| ObjectKey::cluster(&touched.key.name)).into_iter().collect()
}

/// Whether others may be evicted depends on whether any node is ready.
fn every_node_when_one_turns(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let ready = |row: &Option<std::sync::Arc<world::Row>>| {
        let node = row.as_ref().and_then(|it| it.typed::<Node>());
        node.is_some_and(|it| api::core::node::is_ready(&it))
    };
    if ready(&touched.old) == ready(&touched.new) {
        return Vec::new();
    }
    let rows = world.table::<Node>().map(|it| it.rows(None));
    rows.into_iter().flatten().map(|it| it.key()).collect()
}

/// A pod that comes to a node which is not known to be well.
fn node_of_pod(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let node = |row: &Option<std::sync::Arc<world::Row>>| {
        let pod = row.as_ref().and_then(|it| it.typed::<Pod>());
        pod.map(|it| pod::node_name(&it).to_owned()).filter(|it| !it.is_empty())
    };
    let Some(name) = node(&touched.new) else { return Vec::new() };
    if touched.old.is_some() && node(&touched.old).as_ref() == Some(&name) {
        return Vec::new();
    }
    let node = world.cluster::<Node>(&name);
    let unknown = node.is_some_and(|it| condition(&it, "Ready") == Some("Unknown"));
    unknown.then(|| ObjectKey::cluster(&name)).into_iter().collect()
}

enum Health {
    Heard {
        look_again: Duration,
    },
    /// Silent so far; what the node last said, to be noted down.
    Suspected {
        sign: Timestamp,
        look_again: Duration,
    },
    Silent,
}

fn health(world: &World, node: &Node, now: Timestamp) -> Health {
    let most = match condition(node, "Ready") {
        None => STARTUP_MOST,
        Some(_) => SILENCE_MOST,
    };
    let sign = last_sign(world, node);
    let silent = now.since(sign);
    let suspect_after = most - SEEN_SILENT;
    if silent < suspect_after {
        return Health::Heard { look_again: suspect_after - silent };
    }
    let watched = node.annotation(SILENT_SINCE).and_then(|it| it.split_once(' '));
    let watched = watched.filter(|it| Timestamp::parse(it.0) == Some(sign));
    let since = watched.and_then(|it| Timestamp::parse(it.1)).map(|it| now.since(it));
    let is_unknown = condition(node, "Ready") == Some("Unknown");
    match since {
        // It was said before, and nothing was heard since.
        _ if is_unknown => Health::Silent,
        Some(seen) if seen < SEEN_SILENT => Health::Heard { look_again: SEEN_SILENT - seen },
        Some(seen) if seen <= SEEN_SILENT + SLACK => Health::Silent,
        Some(_) | None => Health::Suspected { sign, look_again: SEEN_SILENT },
    }
}

/// The latest of the lease's renewal and the condition's heartbeat.
fn last_sign(world: &World, node: &Node) -> Timestamp {
    let lease = world.get::<Lease>(&ObjectKey::new(LEASES, node.name()));
    let renewed = lease.and_then(|it| it.spec.as_ref()?.renew_time.clone());
    let renewed = renewed.map(|it| Timestamp(it.0.as_microsecond()));
    let conditions = node.status.iter().flat_map(|it| it.conditions.iter().flatten());
    let mut ready = conditions.filter(|it| it.type_ == "Ready");
    let beat = ready.next().and_then(|it| it.last_heartbeat_time.as_ref());
    let born = node.metadata.creation_timestamp.as_ref().map(meta::timestamp_of);
    renewed.max(beat.map(meta::timestamp_of)).max(born).unwrap_or_default()
}

fn set_unknown(node: &mut Node, now: Timestamp) {
    let born = node.metadata.creation_timestamp.clone();
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|it| it.type_ == kind) {
            None => conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: born.clone(),
                last_transition_time: Some(meta::time(now)),
            }),
            Some(it) if it.status != "Unknown" => {
                it.status = "Unknown".to_owned();
                it.reason = Some("NodeStatusUnknown".to_owned());
                it.message = Some("Kubelet stopped posting node status.".to_owned());
                it.last_transition_time = Some(meta::time(now));
            }
            Some(_) => {}
        }
    }
}

/// Taints that follow from the conditions; those that somebody else set stay.
fn set_taints(world: &World, node: &mut Node, now: Timestamp) {
    let met = |it: &&(&str, &str, &str)| condition(node, it.0) == Some(it.1);
    let mut wanted: Vec<(&str, &str)> =
        BY_CONDITION.iter().filter(met).map(|it| (it.2, "NoSchedule")).collect();
    if is_unschedulable(node) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    // When no node is well, it is rather the controller that is cut off: nobody is evicted.
    match condition(node, "Ready") {
        Some("False") if any_is_ready(world) => wanted.push((NOT_READY, "NoExecute")),
        Some("Unknown") if any_is_ready(world) => wanted.push((UNREACHABLE, "NoExecute")),
        _ => {}
    }
    let is_ours = |it: &Taint| match it.effect.as_str() {
        "NoSchedule" => it.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|ours| ours.2 == it.key),
        "NoExecute" => it.key == NOT_READY || it.key == UNREACHABLE,
        _ => false,
    };
    let has_wanted = |it: &Taint| wanted.contains(&(it.key.as_str(), it.effect.as_str()));
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    taints.retain(|it| !is_ours(it) || has_wanted(it));
    for (key, effect) in wanted {
        if !taints.iter().any(|it| it.key == key && it.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(meta::time(now)),
                value: None,
            });
        }
    }
    if taints.is_empty() {
        node.spec.get_or_insert_default().taints = None;
    }
}

fn any_is_ready(world: &World) -> bool {
    world.all::<Node>().any(|it| it.label(EXCLUDED).is_none() && api::core::node::is_ready(&it))
}

/// Whatever they said last, the pods of a silent node are not ready.
fn mark_pods(world: &World, node: &Node, now: Timestamp, plan: &mut Plan) {
    for pod in world.indexed::<Pod>("node", node.name()) {
        let Some(ready) = pod::condition(&pod, "Ready").filter(|it| it.status != "False") else {
            continue;
        };
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        let (reason, message) = (text(&ready.reason), text(&ready.message));
        let mut marked = pod.to_owned();
        pod::set_condition(&mut marked, "Ready", "False", &reason, &message, now);
        plan.write([Change::status(marked)]);
        plan.event(Event::warning(&*pod, "NodeNotReady", "Node is not ready"));
    }
}

#[cfg(test)]
mod tests;
