//! DaemonSet: one pod on every node that it may run on.
//!
//! Upstream: `pkg/controller/daemon/daemon_controller.go` (1.36), manage and updateDaemonSetStatus. The
//! scheduler binds the pods: each names its node as the only one that fits.

mod placement;
mod revisions;
mod update;

use crate::{namespace::is_terminating, ownership};
use api::{
    Failure, Object,
    apps::{
        stateful_set::REVISION_LABEL,
        v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus},
    },
    core::{
        pod::{condition, is_available, is_ready, node_name, phase},
        v1::{Node, Pod},
    },
    meta::{self, counted},
};
use placement::Verdict;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use stdx::Timestamp;
use world::{Change, Controller, Event, ObjectKey, Plan, Row, Touched, Watch, World};

pub struct DaemonSetController;

/// Pods made or removed by one plan.
const BURST: usize = 250;
/// As long as five probes at their usual pace: short enough that nobody waits for it.
const FAILED_STAYS: Duration = Duration::from_secs(5);

impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<DaemonSet>(),
            Watch::owned::<Pod, DaemonSet>(),
            Watch::owned::<ControllerRevision, DaemonSet>(),
            Watch::mapped::<Pod>(ownership::choosers::<DaemonSet>),
            Watch::mapped::<Node>(all_sets),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = world.get::<DaemonSet>(key) else { return plan };
        let orphans = ownership::orphans(world, &key.namespace);
        ownership::settle::<DaemonSet, Pod>(world, &*set, orphans, &mut plan);
        if !plan.steps.is_empty() {
            // The next look sees what is ours.
            return plan;
        }
        let mut look = Look::new(world, &set, now);
        look.go();
        look.plan
    }

    fn refused(
        &self,
        world: &World,
        key: &ObjectKey,
        changes: &[Change],
        failure: &Failure,
        _now: Timestamp,
    ) -> Plan {
        ownership::refused::<DaemonSet>(world, key, changes, failure)
    }
}

/// A node that comes, goes, or changes in what decides where pods may run. Its status does not.
fn all_sets(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let deciding = |row: &Option<Arc<Row>>| {
        let node = row.as_ref()?.typed::<Node>()?;
        let spec = node.spec.clone().unwrap_or_default();
        Some((node.metadata.labels.clone(), spec.taints, spec.unschedulable))
    };
    if deciding(&touched.old) == deciding(&touched.new) {
        return Vec::new();
    }
    let sets = world.table::<DaemonSet>().into_iter().flat_map(|it| it.rows(None));
    sets.map(|it| it.key()).collect()
}

/// One look at one set.
struct Look<'a> {
    world: &'a World,
    set: &'a DaemonSet,
    spec: DaemonSetSpec,
    now: Timestamp,
    nodes: BTreeMap<String, Verdict>,
    /// By the node that they run on, or are to.
    pods: BTreeMap<String, Vec<Pod>>,
    /// The hash of the template as it is now.
    revision: String,
    collisions: i32,
    /// When to look again.
    next: Option<Duration>,
    plan: Plan,
}

impl<'a> Look<'a> {
    fn new(world: &'a World, set: &'a DaemonSet, now: Timestamp) -> Look<'a> {
        let verdict = |it: world::Typed<Node>| (it.name().to_owned(), placement::verdict(set, &it));
        let mut pods: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
        for pod in world.owned::<Pod>(set.uid()) {
            let node = placement::node_of(&pod).to_owned();
            pods.entry(node).or_default().push(pod.to_owned());
        }
        let mut plan = Plan::default();
        let revision = revisions::look(world, set, &mut plan);
        Look {
            world,
            set,
            spec: set.spec.clone().unwrap_or_default(),
            now,
            nodes: world.all::<Node>().map(verdict).collect(),
            pods,
            revision: revision.hash,
            collisions: revision.collisions,
            next: None,
            plan,
        }
    }

    fn go(&mut self) {
        if !self.set.is_deleting() {
            self.place();
            let strategy = self.spec.update_strategy.as_ref();
            let rolls = strategy.is_none_or(|it| it.type_.as_deref() != Some("OnDelete"));
            // One move at a time: an update looks at what placing left behind.
            if rolls && !self.has_moved() {
                self.update();
            }
            self.forget_old_revisions();
        }
        let status = self.status();
        if self.set.status.as_ref() != Some(&status) {
            let mut set = self.set.clone();
            set.status = Some(status);
            self.plan.status = Some(Change::status(set));
        }
        self.plan.requeue = self.next.into_iter().chain(self.next_available()).min();
    }

    fn has_moved(&self) -> bool {
        self.plan.changes().any(|it| it.kind.kind == "Pod")
    }

    /// A pod where there should be one, none where there should not.
    fn place(&mut self) {
        let leaving = is_terminating(self.world, self.set.namespace());
        let nodes: Vec<(String, Verdict)> =
            self.nodes.iter().map(|(name, it)| (name.clone(), *it)).collect();
        for (node, verdict) in nodes {
            let pods = self.pods.get(&node).cloned().unwrap_or_default();
            if !verdict.keeps {
                pods.iter().filter(|it| !it.is_deleting()).for_each(|it| self.delete(it));
                continue;
            }
            let mut healthy = Vec::new();
            for pod in pods.iter().filter(|it| !it.is_deleting()) {
                match phase(pod) {
                    "Failed" if !self.is_due(pod) => {}
                    "Failed" => self.end(pod, &node, "FailedDaemonPod", "failed"),
                    "Succeeded" => self.end(pod, &node, "SucceededDaemonPod", "succeeded"),
                    _ => healthy.push(pod),
                }
            }
            if verdict.runs && pods.is_empty() && !leaving {
                self.create(&node);
            }
            self.drop_doubles(healthy);
        }
        // Pods of nodes that are gone go with them, but for those that run: the node may come back.
        let lost: Vec<Pod> = self
            .pods
            .iter()
            .filter(|(node, _)| !self.nodes.contains_key(*node))
            .flat_map(|(_, pods)| pods.clone())
            .filter(|it| node_name(it).is_empty())
            .collect();
        lost.iter().filter(|it| !it.is_deleting()).for_each(|it| self.delete(it));
    }

    /// A failed pod makes room after a while: one that fails at once must not be made over and over.
    fn is_due(&mut self, pod: &Pod) -> bool {
        let created = pod.metadata.creation_timestamp.as_ref().map(meta::timestamp_of);
        let left = created.map_or(Duration::ZERO, |it| it.plus(FAILED_STAYS).since(self.now));
        if !left.is_zero() {
            self.next = Some(self.next.map_or(left, |it| it.min(left)));
        }
        left.is_zero()
    }

    fn end(&mut self, pod: &Pod, node: &str, reason: &'static str, how: &str) {
        let name = format!("{}/{}", pod.namespace(), pod.name());
        let message = match how {
            "failed" => {
                format!("Found failed daemon pod {name} on node {node}, will try to kill it")
            }
            _ => format!("Found succeeded daemon pod {name} on node {node}, will try to delete it"),
        };
        self.plan.event(match how {
            "failed" => Event::warning(self.set, reason, message),
            _ => Event::normal(self.set, reason, message),
        });
        self.delete(pod);
    }

    /// One pod a node; during an update with surge, an old one and a new one.
    fn drop_doubles(&mut self, mut pods: Vec<&Pod>) {
        pods.sort_by_key(|it| {
            let created = it.metadata.creation_timestamp.as_ref().map(|it| it.0);
            (node_name(it).is_empty(), created, it.name().to_owned())
        });
        let (new, old): (Vec<&Pod>, Vec<&Pod>) = pods.into_iter().partition(|it| self.is_new(it));
        let keeps_old = new.is_empty() || update::limits(self).surge > 0;
        let of_old = old.iter().skip(usize::from(keeps_old));
        let doubles: Vec<&Pod> = new.iter().skip(1).chain(of_old).copied().collect();
        doubles.into_iter().for_each(|it| self.delete(it));
    }

    fn is_new(&self, pod: &Pod) -> bool {
        pod.label(REVISION_LABEL) == Some(&self.revision)
    }

    fn create(&mut self, node: &str) {
        let nth = self.plan.steps.len();
        if nth >= BURST {
            return;
        }
        let pod = placement::pod(self.world, self.set, &self.revision, node, nth);
        let message = format!("Created pod: {}", pod.name());
        self.plan.event(Event::normal(self.set, "SuccessfulCreate", message));
        self.plan.write([Change::create(pod)]);
    }

    fn delete(&mut self, pod: &Pod) {
        self.plan.write([Change::delete(pod)]);
        let message = format!("Deleted pod: {}", pod.name());
        self.plan.event(Event::normal(self.set, "SuccessfulDelete", message));
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn status(&self) -> DaemonSetStatus {
        let mut status = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            conditions: self.set.status.as_ref().and_then(|it| it.conditions.clone()),
            collision_count: (self.collisions > 0).then_some(self.collisions),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for (node, verdict) in &self.nodes {
            let pods = self.pods.get(node).map(Vec::as_slice).unwrap_or_default();
            if !verdict.runs {
                status.number_misscheduled += i32::from(!pods.is_empty());
                continue;
            }
            status.desired_number_scheduled += 1;
            // Of two pods the older one is what the node has.
            let pod = pods.iter().min_by_key(|it| {
                (it.metadata.creation_timestamp.as_ref().map(|it| it.0), it.name().to_owned())
            });
            let Some(pod) = pod else { continue };
            status.current_number_scheduled += 1;
            if is_ready(pod) {
                status.number_ready += 1;
                available += i32::from(self.is_available(pod));
            }
            updated += i32::from(self.is_new(pod));
        }
        status.updated_number_scheduled = counted(updated);
        status.number_available = counted(available);
        status.number_unavailable = counted(status.desired_number_scheduled - available);
        status
    }

    fn next_available(&self) -> Option<Duration> {
        let seconds = self.spec.min_ready_seconds.filter(|it| *it > 0)?;
        let wait = Duration::from_secs(seconds.unsigned_abs().into());
        let pods = self.pods.values().flatten();
        let waiting = pods.filter(|it| is_ready(it) && !self.is_available(it));
        let ends = waiting.filter_map(|it| {
            let since = condition(it, "Ready")?.last_transition_time.as_ref()?;
            Some(meta::timestamp_of(since).plus(wait).since(self.now) + Duration::from_millis(1))
        });
        ends.min()
    }
}

#[cfg(test)]
mod tests;
