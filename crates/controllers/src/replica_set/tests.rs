//! One look, and what becomes of the world after it.

use super::*;
use crate::testing::{load, world};
use api::core::pod::set_condition;

const SET: &str = "
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web, namespace: ns, uid: rs, generation: 1},
 spec: {replicas: 3, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}},
 spec: {containers: [{name: c, image: nginx}]}}}}
";

fn key() -> ObjectKey {
    ObjectKey::new("ns", "web")
}

fn now() -> Timestamp {
    Timestamp::from_seconds(1_000)
}

fn plan(world: &World) -> Plan {
    ReplicaSetController.reconcile(world, &key(), now())
}

fn pods(world: &World) -> Vec<Pod> {
    world.list::<Pod>("ns").map(|it| it.to_owned()).collect()
}

#[test]
fn makes_as_many_pods_as_are_wanted_and_no_more() {
    let world = world(SET);
    let next = world.after(&plan(&world), now());
    assert_eq!(pods(&next).len(), 3);
    let next = next.after(&plan(&next), now());
    assert_eq!(pods(&next).len(), 3);
    let status = next.get::<ReplicaSet>(&key()).unwrap().status.clone().unwrap();
    assert_eq!((status.replicas, status.ready_replicas), (3, None));
    assert!(plan(&next).is_empty(), "{}", plan(&next));
}

#[test]
fn a_ready_pod_outlives_one_that_is_not() {
    let mut world = world(&SET.replace("replicas: 3", "replicas: 1"));
    for (name, ready) in [("a", "False"), ("b", "True"), ("c", "False")] {
        load(
            &mut world,
            &format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: ns, uid: {name},
                labels: {{app: web}}, ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web,
                uid: rs, controller: true}}]}}, spec: {{nodeName: n1, containers: [{{name: c, image: i}}]}},
                status: {{phase: Running, conditions: [{{type: Ready, status: \"{ready}\"}}]}}}}"
            ),
        );
    }
    let gone: Vec<String> = plan(&world)
        .changes()
        .filter(|it| it.object.is_none())
        .map(|it| it.key.name.to_string())
        .collect();
    assert_eq!(gone, ["a", "c"]);
}

#[test]
fn takes_in_orphans_that_it_chooses_and_lets_others_go() {
    let mut world = world(&SET.replace("replicas: 3", "replicas: 1"));
    load(
        &mut world,
        "{apiVersion: v1, kind: Pod, metadata: {name: orphan, namespace: ns, uid: p, labels: {app: web}},
          spec: {containers: [{name: c, image: i}]}}",
    );
    let world = world.after(&plan(&world), now());
    let orphan = world.get::<Pod>(&ObjectKey::new("ns", "orphan")).unwrap().to_owned();
    assert_eq!(orphan.metadata.owner_references.as_ref().unwrap()[0].uid, "rs");
    let mut lost = orphan;
    lost.metadata.labels = None;
    let mut change = Plan::default();
    change.write([Change::update(lost)]);
    let world = world.after(&change, now());
    let world = world.after(&plan(&world), now());
    let orphan = world.get::<Pod>(&ObjectKey::new("ns", "orphan")).unwrap();
    assert_eq!(orphan.metadata.owner_references, None);
    let world = world.after(&plan(&world), now());
    assert_eq!(pods(&world).len(), 2, "another one took its place");
}

#[test]
fn a_pod_counts_as_available_after_its_time_and_the_set_looks_again_then() {
    let world = world(&SET.replace("replicas: 3", "replicas: 1, minReadySeconds: 5"));
    let mut world = world.after(&plan(&world), now());
    let mut pod = pods(&world).remove(0);
    set_condition(&mut pod, "Ready", "True", "", "", now());
    let mut change = Plan::default();
    change.write([Change::status(pod)]);
    world = world.after(&change, now());
    let later = plan(&world);
    assert!(later.requeue.is_some_and(|it| it.as_secs() == 5), "{later}");
    let at = Timestamp::from_seconds(1_005);
    let world = world.after(&ReplicaSetController.reconcile(&world, &key(), at), at);
    let status = world.get::<ReplicaSet>(&key()).unwrap().status.clone().unwrap();
    assert_eq!((status.ready_replicas, status.available_replicas), (Some(1), Some(1)));
}

#[test]
fn a_refused_pod_is_told_and_noted_until_it_is_made() {
    let mut world = world(SET);
    let wanted = plan(&world);
    let failure = Failure::bad_request("no room");
    let changes: Vec<Change> = wanted.changes().take(1).cloned().collect();
    let told = ReplicaSetController.refused(&world, &key(), &changes, &failure, now());
    assert_eq!(told.events[0].message, "Error creating: no room");
    world = world.after(&told, now());
    let again = ReplicaSetController.refused(&world, &key(), &changes, &failure, now());
    assert!(again.status.is_none(), "the status says so already");
    let conditions =
        |world: &World| world.get::<ReplicaSet>(&key()).unwrap().status.clone().unwrap().conditions;
    assert!(conditions(&world).is_some());
    world = world.after(&plan(&world), now());
    world = world.after(&plan(&world), now());
    assert_eq!(conditions(&world), None);
}
