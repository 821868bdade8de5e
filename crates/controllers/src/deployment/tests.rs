//! Both loops turned until they rest, with the promises of an update watched in every world between.

use super::*;
use crate::{
    replica_set::ReplicaSetController,
    testing::{load, world},
};
use api::{
    apps::deployment::{REVISION, fenceposts},
    core::pod::{is_ready, set_condition},
};

fn deployment(replicas: i32, image: &str, more: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: ns, uid: d, generation: 1}},
          spec: {{replicas: {replicas}, {more} selector: {{matchLabels: {{app: web}}}},
          template: {{metadata: {{labels: {{app: web}}}},
          spec: {{containers: [{{name: c, image: {image}}}]}}}}}}}}"
    )
}

fn key() -> ObjectKey {
    ObjectKey::new("ns", "web")
}

/// Turns both controllers, and a node that starts pods and removes what is deleted, until nothing moves;
/// `check` sees every world on the way.
fn settle(mut world: World, check: &mut dyn FnMut(&World)) -> World {
    let now = Timestamp::from_seconds(5_000);
    for _ in 0..200 {
        let before = world.revision;
        let plan = DeploymentController.reconcile(&world, &key(), now);
        world = world.after(&plan, now);
        let sets: Vec<ObjectKey> =
            world.list::<ReplicaSet>("ns").map(|it| ObjectKey::of(&*it)).collect();
        for set in sets {
            world = world.after(&ReplicaSetController.reconcile(&world, &set, now), now);
            check(&world);
        }
        let mut node = Plan::default();
        for pod in world.list::<Pod>("ns") {
            let mut pod = pod.to_owned();
            let broken =
                pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("broken");
            if pod.is_deleting() {
                node.write([Change::delete_now(&pod)]);
            } else if !broken && set_condition(&mut pod, "Ready", "True", "", "", now) {
                node.write([Change::status(pod)]);
                break;
            }
        }
        world = world.after(&node, now);
        check(&world);
        if world.revision == before {
            return world;
        }
    }
    panic!("it never comes to rest");
}

fn update(world: &mut World, image: &str, change: impl Fn(&mut Deployment)) {
    let mut new = world.get::<Deployment>(&key()).unwrap().to_owned();
    let spec = new.spec.as_mut().unwrap();
    spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    change(&mut new);
    let mut plan = Plan::default();
    plan.write([Change::update(new)]);
    *world = world.after(&plan, Timestamp::from_seconds(5_000));
}

fn ready(world: &World) -> usize {
    world.list::<Pod>("ns").filter(|it| is_ready(it) && !it.is_deleting()).count()
}

fn reason(world: &World, kind: &str) -> String {
    let status = world.get::<Deployment>(&key()).unwrap().status.clone().unwrap();
    let conditions = status.conditions.unwrap();
    conditions
        .iter()
        .find(|it| it.type_ == kind)
        .and_then(|it| it.reason.clone())
        .unwrap_or_default()
}

#[test]
fn comes_up_and_says_that_it_has() {
    let world = settle(world(&deployment(3, "one", "")), &mut |_| {});
    assert_eq!(ready(&world), 3);
    assert_eq!(reason(&world, "Progressing"), "NewReplicaSetAvailable");
    assert_eq!(reason(&world, "Available"), "MinimumReplicasAvailable");
    let deployment = world.get::<Deployment>(&key()).unwrap();
    assert_eq!(deployment.annotation(REVISION), Some("1"));
    assert_eq!(deployment.status.as_ref().unwrap().updated_replicas, Some(3));
}

#[test]
fn an_update_keeps_between_its_fenceposts() {
    for more in [
        "",
        "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}},",
        "strategy: {rollingUpdate: {maxSurge: 3, maxUnavailable: 2}},",
    ] {
        let mut world = settle(world(&deployment(5, "one", more)), &mut |_| {});
        let (surge, unavailable) = fenceposts(&world.get::<Deployment>(&key()).unwrap());
        update(&mut world, "two", |_| {});
        let world = settle(world, &mut |world| {
            let pods = world.list::<Pod>("ns").filter(|it| !it.is_deleting()).count();
            assert!(pods <= 5 + surge as usize, "{pods} pods with {more}");
            assert!(ready(world) >= 5 - unavailable as usize, "{} ready with {more}", ready(world));
        });
        let images: Vec<_> = world
            .list::<Pod>("ns")
            .map(|it| it.spec.clone().unwrap().containers[0].image.clone().unwrap())
            .collect();
        assert_eq!(images, ["two"; 5]);
        assert_eq!(world.get::<Deployment>(&key()).unwrap().annotation(REVISION), Some("2"));
    }
}

#[test]
fn recreate_never_runs_two_templates_at_once() {
    let mut world =
        settle(world(&deployment(3, "one", "strategy: {type: Recreate},")), &mut |_| {});
    update(&mut world, "two", |_| {});
    let world = settle(world, &mut |world| {
        let mut images: Vec<_> = world
            .list::<Pod>("ns")
            .map(|it| it.spec.clone().unwrap().containers[0].image.clone())
            .collect();
        images.dedup();
        assert!(images.len() <= 1, "{images:?}");
    });
    assert_eq!(ready(&world), 3);
}

#[test]
fn a_broken_template_leaves_the_old_pods_and_an_undo_takes_the_old_set_back() {
    let mut world = settle(world(&deployment(4, "one", "")), &mut |_| {});
    update(&mut world, "broken", |_| {});
    let mut world = settle(world, &mut |world| assert!(ready(world) >= 3));
    assert_eq!(world.list::<ReplicaSet>("ns").count(), 2);
    update(&mut world, "one", |_| {});
    let world = settle(world, &mut |world| assert!(ready(world) >= 3));
    assert_eq!((ready(&world), world.list::<ReplicaSet>("ns").count()), (4, 2));
    let deployment = world.get::<Deployment>(&key()).unwrap();
    assert_eq!(deployment.annotation(REVISION), Some("3"), "the old template is the latest again");
}

#[test]
fn scaling_while_an_update_stands_still_shares_out() {
    let mut world = settle(world(&deployment(4, "one", "")), &mut |_| {});
    update(&mut world, "broken", |_| {});
    let mut world = settle(world, &mut |_| {});
    update(&mut world, "broken", |it| it.spec.as_mut().unwrap().replicas = Some(8));
    let world = settle(world, &mut |_| {});
    let mut sizes: Vec<i32> =
        world.list::<ReplicaSet>("ns").map(|it| api::apps::replica_set::replicas(&it)).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [4, 6], "eight and a quarter more, by their shares of three and two");
}

#[test]
fn a_paused_deployment_keeps_its_template_and_takes_its_size() {
    let mut world = settle(world(&deployment(2, "one", "")), &mut |_| {});
    update(&mut world, "two", |it| {
        let spec = it.spec.as_mut().unwrap();
        (spec.paused, spec.replicas) = (Some(true), Some(3));
    });
    let mut world = settle(world, &mut |_| {});
    assert_eq!((ready(&world), world.list::<ReplicaSet>("ns").count()), (3, 1));
    assert_eq!(reason(&world, "Progressing"), "DeploymentPaused");
    update(&mut world, "two", |it| it.spec.as_mut().unwrap().paused = Some(false));
    let world = settle(world, &mut |_| {});
    assert_eq!(reason(&world, "Progressing"), "NewReplicaSetAvailable");
}

#[test]
fn one_that_does_not_get_on_says_so_after_its_deadline() {
    let world = settle(world(&deployment(1, "broken", "progressDeadlineSeconds: 7,")), &mut |_| {});
    let at = |seconds: i64| Timestamp::from_seconds(5_000 + seconds);
    let plan = DeploymentController.reconcile(&world, &key(), at(1));
    assert_eq!(plan.requeue.map(|it| it.as_secs()), Some(7), "{plan}");
    let world = world.after(&DeploymentController.reconcile(&world, &key(), at(8)), at(8));
    assert_eq!(reason(&world, "Progressing"), "ProgressDeadlineExceeded");
}

#[test]
fn old_sets_are_kept_up_to_the_limit() {
    let mut world = settle(world(&deployment(1, "v0", "revisionHistoryLimit: 2,")), &mut |_| {});
    for n in 1..6 {
        update(&mut world, &format!("v{n}"), |_| {});
        world = settle(world, &mut |_| {});
    }
    assert_eq!(world.list::<ReplicaSet>("ns").count(), 3, "two old ones and the latest");
}

#[test]
fn a_name_that_somebody_else_has_is_avoided() {
    let first = settle(world(&deployment(1, "one", "")), &mut |_| {});
    let name = first.list::<ReplicaSet>("ns").next().unwrap().metadata.name.clone().unwrap();
    let mut other = world(&deployment(1, "one", ""));
    load(
        &mut other,
        &format!(
            "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: {name}, namespace: ns, uid: x}},
              spec: {{replicas: 0, selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {{labels: {{a: b}}}},
              spec: {{containers: [{{name: c, image: i}}]}}}}}}}}"
        ),
    );
    let world = settle(other, &mut |_| {});
    assert_eq!((ready(&world), world.list::<ReplicaSet>("ns").count()), (1, 2));
    let status = world.get::<Deployment>(&key()).unwrap().status.clone().unwrap();
    assert_eq!(status.collision_count, Some(1));
}
