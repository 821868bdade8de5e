//! Sends pods away from nodes whose NoExecute taints they do not tolerate, or not any longer.
//!
//! Upstream: `pkg/controller/tainteviction/taint_eviction.go` (1.36). Upstream counts a toleration's
//! seconds from when it saw the taint; here they count from the taint's `timeAdded`, which is filled
//! in where it is missing, and from the pod's creation if that was later. They survive a restart.

use api::{
    Object,
    core::{
        pod::{is_scheduled, node_name, set_condition, tolerates},
        v1::{Node, Pod, Taint},
    },
    meta,
};
use std::{sync::Arc, time::Duration};
use stdx::Timestamp;
use world::{Change, Controller, Event, ObjectKey, Plan, Row, Touched, Watch, World};

/// Its keys are nodes.
pub struct TaintEviction;

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Node>(), Watch::mapped::<Pod>(node_of_pod)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = world.get::<Node>(key) else { return plan };
        if no_execute(&node).next().is_none() {
            return plan;
        }
        if no_execute(&node).any(|it| it.time_added.is_none()) {
            let mut node = node.to_owned();
            let taints = node.spec.iter_mut().flat_map(|it| it.taints.iter_mut().flatten());
            for taint in taints.filter(|it| it.effect == NO_EXECUTE) {
                taint.time_added.get_or_insert_with(|| meta::time(now));
            }
            plan.write([Change::update(node)]);
            // The next look has what it needs to count.
            return plan;
        }
        for pod in world.indexed::<Pod>("node", &key.name).filter(|it| !it.is_deleting()) {
            match may_stay(&pod, &node) {
                Stay::ForEver => {}
                Stay::Until(end) if end > now => {
                    let wait = end.since(now);
                    plan.requeue = Some(plan.requeue.map_or(wait, |it| it.min(wait)));
                }
                Stay::Until(_) | Stay::No => evict(&pod, now, &mut plan),
            }
        }
        plan
    }
}

const NO_EXECUTE: &str = "NoExecute";

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|it| it.taints.iter().flatten());
    taints.filter(|it| it.effect == NO_EXECUTE)
}

/// The node of a pod that came to it, or whose tolerations changed.
fn node_of_pod(_world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let concern = |row: &Option<Arc<Row>>| {
        let pod = row.as_ref()?.typed::<Pod>()?;
        let tolerations = pod.spec.as_ref().and_then(|it| it.tolerations.clone());
        is_scheduled(&pod).then(|| (node_name(&pod).to_owned(), tolerations))
    };
    let new = concern(&touched.new);
    let changed = new.filter(|it| concern(&touched.old).as_ref() != Some(it));
    changed.map(|(node, _)| ObjectKey::cluster(&node)).into_iter().collect()
}

enum Stay {
    ForEver,
    Until(Timestamp),
    No,
}

fn may_stay(pod: &Pod, node: &Node) -> Stay {
    let tolerations = || pod.spec.iter().flat_map(|it| it.tolerations.iter().flatten());
    let mut shortest: Option<i64> = None;
    let mut since: Option<Timestamp> = None;
    for taint in no_execute(node) {
        let Some(toleration) = tolerations().find(|it| tolerates(it, taint)) else {
            return Stay::No;
        };
        let added = taint.time_added.as_ref().map(meta::timestamp_of);
        since = match (since, added) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if let Some(seconds) = toleration.toleration_seconds {
            shortest = Some(shortest.map_or(seconds, |it| it.min(seconds)));
        }
    }
    let Some(seconds) = shortest else { return Stay::ForEver };
    let born = pod.metadata.creation_timestamp.as_ref().map(meta::timestamp_of);
    let start = since.max(born).unwrap_or_default();
    let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if wait.is_zero() { Stay::No } else { Stay::Until(start.plus(wait)) }
}

fn evict(pod: &Pod, now: Timestamp, plan: &mut Plan) {
    let mut told = pod.clone();
    let message = "Taint manager: deleting due to NoExecute taint";
    let (kind, reason) = ("DisruptionTarget", "DeletionByTaintManager");
    if set_condition(&mut told, kind, "True", reason, message, now) {
        plan.write([Change::status(told)]);
    }
    plan.write([Change::delete(pod)]);
    let message = format!("Marking for deletion Pod {}", ObjectKey::of(pod));
    plan.event(Event::normal(pod, "TaintManagerEviction", message));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;
    use expect_test::{Expect, expect};

    fn node(added: &str) -> String {
        format!(
            "---\n{{apiVersion: v1, kind: Node, metadata: {{name: n1}}, spec: {{taints: [{{key: down, effect: NoExecute{added}}}]}}}}\n"
        )
    }
    const AT_ZERO: &str = ", timeAdded: '1970-01-01T00:00:00Z'";

    fn pod(tolerations: &str) -> String {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: a}}, spec: {{nodeName: n1, containers: [], tolerations: [{tolerations}]}}}}\n"
        )
    }

    #[test]
    fn who_does_not_tolerate_goes_at_once() {
        let after = check(
            &[node(AT_ZERO), pod("")].concat(),
            10,
            expect![[r"
                write
                  status Pod a/p
                write
                  delete Pod a/p
                event Normal TaintManagerEviction Marking for deletion Pod a/p
            "]],
        );
        assert!(after.list::<Pod>("a").all(|it| it.is_deleting()));
    }

    #[test]
    fn who_tolerates_for_a_while_goes_when_it_is_over() {
        let yaml =
            [node(AT_ZERO), pod("{key: down, operator: Exists, tolerationSeconds: 300}")].concat();
        check(
            &yaml,
            100,
            expect![[r"
            requeue 200s
        "]],
        );
        check(
            &yaml,
            300,
            expect![[r"
            write
              status Pod a/p
            write
              delete Pod a/p
            event Normal TaintManagerEviction Marking for deletion Pod a/p
        "]],
        );
    }

    #[test]
    fn who_tolerates_without_an_end_stays() {
        let yaml = [node(AT_ZERO), pod("{operator: Exists}")].concat();
        check(
            &yaml,
            1_000_000,
            expect![[r"
            nothing to do
        "]],
        );
    }

    #[test]
    fn a_taint_without_a_time_gets_one_before_anybody_counts() {
        let yaml = [node(""), pod("")].concat();
        let after = check(
            &yaml,
            7,
            expect![[r"
            write
              update Node n1
        "]],
        );
        let node = after.cluster::<Node>("n1").unwrap();
        let added = no_execute(&node).next().unwrap().time_added.clone();
        assert_eq!(added, Some(meta::time(Timestamp::from_seconds(7))));
    }

    #[track_caller]
    fn check(yaml: &str, seconds: i64, expected: Expect) -> World {
        let (world, now) = (world(yaml), Timestamp::from_seconds(seconds));
        let plan = TaintEviction.reconcile(&world, &ObjectKey::cluster("n1"), now);
        expected.assert_eq(&plan.to_string());
        world.after(&plan, now)
    }
}
