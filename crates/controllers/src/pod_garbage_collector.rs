//! Removes pods that nobody else will: those of nodes that are gone, those that end on a node that is said to be out
//! of service, those that end before they ever had a node, and the oldest of those that have ended, once they are many.
//!
//! Upstream: `pkg/controller/podgc/gc_controller.go` (1.36). Upstream looks every 20 s and waits 40 s before it
//! believes that a node is gone, because its caches may lag; the World does not, so only pods younger than that are
//! given the time, in which a node may still be registering.

use api::{
    Object,
    core::{
        node,
        pod::{ENDED, is_terminal, node_name, set_condition},
        v1::{Node, Pod},
    },
    meta,
};
use std::{sync::Arc, time::Duration};
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Row, Touched, Watch, World};

/// Its keys are the nodes that pods name; the empty one stands for none, and `many` for pods that have ended.
pub struct PodGarbageCollector {
    /// So many pods that have ended are kept; zero: all.
    ended_most: usize,
}

impl PodGarbageCollector {
    pub fn new(ended_most: usize) -> PodGarbageCollector {
        PodGarbageCollector { ended_most }
    }

    /// The oldest beyond what is kept, so many at a time.
    fn clear(&self, world: &World, plan: &mut Plan) {
        let Some(table) = world.table::<Pod>().filter(|_| self.ended_most > 0) else { return };
        if table.len() <= self.ended_most {
            return;
        }
        let ended = || table.indexed_from(ENDED, "").map(|(_, row)| row);
        let beyond = ended().count().saturating_sub(self.ended_most);
        let pods = ended().take(beyond).filter_map(|it| it.typed::<Pod>());
        // Those that wait for a finalizer are on their way.
        let gone: Vec<_> = pods.filter(|it| !it.is_deleting()).take(AT_ONCE).collect();
        for pod in &gone {
            plan.write([Change::delete_now(&**pod)]);
        }
        if gone.len() < beyond && gone.len() == AT_ONCE {
            plan.requeue = Some(Duration::from_millis(1));
        }
    }
}

/// No node's: nodes have no namespace.
fn many() -> ObjectKey {
    ObjectKey::new("pods", "ended")
}

/// How many are removed by one plan.
const AT_ONCE: usize = 100;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Upstream's quarantine.
const YOUNG: Duration = Duration::from_secs(40);

impl Controller for PodGarbageCollector {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Node>(), Watch::mapped::<Pod>(node_of_pod), Watch::mapped::<Pod>(ended)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if *key == many() {
            self.clear(world, &mut plan);
            return plan;
        }
        if key.name.is_empty() {
            for pod in world.indexed::<Pod>("node", "").filter(|it| it.is_deleting()) {
                plan.write([Change::delete_now(&*pod)]);
            }
            return plan;
        }
        match world.get::<Node>(key) {
            None => {
                for pod in world.indexed::<Pod>("node", &key.name) {
                    let age = pod.metadata.creation_timestamp.as_ref();
                    let age = age.map_or(YOUNG, |it| now.since(meta::timestamp_of(it)));
                    if age < YOUNG {
                        let wait = YOUNG - age;
                        plan.requeue = Some(plan.requeue.map_or(wait, |it| it.min(wait)));
                        continue;
                    }
                    let why = "PodGC: node no longer exists";
                    let why = Some(("DeletionByPodGC", why)).filter(|_| !is_terminal(&pod));
                    remove(&pod, why, now, &mut plan);
                }
            }
            Some(node) if !node::is_ready(&node) && is_out_of_service(&node) => {
                let pods = world.indexed::<Pod>("node", &key.name);
                for pod in pods.filter(|it| it.is_deleting()) {
                    remove(&pod, None, now, &mut plan);
                }
            }
            Some(_) => {}
        }
        plan
    }
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|it| it.taints.iter().flatten());
    taints.into_iter().any(|it| it.key == OUT_OF_SERVICE)
}

/// One more has ended.
fn ended(_world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let is_so = |row: &Option<Arc<Row>>| {
        row.as_ref().and_then(|it| it.typed::<Pod>()).is_some_and(|it| is_terminal(&it))
    };
    let is_news = is_so(&touched.new) && !is_so(&touched.old);
    is_news.then(many).into_iter().collect()
}

/// Most pods are on a node that is well, and none of this controller's.
fn node_of_pod(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let Some(pod) = touched.new.as_ref().and_then(|it| it.typed::<Pod>()) else {
        return Vec::new();
    };
    let key = ObjectKey::cluster(node_name(&pod));
    let is_concern = match world.get::<Node>(&key) {
        None if key.name.is_empty() => pod.is_deleting(),
        None => true,
        Some(node) => pod.is_deleting() && !node::is_ready(&node),
    };
    is_concern.then_some(key).into_iter().collect()
}

/// What has not ended has failed; then the object goes, because nobody is there to end it.
fn remove(pod: &Pod, told: Option<(&str, &str)>, now: Timestamp, plan: &mut Plan) {
    if !is_terminal(pod) {
        let mut failed = pod.clone();
        failed.status.get_or_insert_default().phase = Some("Failed".to_owned());
        if let Some((reason, message)) = told {
            set_condition(&mut failed, "DisruptionTarget", "True", reason, message, now);
        }
        plan.write([Change::status(failed)]);
    }
    plan.write([Change::delete_now(pod)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;
    use expect_test::{Expect, expect};

    const POD: &str = "---\n{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a, creationTimestamp: '1970-01-01T00:00:00Z', deletionTimestamp: '1970-01-01T00:00:10Z', deletionGracePeriodSeconds: 30}, spec: {nodeName: n1, containers: []}, status: {phase: Running}}\n";

    fn node(ready: &str, taint: &str) -> String {
        format!(
            "---\n{{apiVersion: v1, kind: Node, metadata: {{name: n1}}, spec: {{taints: [{{key: {taint}, effect: NoExecute}}]}}, status: {{conditions: [{{type: Ready, status: '{ready}'}}]}}}}\n"
        )
    }

    #[track_caller]
    fn check(yaml: &str, seconds: i64, expected: Expect) {
        let (world, now) = (world(yaml), Timestamp::from_seconds(seconds));
        let collector = PodGarbageCollector::new(0);
        let plan = collector.reconcile(&world, &ObjectKey::cluster("n1"), now);
        expected.assert_eq(&plan.to_string());
    }

    #[test]
    fn pods_of_a_node_that_is_gone_go_too() {
        check(
            POD,
            100,
            expect![[r#"
            write
              status Pod a/p
            write
              delete Pod a/p
        "#]],
        );
    }

    fn ended_pod(name: &str, seconds: u32, status: &str) -> String {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: a, creationTimestamp: '1970-01-01T00:00:{seconds:02}Z'}}, spec: {{nodeName: n1, containers: []}}, status: {{{status}}}}}\n"
        )
    }

    #[test]
    fn of_pods_that_have_ended_so_many_are_kept() {
        let all = [
            ended_pod("old", 1, "phase: Succeeded"),
            ended_pod("older", 0, "phase: Failed"),
            ended_pod("evicted", 9, "phase: Failed, reason: Evicted"),
            ended_pod("new", 8, "phase: Succeeded"),
            ended_pod("runs", 0, "phase: Running"),
        ];
        let world = world(&all.concat());
        let removed = |most: usize| -> Vec<String> {
            let plan = PodGarbageCollector::new(most).reconcile(&world, &many(), Timestamp(0));
            plan.changes().map(|it| it.key.name.to_string()).collect()
        };
        assert_eq!(removed(1), ["evicted", "older", "old"]);
        assert_eq!(removed(2), ["evicted", "older"]);
        assert!(removed(4).is_empty() && removed(0).is_empty());
        let plan = PodGarbageCollector::new(2).reconcile(&world, &many(), Timestamp(0));
        let after = world.after(&plan, Timestamp(0));
        assert!(PodGarbageCollector::new(2).reconcile(&after, &many(), Timestamp(0)).is_empty());
    }

    #[test]
    fn many_are_removed_in_several_goes() {
        let all: Vec<String> =
            (0..150).map(|n| ended_pod(&format!("p{n:03}"), 0, "phase: Failed")).collect();
        let mut world = world(&all.concat());
        let collector = PodGarbageCollector::new(10);
        let first = collector.reconcile(&world, &many(), Timestamp(0));
        assert_eq!((first.changes().count(), first.requeue.is_some()), (100, true));
        world = world.after(&first, Timestamp(0));
        let second = collector.reconcile(&world, &many(), Timestamp(0));
        assert_eq!((second.changes().count(), second.requeue), (40, None));
    }

    #[test]
    fn a_node_may_come_after_its_pods() {
        check(
            POD,
            30,
            expect![[r#"
            requeue 10s
        "#]],
        );
    }

    #[test]
    fn a_silent_node_keeps_its_pods_until_somebody_says_that_it_is_off() {
        let silent = node("Unknown", "node.kubernetes.io/unreachable");
        check(
            &[POD, &silent].concat(),
            100,
            expect![[r#"
            nothing to do
        "#]],
        );
        let off = node("Unknown", OUT_OF_SERVICE);
        check(
            &[POD, &off].concat(),
            100,
            expect![[r#"
            write
              status Pod a/p
            write
              delete Pod a/p
        "#]],
        );
        let lives = node("True", OUT_OF_SERVICE);
        check(
            &[POD, &lives].concat(),
            100,
            expect![[r#"
            nothing to do
        "#]],
        );
    }
}
