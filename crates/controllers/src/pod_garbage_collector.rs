//! Removes pods that nobody else will: those of nodes that are gone, those that end on a node that is said to be out
//! of service, and those that end before they ever had a node.
//!
//! Upstream: `pkg/controller/podgc/gc_controller.go` (1.36). Upstream looks every 20 s and waits 40 s before it
//! believes that a node is gone, because its caches may lag; the World does not, so only pods younger than that are
//! given the time, in which a node may still be registering. Ended pods are not counted.

use api::{
    Object,
    core::{
        node,
        pod::{is_terminal, node_name, set_condition},
        v1::{Node, Pod},
    },
    meta,
};
use std::time::Duration;
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Touched, Watch, World};

/// Its keys are the nodes that pods name; the empty one stands for none.
pub struct PodGarbageCollector;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Upstream's quarantine.
const YOUNG: Duration = Duration::from_secs(40);

impl Controller for PodGarbageCollector {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Node>(), Watch::mapped::<Pod>(node_of_pod)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
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
        let plan = PodGarbageCollector.reconcile(&world, &ObjectKey::cluster("n1"), now);
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
