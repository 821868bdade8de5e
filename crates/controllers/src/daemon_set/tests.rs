//! Nodes come and go, templates change: a pod on each that takes it, and updates within their limits.

use super::*;
use crate::testing::{load, world};
use api::core::pod::set_condition;

fn set(more: &str, image: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: agent, namespace: ns, uid: ds, generation: 1}},
          spec: {{{more} selector: {{matchLabels: {{app: agent}}}}, template: {{metadata: {{labels: {{app: agent}}}},
          spec: {{containers: [{{name: c, image: {image}}}]}}}}}}}}\n---\n"
    )
}

fn node(name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, uid: {name}}}, spec: {{{more}}}}}\n---\n"
    )
}

fn key() -> ObjectKey {
    ObjectKey::new("ns", "agent")
}

fn now() -> Timestamp {
    Timestamp::from_seconds(1_000)
}

/// Looks until nothing moves; pods become ready one by one and go when deleted.
fn settle(mut world: World, check: &mut dyn FnMut(&World)) -> World {
    for _ in 0..200 {
        let before = world.revision;
        world = world.after(&DaemonSetController.reconcile(&world, &key(), now()), now());
        check(&world);
        let mut nodes = Plan::default();
        for pod in world.list::<Pod>("ns") {
            let mut pod = pod.to_owned();
            if pod.is_deleting() {
                nodes.write([Change::delete_now(&pod)]);
            } else if set_condition(&mut pod, "Ready", "True", "", "", now()) {
                nodes.write([Change::status(pod)]);
                break;
            }
        }
        world = world.after(&nodes, now());
        check(&world);
        if world.revision == before {
            return world;
        }
    }
    panic!("it never comes to rest");
}

fn nodes_with_pods(world: &World) -> Vec<String> {
    let mut nodes: Vec<String> =
        world.list::<Pod>("ns").map(|it| placement::node_of(&it).to_owned()).collect();
    nodes.sort();
    nodes
}

fn three_nodes() -> String {
    ["n1", "n2", "n3"].map(|it| node(it, "")).concat()
}

#[test]
fn one_pod_on_every_node_that_takes_it() {
    let tainted = node("n4", "taints: [{key: k, effect: NoSchedule}]");
    let cordoned = node(
        "n5",
        "unschedulable: true, taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}]",
    );
    let yaml = set("", "one") + &three_nodes() + &tainted + &cordoned;
    let world = settle(world(&yaml), &mut |_| {});
    assert_eq!(nodes_with_pods(&world), ["n1", "n2", "n3", "n5"]);
    let status = world.get::<DaemonSet>(&key()).unwrap().status.clone().unwrap();
    assert_eq!((status.desired_number_scheduled, status.number_ready), (4, 4));
    assert_eq!(status.number_available, Some(4));
}

#[test]
fn a_new_node_gets_its_pod_and_one_that_is_chosen_no_longer_loses_it() {
    let mut world = settle(world(&(set("", "one") + &three_nodes())), &mut |_| {});
    load(&mut world, &node("n4", ""));
    load(&mut world, &node("n1", "taints: [{key: k, effect: NoExecute}]"));
    let world = settle(world, &mut |_| {});
    assert_eq!(nodes_with_pods(&world), ["n2", "n3", "n4"]);
}

#[test]
fn an_update_leaves_all_but_one_node_available() {
    for (more, least, most) in
        [("", 2, 3), ("updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}},", 3, 4)]
    {
        let mut world = settle(world(&(set(more, "one") + &three_nodes())), &mut |_| {});
        load(&mut world, &set(more, "two"));
        let world = settle(world, &mut |world| {
            let pods: Vec<_> = world.list::<Pod>("ns").filter(|it| !it.is_deleting()).collect();
            let ready = pods.iter().filter(|it| is_ready(it)).count();
            assert!(ready >= least && pods.len() <= most, "{ready} of {} with {more}", pods.len());
        });
        let images: Vec<_> = world
            .list::<Pod>("ns")
            .map(|it| it.spec.clone().unwrap().containers[0].image.clone().unwrap())
            .collect();
        assert_eq!(images, ["two"; 3]);
        let revisions: Vec<i64> =
            world.list::<ControllerRevision>("ns").map(|it| it.revision).collect();
        assert_eq!(revisions.len(), 2);
    }
}

#[test]
fn on_delete_waits_for_whoever_deletes() {
    let more = "updateStrategy: {type: OnDelete},";
    let mut world = settle(world(&(set(more, "one") + &three_nodes())), &mut |_| {});
    load(&mut world, &set(more, "two"));
    let world = settle(world, &mut |_| {});
    let updated = world.get::<DaemonSet>(&key()).unwrap().status.clone().unwrap();
    assert_eq!(updated.updated_number_scheduled, None);
    let pod = world.list::<Pod>("ns").next().unwrap().to_owned();
    let mut plan = Plan::default();
    plan.write([Change::delete_now(&pod)]);
    let world = settle(world.after(&plan, now()), &mut |_| {});
    let updated = world.get::<DaemonSet>(&key()).unwrap().status.clone().unwrap();
    assert_eq!(updated.updated_number_scheduled, Some(1));
}

#[test]
fn a_failed_pod_makes_room_for_another() {
    let world = settle(world(&(set("", "one") + &node("n1", ""))), &mut |_| {});
    let mut pod = world.list::<Pod>("ns").next().unwrap().to_owned();
    let name = pod.metadata.name.clone();
    pod.status.as_mut().unwrap().phase = Some("Failed".to_owned());
    pod.metadata.creation_timestamp = Some(meta::time(Timestamp::from_seconds(1_000)));
    let mut plan = Plan::default();
    plan.write([Change::status(pod)]);
    let world = world.after(&plan, now());
    let waits = DaemonSetController.reconcile(&world, &key(), now());
    assert_eq!(
        waits.requeue,
        Some(FAILED_STAYS),
        "one that fails at once is not made over and over"
    );
    let later = now().plus(FAILED_STAYS);
    let world = world.after(&DaemonSetController.reconcile(&world, &key(), later), later);
    let world = settle(world, &mut |_| {});
    let pods: Vec<_> = world.list::<Pod>("ns").map(|it| it.metadata.name.clone()).collect();
    assert!(pods.len() == 1 && pods[0] != name, "{pods:?}");
}
