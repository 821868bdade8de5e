//! Picks a node for a pod, and decides the pod's volumes together with it.
//!
//! Upstream: `pkg/scheduler/schedule_one.go`, `framework/plugins` (1.36). There is no assume cache:
//! the world it looks at already holds what it decided before. A pod whose claims wait for a node gets
//! them first (bound, or a node selected for their provisioner) and keeps its place by nomination.
#![forbid(unsafe_code)]

mod filter;
mod pod;
mod score;
mod volumes;

use filter::FILTERS;
use score::SCORES;

use api::{
    Object,
    core::{
        pod::{is_scheduled, is_terminal, set_condition},
        v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    },
    storage::v1::StorageClass,
};
use pod::Request;
use std::collections::BTreeMap;
use stdx::Timestamp;
use volumes::{Claims, Move};
use world::{Change, Controller, Event, ObjectKey, Plan, Touched, Typed, Watch, World};

/// The name that pods ask for it by, and under which it speaks in events.
pub const NAME: &str = "default-scheduler";

pub struct Scheduler;

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        NAME
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<Pod>(),
            Watch::mapped::<Pod>(waiting_when_room_is_made),
            Watch::mapped::<Node>(waiting),
            Watch::mapped::<PersistentVolumeClaim>(pods_of_claim),
            Watch::mapped::<PersistentVolume>(waiting),
            Watch::mapped::<StorageClass>(waiting),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = world.get::<Pod>(key).filter(|it| is_ours(it)) else { return plan };
        let claims = match volumes::look(world, &pod) {
            Ok(claims) => claims,
            Err(why) => {
                let nodes = world.all::<Node>().count();
                refuse(&pod, &format!("0/{nodes} nodes are available: {why}."), now, &mut plan);
                return plan;
            }
        };
        match choose(world, &pod, &claims) {
            Ok((node, moves)) => place(&pod, &node, &claims, moves, now, &mut plan),
            Err(why) => refuse(&pod, &why, now, &mut plan),
        }
        plan
    }
}

/// Whether the pod waits for us.
fn is_ours(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|it| it.scheduler_name.as_deref()).unwrap_or(NAME);
    let gated =
        spec.is_some_and(|it| it.scheduling_gates.as_ref().is_some_and(|it| !it.is_empty()));
    name == NAME && !gated && !is_scheduled(pod) && !is_terminal(pod) && !pod.is_deleting()
}

/// The best node that passes every filter, and what has to be done to the pod's claims for it; else
/// why not, per reason with the number of nodes.
fn choose<'a>(
    world: &'a World,
    pod: &'a Pod,
    claims: &'a Claims,
) -> Result<(Typed<Node>, Vec<Move>), String> {
    let request = Request::new(world, pod);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut nodes = 0;
    let mut best: Option<(i64, Typed<Node>, Vec<Move>)> = None;
    for node in world.all::<Node>() {
        nodes += 1;
        let place = request.at(&node);
        let refused = FILTERS.iter().map(|filter| filter(&place)).find(|it| !it.is_empty());
        let moves = match refused {
            Some(refused) => Err(refused),
            None => claims.moves_at(world, &node).map_err(|why| vec![why.to_owned()]),
        };
        match moves {
            Err(whys) => whys.into_iter().for_each(|why| *reasons.entry(why).or_default() += 1),
            Ok(moves) => {
                let score: i64 = SCORES.iter().map(|score| score(&place)).sum();
                // Of equals the first by name: the same world gives the same plan.
                if best.as_ref().is_none_or(|(most, ..)| score > *most) {
                    best = Some((score, node, moves));
                }
            }
        }
    }
    if let Some((_, node, moves)) = best {
        return Ok((node, moves));
    }
    if nodes == 0 {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut list: Vec<String> = reasons.iter().map(|(why, n)| format!("{n} {why}")).collect();
    list.sort();
    Err(format!("0/{nodes} nodes are available: {}.", list.join(", ")))
}

/// Binds the pod, or first gets its claims ready for the node.
fn place(
    pod: &Pod,
    node: &Node,
    claims: &Claims,
    moves: Vec<Move>,
    now: Timestamp,
    plan: &mut Plan,
) {
    if claims.are_ready() {
        let mut bound = pod.clone();
        bound.spec.get_or_insert_default().node_name = Some(node.name().to_owned());
        set_condition(&mut bound, "PodScheduled", "True", "", "", now);
        let status = bound.status.get_or_insert_default();
        status.nominated_node_name = None;
        // The binding holds only while the claims are what was judged.
        let checks = claims.all().map(|it| Change::check(&**it));
        plan.write(std::iter::once(Change::both(bound)).chain(checks));
        let (namespace, name) = (pod.namespace(), pod.name());
        let message = format!("Successfully assigned {namespace}/{name} to {}", node.name());
        plan.event(Event::normal(pod, "Scheduled", message));
        return;
    }
    let nominated = pod.status.as_ref().and_then(|it| it.nominated_node_name.as_deref());
    if nominated != Some(node.name()) {
        let mut pod = pod.clone();
        let status = pod.status.get_or_insert_default();
        status.nominated_node_name = Some(node.name().to_owned());
        plan.write([Change::status(pod)]);
    }
    for it in moves {
        plan.write(it.changes(node));
    }
}

/// Says why not, once per reason.
fn refuse(pod: &Pod, why: &str, now: Timestamp, plan: &mut Plan) {
    plan.event(Event::warning(pod, "FailedScheduling", why));
    let mut told = pod.clone();
    let changed = set_condition(&mut told, "PodScheduled", "False", "Unschedulable", why, now);
    let status = told.status.get_or_insert_default();
    let nominated = status.nominated_node_name.take();
    if changed || nominated.is_some() {
        plan.status = Some(Change::status(told));
    }
}

/// All pods that wait for a node.
fn waiting(world: &World, _: &Touched) -> Vec<ObjectKey> {
    let unscheduled = world.indexed::<Pod>("node", "");
    unscheduled.filter(|it| is_ours(it)).map(|it| ObjectKey::of(&*it)).collect()
}

/// A pod that ends or goes makes room for others.
fn waiting_when_room_is_made(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let uses = |row: &Option<std::sync::Arc<world::Row>>| {
        let pod = row.as_ref().and_then(|it| it.typed::<Pod>());
        pod.is_some_and(|it| is_scheduled(&it) && !is_terminal(&it))
    };
    if uses(&touched.old) && !uses(&touched.new) { waiting(world, touched) } else { Vec::new() }
}

fn pods_of_claim(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let claim = touched.key.to_string();
    let pods = world.indexed::<Pod>("claim", &claim);
    pods.filter(|it| is_ours(it)).map(|it| ObjectKey::of(&*it)).collect()
}

#[cfg(test)]
mod tests;
