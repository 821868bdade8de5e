//! Nodes that fall silent, come back, or only seem to have been silent.

use super::*;
use crate::testing::{load, world};

fn node(name: &str, ready: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, uid: u-{name}, creationTimestamp: '1970-01-01T00:00:00Z'}}\nstatus: {{conditions: [{{type: Ready, status: '{ready}', lastHeartbeatTime: '1970-01-01T00:00:00Z'}}, {{type: DiskPressure, status: 'False'}}]}}\n"
    )
}

fn lease(name: &str, seconds: i64) -> String {
    let at = Timestamp::from_seconds(seconds).rfc3339_micros();
    format!(
        "---\napiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {{name: {name}, namespace: kube-node-lease}}\nspec: {{renewTime: '{at}'}}\n"
    )
}

const POD: &str = "---\n{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a, uid: p}, spec: {nodeName: n1, containers: []}, status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}}\n";

/// Looks when something is due, as the queue would, from one time to another.
fn run(world: &mut World, name: &str, from: i64, to: i64) -> Vec<String> {
    let mut said = Vec::new();
    let (mut now, end) = (Timestamp::from_seconds(from), Timestamp::from_seconds(to));
    for _ in 0..64 {
        let plan = NodeLifecycle.reconcile(world, &ObjectKey::cluster(name), now);
        let before = world.revision;
        *world = world.after(&plan, now);
        said.extend(plan.events.iter().map(|it| format!("{} {}", now.seconds(), it.reason)));
        if world.revision == before {
            let Some(wait) = plan.requeue.filter(|it| now.plus(*it) <= end) else { return said };
            now = now.plus(wait);
        }
    }
    panic!("does not settle: {said:?}");
}

fn ready(world: &World, name: &str) -> String {
    condition(&world.cluster::<Node>(name).unwrap(), "Ready").unwrap_or("never").to_owned()
}

fn taints(world: &World, name: &str) -> Vec<String> {
    let node = world.cluster::<Node>(name).unwrap();
    let taints = node.spec.iter().flat_map(|it| it.taints.iter().flatten());
    taints
        .map(|it| format!("{}:{}", it.key.trim_start_matches("node.kubernetes.io/"), it.effect))
        .collect()
}

#[test]
fn a_node_that_stops_to_renew_is_unknown_and_its_pods_are_not_ready() {
    let yaml = [node("n1", "True"), node("n2", "True"), lease("n1", 100), POD.to_owned()];
    let mut world = world(&yaml.concat());
    assert!(run(&mut world, "n1", 100, 149).is_empty());
    assert_eq!(ready(&world, "n1"), "True");
    assert_eq!(run(&mut world, "n1", 149, 200), ["150 NodeNotReady", "150 NodeNotReady"]);
    assert_eq!(ready(&world, "n1"), "Unknown");
    assert_eq!(taints(&world, "n1"), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    let node = world.cluster::<Node>("n1").unwrap();
    let conditions = node.status.as_ref().unwrap().conditions.clone().unwrap();
    assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusUnknown"));
    assert_eq!(conditions[0].message.as_deref(), Some("Kubelet stopped posting node status."));
    let pod = world.list::<Pod>("a").next().unwrap();
    assert!(!pod::is_ready(&pod));
}

#[test]
fn a_node_that_renews_stays_ready_and_nothing_is_written() {
    let mut world = world(&[node("n1", "True"), lease("n1", 100)].concat());
    for at in (100..400).step_by(10) {
        load(&mut world, &lease("n1", at));
        let before = world.revision;
        run(&mut world, "n1", at, at + 9);
        assert_eq!(world.revision, before);
    }
}

/// The server was down for an hour, and so was nobody's fault.
#[test]
fn a_server_that_comes_back_waits_for_the_node_to_renew() {
    let mut world = world(&[node("n1", "True"), lease("n1", 100), POD.to_owned()].concat());
    assert!(run(&mut world, "n1", 3700, 3710).is_empty());
    assert_eq!(ready(&world, "n1"), "True");
    load(&mut world, &lease("n1", 3711));
    assert!(run(&mut world, "n1", 3711, 3730).is_empty());
    assert_eq!(ready(&world, "n1"), "True");
    // What was noted before another absence does not count either.
    assert!(run(&mut world, "n1", 3740, 3745).is_empty());
    assert!(run(&mut world, "n1", 9000, 9010).is_empty());
    assert_eq!(ready(&world, "n1"), "True");
    assert!(!run(&mut world, "n1", 9010, 9030).is_empty());
    assert_eq!(ready(&world, "n1"), "Unknown");
}

#[test]
fn nobody_is_evicted_when_no_node_is_well() {
    let mut world = world(&[node("n1", "True"), lease("n1", 100)].concat());
    run(&mut world, "n1", 100, 200);
    assert_eq!(taints(&world, "n1"), ["unreachable:NoSchedule"]);
}

#[test]
fn taints_follow_the_conditions_and_foreign_ones_stay() {
    let yaml = [node("n1", "False").as_str(), &node("n2", "True"), &lease("n1", 0)].concat();
    let yaml = yaml.replacen(
        "status:",
        "spec: {unschedulable: true, taints: [{key: mine, effect: NoSchedule}, {key: node.kubernetes.io/disk-pressure, effect: NoSchedule}]}\nstatus:",
        1,
    );
    let mut world = world(&yaml);
    run(&mut world, "n1", 0, 1);
    assert_eq!(
        taints(&world, "n1"),
        [
            "mine:NoSchedule",
            "not-ready:NoSchedule",
            "unschedulable:NoSchedule",
            "not-ready:NoExecute"
        ]
    );
    let mut node = world.cluster::<Node>("n1").unwrap().to_owned();
    node.spec.as_mut().unwrap().unschedulable = None;
    node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "True".to_owned();
    world.apply(&Change::both(node), Timestamp(0));
    run(&mut world, "n1", 1, 2);
    assert_eq!(taints(&world, "n1"), ["mine:NoSchedule"]);
}

#[test]
fn a_node_that_never_said_anything_gets_a_minute() {
    let yaml = "{apiVersion: v1, kind: Node, metadata: {name: n1, creationTimestamp: '1970-01-01T00:00:00Z'}}";
    let mut world = world(yaml);
    run(&mut world, "n1", 0, 59);
    assert_eq!(ready(&world, "n1"), "never");
    run(&mut world, "n1", 59, 61);
    assert_eq!(ready(&world, "n1"), "Unknown");
}
