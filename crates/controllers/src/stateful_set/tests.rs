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
            event Normal SuccessfulCreate Create Claim data-web-0 Pod web-0 in StatefulSet web success
            event Normal SuccessfulCreate Create Pod web-0 in StatefulSet web successful
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
            event Normal SuccessfulCreate Create Pod web-0 in StatefulSet web successful
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
            event Warning FailedCreate Create Pod web-0 in StatefulSet web failed error: pvc data-web-0 is being deleted
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
fn replaces_as_many_pods_at_a_time_as_may_be_unavailable() {
    let mut world = world(&WEB.replace("replicas: 2", "replicas: 4"));
    set_spec(&mut world, |set| {
        let spec = set.spec.as_mut().unwrap();
        spec.replicas = Some(4);
        let rolling = spec.update_strategy.as_mut().unwrap().rolling_update.as_mut().unwrap();
        let half = api::k8s::apimachinery::pkg::util::intstr::IntOrString::String("50%".to_owned());
        rolling.max_unavailable = Some(half);
    });
    assert_eq!(settle(&mut world).len(), 4);
    set_spec(&mut world, |set| {
        let template = &mut set.spec.as_mut().unwrap().template;
        template.spec.as_mut().unwrap().containers[0].image = Some("db:2".to_owned());
    });
    let plan = StatefulSetController.reconcile(&world, &KEY(), Timestamp(0));
    let gone: Vec<String> = plan
        .changes()
        .filter(|it| matches!(it.verb, world::Verb::Delete { .. }))
        .map(|it| it.key.name.to_string())
        .collect();
    assert_eq!(gone, ["web-3", "web-2"], "{plan}");
    assert_eq!(settle(&mut world).len(), 4);
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

const POD_OF_OURS: &str = "---\n{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: default, uid: p0, labels: {app: web}}, spec: {containers: []}}\n";

#[test]
fn takes_in_an_orphan_that_fits() {
    let world = world(&format!("{WEB}{POD_OF_OURS}"));
    let plan = StatefulSetController.reconcile(&world, &KEY(), Timestamp(0));
    assert_eq!(
        plan.to_string(),
        "write\n  update Pod default/web-0\n  check StatefulSet default/web\n"
    );
    let world = world.after(&plan, Timestamp(0));
    assert_eq!(world.owned::<Pod>("u1").count(), 1);
}

#[test]
fn leaves_orphans_alone_that_go_or_have_other_labels_or_other_names() {
    for (from, to) in [
        ("uid: p0", "uid: p0, deletionTimestamp: '2026-01-01T00:00:00Z'"),
        ("app: web", "app: other"),
        ("name: web-0", "name: web-x"),
    ] {
        let world = world(&format!("{WEB}{}", POD_OF_OURS.replace(from, to)));
        let plan = StatefulSetController.reconcile(&world, &KEY(), Timestamp(0));
        let world = world.after(&plan, Timestamp(0));
        assert!(world.owned::<Pod>("u1").all(|it| it.uid() != "p0"), "{to}");
    }
}

#[test]
fn lets_a_pod_go_that_its_selector_does_not_choose_any_more() {
    let mut world = world(WEB);
    settle(&mut world);
    let mut pod = world.get::<Pod>(&ObjectKey::new("default", "web-1")).unwrap().to_owned();
    pod.metadata.labels = None;
    world.apply(&Change::update(pod), Timestamp(0));
    let plan = StatefulSetController.reconcile(&world, &KEY(), Timestamp(0));
    let world = world.after(&plan, Timestamp(0));
    assert_eq!(world.owned::<Pod>("u1").count(), 1);
}

/// A set that was deleted without its pods and made again takes pods and history over; nothing restarts.
#[test]
fn a_set_made_anew_takes_over_what_its_namesake_left() {
    let mut world = world(WEB);
    settle(&mut world);
    let uids = |world: &World| -> Vec<String> {
        world.list::<Pod>("default").map(|it| it.uid().to_owned()).collect()
    };
    let before = uids(&world);
    for pod in world.list::<Pod>("default").collect::<Vec<_>>() {
        let mut pod = pod.to_owned();
        pod.metadata.owner_references = None;
        world.apply(&Change::update(pod), Timestamp(0));
    }
    for revision in world.list::<ControllerRevision>("default").collect::<Vec<_>>() {
        let mut revision = revision.to_owned();
        revision.metadata.owner_references = None;
        world.apply(&Change::update(revision), Timestamp(0));
    }
    crate::testing::load(&mut world, &WEB.replace("uid: u1", "uid: u2"));
    settle(&mut world);
    assert_eq!(uids(&world), before);
    assert_eq!(world.owned::<ControllerRevision>("u2").count(), 1);
}

/// Each cell of the policy: who owns the claims of a pod that is wanted, and of one that is condemned.
#[test]
fn claims_are_owned_as_the_policy_says() {
    for (deleted, scaled, wanted, condemned) in [
        ("Retain", "Retain", "", ""),
        ("Delete", "Retain", "StatefulSet", "StatefulSet"),
        ("Retain", "Delete", "", "Pod"),
        ("Delete", "Delete", "StatefulSet", "Pod"),
    ] {
        let policy = format!(
            "  persistentVolumeClaimRetentionPolicy: {{whenDeleted: {deleted}, whenScaled: {scaled}}}\n"
        );
        let mut world = world(&format!("{WEB}{policy}"));
        settle(&mut world);
        assert_eq!(claim_owners(&world), [wanted, wanted], "{deleted} {scaled}");
        set_spec(&mut world, |set| set.spec.as_mut().unwrap().replicas = Some(1));
        let plan = StatefulSetController.reconcile(&world, &KEY(), Timestamp(0));
        let mut world = world.after(&plan, Timestamp(0));
        assert_eq!(claim_owners(&world), [wanted, condemned], "{deleted} {scaled}");
        // The policy changes its mind: nobody owns them any more.
        set_spec(&mut world, |set| {
            let spec = set.spec.as_mut().unwrap();
            spec.persistent_volume_claim_retention_policy = None;
            spec.replicas = Some(2);
        });
        if condemned != "Pod" {
            settle(&mut world);
            assert_eq!(claim_owners(&world), ["", ""], "{deleted} {scaled}");
        }
    }
}

#[test]
fn a_claim_that_goes_with_the_pod_before_is_waited_for() {
    let set = format!("{WEB}  persistentVolumeClaimRetentionPolicy: {{whenScaled: Delete}}\n");
    let claim = "---\n{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-web-0, namespace: default, ownerReferences: [{apiVersion: v1, kind: Pod, name: web-0, uid: before, controller: true}]}}\n";
    let world = world(&format!("{set}{claim}"));
    let plan = StatefulSetController.reconcile(&world, &KEY(), Timestamp(0));
    assert!(!plan.changes().any(|it| it.kind.kind == "Pod"), "{plan}");
    let kind = api::kind_of::<PersistentVolumeClaim>().clone();
    let key = ObjectKey::new("default", "data-web-0");
    let touched = Touched { kind, key, old: None, new: None };
    assert_eq!(sets_by_claim(&world, &touched), [KEY()], "its end wakes the set");
}

#[test]
fn starts_nothing_in_a_namespace_that_goes() {
    let namespace = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: default, deletionTimestamp: '2026-01-01T00:00:00Z'}}\n";
    let world = world(&format!("{WEB}{namespace}"));
    let plan = StatefulSetController.reconcile(&world, &KEY(), Timestamp(0));
    assert!(!plan.changes().any(|it| it.kind.kind == "Pod"), "{plan}");
}

/// The kinds of the owners of the claims, in order of the claims' names.
fn claim_owners(world: &World) -> Vec<String> {
    let kinds = |it: world::Typed<PersistentVolumeClaim>| {
        let owners = it.metadata.owner_references.iter().flatten();
        owners.map(|it| it.kind.clone()).collect::<Vec<_>>().join(" ")
    };
    world.list::<PersistentVolumeClaim>("default").map(kinds).collect()
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
