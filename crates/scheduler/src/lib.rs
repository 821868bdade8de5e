//! Picks a node for a pod, and decides the pod's volumes together with it.
//!
//! Upstream: `pkg/scheduler/schedule_one.go`, `framework/plugins` (1.36). There is no assume cache:
//! the world it looks at already holds what it decided before. A pod whose claims wait for a node gets
//! them first (bound, or a node selected for their provisioner) and keeps its place by nomination; so does
//! one for which others have to go.
#![forbid(unsafe_code)]

mod choose;
mod filter;
mod pod;
mod preempt;
mod score;
mod volumes;

use api::{
    Object,
    core::{
        pod::{is_scheduled, is_terminal, node_name, requests, set_condition},
        v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    },
    storage::v1::StorageClass,
};
use choose::{Misfit, choose};
use preempt::{Unhelpful, preempt};
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
            Watch::mapped::<Pod>(waiting_for_pods),
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
                let misfit = Misfit::everywhere(world, &why);
                preempt_or_refuse(world, &pod, &misfit, now, &mut plan);
                return plan;
            }
        };
        match choose(world, &pod, &claims) {
            Ok((node, moves)) => place(&pod, &node, &claims, moves, now, &mut plan),
            Err(misfit) => preempt_or_refuse(world, &pod, &misfit, now, &mut plan),
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
    if nomination(pod) != Some(node.name()) {
        let mut pod = pod.clone();
        let status = pod.status.get_or_insert_default();
        status.nominated_node_name = Some(node.name().to_owned());
        plan.write([Change::status(pod)]);
    }
    for it in moves {
        plan.write(it.changes(node));
    }
}

/// Makes room at the cost of pods that matter less, or says why not, once per reason.
fn preempt_or_refuse(world: &World, pod: &Pod, misfit: &Misfit, now: Timestamp, plan: &mut Plan) {
    let nominated = pod.status.as_ref().and_then(|it| it.nominated_node_name.clone());
    let (why, nominated, sacrifice) = match preempt(world, pod, misfit, now) {
        // Nobody could go anywhere.
        _ if misfit.is_empty() => (misfit.to_string(), None, None),
        Ok(it) => (misfit.to_string(), Some(it.node.name().to_owned()), Some(it)),
        Err(Unhelpful::NotNow(why)) => (format!("{misfit} preemption: {why}"), nominated, None),
        Err(Unhelpful::Nowhere(why)) => (format!("{misfit} preemption: {why}"), None, None),
    };
    plan.event(Event::warning(pod, "FailedScheduling", &*why));
    let mut told = pod.clone();
    let mut changed = set_condition(&mut told, "PodScheduled", "False", "Unschedulable", &why, now);
    let status = told.status.get_or_insert_default();
    changed |= status.nominated_node_name != nominated;
    status.nominated_node_name = nominated;
    if changed {
        // First of all the place is kept, so that nobody else takes what is about to be freed.
        plan.write([Change::status(told)]);
    }
    if let Some(it) = sacrifice {
        it.carry_out(world, pod, now, plan);
    }
}

/// The node that is kept for the pod.
fn nomination(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.nominated_node_name.as_deref()
}

/// How much the pod matters.
fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|it| it.priority).unwrap_or(0)
}

/// All pods that wait for a node.
fn waiting(world: &World, _: &Touched) -> Vec<ObjectKey> {
    let unscheduled = world.indexed::<Pod>("node", "");
    unscheduled.filter(|it| is_ours(it)).map(|it| ObjectKey::of(&*it)).collect()
}

/// A pod that ends or goes, or no longer has as much of a node as before, makes room for everybody; one that comes, for
/// those who want its company, or need it to be spread evenly.
fn waiting_for_pods(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let pod = |row: &Option<std::sync::Arc<world::Row>>| row.as_ref()?.typed::<Pod>();
    let (old, new) = (pod(&touched.old), pod(&touched.new));
    let holds = |it: &Option<Typed<Pod>>| it.as_ref().is_some_and(|it| held(it).is_some());
    if holds(&old) && !old.iter().zip(&new).any(|(old, new)| stays(old, new)) {
        return waiting(world, touched);
    }
    let is_bound = |it: &Option<Typed<Pod>>| it.as_ref().is_some_and(|it| is_scheduled(it));
    if is_bound(&new) && !is_bound(&old) && holds(&new) {
        // Not all: thousands of pods may be bound while thousands wait.
        let refused = world.indexed::<Pod>("needs-pods", "refused");
        return refused.filter(|it| is_ours(it)).map(|it| ObjectKey::of(&*it)).collect();
    }
    Vec::new()
}

/// The node on which a pod has room: its own, or the one that is kept for it.
fn held(pod: &Pod) -> Option<&str> {
    match is_scheduled(pod) {
        _ if is_terminal(pod) => None,
        true => Some(node_name(pod)),
        false if pod.is_deleting() => None,
        false => nomination(pod),
    }
}

/// Whether the pod holds what it held, and is to others what it was.
fn stays(old: &Pod, new: &Pod) -> bool {
    let requests = |pod: &Pod| pod.spec.as_ref().map(requests).unwrap_or_default();
    let holds = requests(new);
    let of = |name: &str| holds.get(name).copied().unwrap_or_default();
    held(old) == held(new)
        && old.metadata.labels == new.metadata.labels
        && requests(old).iter().all(|(name, amount)| *amount <= of(name))
}

fn pods_of_claim(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let claim = touched.key.to_string();
    let pods = world.indexed::<Pod>("claim", &claim);
    pods.filter(|it| is_ours(it)).map(|it| ObjectKey::of(&*it)).collect()
}

#[cfg(test)]
mod tests;
