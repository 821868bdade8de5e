//! Golden tests (one look, one plan) and a convergence test (plan after plan, invariants between).

use super::*;
use crate::testing::world;
use expect_test::{Expect, expect};

const WEB: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: default, uid: u1}
spec:
  replicas: 2
  serviceName: nginx
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: db, image: db}]}}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce]}}]
";

#[test]
fn creates_the_first_pod_together_with_its_claim() {
    check(
        WEB,
        expect![[r#"
            write
              create ControllerRevision default/web-5c57fdff87
            write
              create PersistentVolumeClaim default/data-web-0
              create Pod default/web-0
            status StatefulSet default/web
            event Normal SuccessfulCreate create Claim data-web-0 Pod web-0 in StatefulSet web success
            event Normal SuccessfulCreate create Pod web-0 in StatefulSet web successful
        "#]],
    );
}

#[test]
fn keeps_the_claim_when_the_pod_comes_back() {
    let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-web-0, namespace: default}}";
    check(
        &format!("{WEB}---\n{claim}"),
        expect![[r#"
            write
              create ControllerRevision default/web-5c57fdff87
            write
              create Pod default/web-0
            status StatefulSet default/web
            event Normal SuccessfulCreate create Pod web-0 in StatefulSet web successful
        "#]],
    );
}

#[test]
fn waits_for_a_claim_that_is_on_its_way_out() {
    let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-web-0, namespace: default, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [kubernetes.io/pvc-protection]}}";
    check(
        &format!("{WEB}---\n{claim}"),
        expect![[r#"
            write
              create ControllerRevision default/web-5c57fdff87
            status StatefulSet default/web
        "#]],
    );
}

/// Plans, writes and lets pods become ready until nothing is left to do. At every step the order of
/// OrderedReady holds and no pod is without its claim.
#[test]
fn scales_up_and_down_in_order_and_keeps_the_claims() {
    let mut world = world(WEB);
    set_spec(&mut world, |set| set.spec.as_mut().unwrap().replicas = Some(3));
    assert_eq!(settle_with(&mut world, check_invariants), ["web-0", "web-1", "web-2"]);
    set_spec(&mut world, |set| set.spec.as_mut().unwrap().replicas = Some(1));
    assert_eq!(settle_with(&mut world, check_invariants), ["web-0"]);
    assert_eq!(world.list::<PersistentVolumeClaim>("default").count(), 3);
    set_spec(&mut world, |set| set.spec.as_mut().unwrap().replicas = Some(3));
    assert_eq!(settle_with(&mut world, check_invariants), ["web-0", "web-1", "web-2"]);
    assert_eq!(world.list::<PersistentVolumeClaim>("default").count(), 3);
}

#[test]
fn rolls_a_new_template_out_from_the_last_pod_to_the_first() {
    let mut world = world(WEB);
    settle(&mut world);
    let before: Vec<String> = revisions(&world);
    set_spec(&mut world, |set| {
        let template = &mut set.spec.as_mut().unwrap().template;
        template.spec.as_mut().unwrap().containers[0].image = Some("db:2".to_owned());
    });
    assert_eq!(settle(&mut world), ["web-0", "web-1"]);
    assert!(revisions(&world).iter().all(|it| !before.contains(it)), "every pod is new");
    let set = world.get::<StatefulSet>(&KEY()).unwrap();
    let status = set.status.as_ref().unwrap();
    assert_eq!(status.current_revision, status.update_revision, "the update is through");
}

#[test]
fn leaves_a_foreign_pod_of_its_name_alone() {
    let pod =
        "{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: default, uid: other}}";
    let world = world(&format!("{WEB}---\n{pod}"));
    let plan = StatefulSetController.reconcile(&world, &KEY(), Timestamp(0));
    assert!(!plan.changes().any(|it| it.kind.kind == "Pod"), "{plan}");
    assert!(plan.to_string().contains("FailedCreate"), "{plan}");
}

#[allow(non_snake_case)]
fn KEY() -> ObjectKey {
    ObjectKey::new("default", "web")
}

fn settle(world: &mut World) -> Vec<String> {
    settle_with(world, |_| {})
}

fn settle_with(world: &mut World, check: fn(&World)) -> Vec<String> {
    for _ in 0..64 {
        let plan = StatefulSetController.reconcile(world, &KEY(), Timestamp(0));
        let before = world.revision;
        *world = world.after(&plan, Timestamp(0));
        check(world);
        finish_deletions(world);
        become_ready(world);
        if plan.is_empty() && before == world.revision {
            return world.list::<Pod>("default").map(|it| it.name().to_owned()).collect();
        }
    }
    panic!("does not settle");
}

fn check_invariants(world: &World) {
    let pods: Vec<_> = world.list::<Pod>("default").collect();
    for (n, pod) in pods.iter().enumerate() {
        assert_eq!(pod.name(), format!("web-{n}"), "no gaps");
        assert!(n + 1 == pods.len() || is_ready(pod), "a pod waits for those before it");
        let claim = ObjectKey::new("default", &format!("data-web-{n}"));
        assert!(
            world.row_of::<PersistentVolumeClaim>(&claim).is_some(),
            "no pod without its claim"
        );
    }
}

/// What the node does to pods that are to go.
fn finish_deletions(world: &mut World) {
    let pods: Vec<Pod> = world.list::<Pod>("default").map(|it| it.to_owned()).collect();
    for pod in pods.iter().filter(|it| it.is_deleting()) {
        world.apply(&Change::delete_now(pod), Timestamp(0));
    }
}

/// What scheduler and node do to the others.
fn become_ready(world: &mut World) {
    let pods: Vec<Pod> = world.list::<Pod>("default").map(|it| it.to_owned()).collect();
    for mut pod in pods.into_iter().filter(|it| !is_ready(it)) {
        pod.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
        pod.status.get_or_insert_default().phase = Some("Running".to_owned());
        api::core::pod::set_condition(&mut pod, "Ready", "True", "", "", Timestamp(0));
        world.apply(&Change::both(pod), Timestamp(0));
    }
}

fn revisions(world: &World) -> Vec<String> {
    let label = api::apps::stateful_set::REVISION_LABEL;
    world.list::<Pod>("default").map(|it| it.label(label).unwrap().to_owned()).collect()
}

fn set_spec(world: &mut World, change: impl FnOnce(&mut StatefulSet)) {
    let mut set = world.get::<StatefulSet>(&KEY()).unwrap().to_owned();
    change(&mut set);
    world.apply(&Change::update(set), Timestamp(0));
}

#[track_caller]
fn check(yaml: &str, plan: Expect) {
    let world = world(yaml);
    plan.assert_eq(&StatefulSetController.reconcile(&world, &KEY(), Timestamp(0)).to_string());
}
