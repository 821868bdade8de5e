//! Golden tests of one look, and worlds in which everything that is concerned looks until all is done.

use super::*;
use crate::testing::world;
use api::core::v1::{ConfigMap, Secret};
use expect_test::{Expect, expect};

/// `map name uid [owner uids]`: owners are ConfigMaps of the same namespace, named like their uid.
fn map(name: &str, owners: &[&str], more: &str) -> String {
    let owners: Vec<String> = owners
        .iter()
        .map(|it| format!("{{apiVersion: v1, kind: ConfigMap, name: {it}, uid: u-{it}, blockOwnerDeletion: true}}"))
        .collect();
    let owners = owners.join(", ");
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: a, uid: u-{name}, ownerReferences: [{owners}]{more}}}\n"
    )
}

const GOING: &str = ", deletionTimestamp: '2026-01-01T00:00:00Z', deletionGracePeriodSeconds: 0";

fn going(finalizer: &str) -> String {
    format!("{GOING}, finalizers: [{finalizer}]")
}

#[test]
fn deletes_what_lost_all_its_owners_and_checks_that_they_are_gone() {
    let yaml = map("x", &["gone", "gone2"], "");
    check(
        &yaml,
        "x",
        expect![[r"
            write
              delete ConfigMap a/x
              check ConfigMap a/gone
              check ConfigMap a/gone2
        "]],
    );
}

#[test]
fn keeps_what_has_an_owner_and_forgets_those_that_are_gone() {
    let yaml = [map("o", &[], ""), map("x", &["o", "gone"], "")].concat();
    let world = check(
        &yaml,
        "x",
        expect![[r"
            write
              update ConfigMap a/x
              check ConfigMap a/gone
        "]],
    );
    let row = world.row_of::<ConfigMap>(&ObjectKey::new("a", "x")).unwrap();
    assert_eq!(row.meta.owners.len(), 1);
    assert_eq!(row.meta.owners[0].uid, "u-o");
}

#[test]
fn an_owner_made_anew_under_its_name_is_another() {
    let namesake = map("o", &[], "").replace("uid: u-o", "uid: new");
    let yaml = [namesake, map("x", &["o"], "")].concat();
    check(
        &yaml,
        "x",
        expect![[r"
            write
              delete ConfigMap a/x
              check ConfigMap a/o
        "]],
    );
}

#[test]
fn an_owner_of_a_kind_that_nobody_knows_keeps_its_dependents() {
    let yaml = map("x", &["o"], "").replace("kind: ConfigMap, name: o", "kind: Widget, name: o");
    check(
        &yaml,
        "x",
        expect![[r"
            requeue 30s
        "]],
    );
}

#[test]
fn an_object_of_the_cluster_whose_owner_would_be_in_a_namespace_is_left_alone() {
    let world = world(
        "{apiVersion: v1, kind: PersistentVolume, metadata: {name: v, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: o, uid: u-o}]}}",
    );
    let key = ObjectKey::cluster("/persistentvolumes/v");
    assert!(GarbageCollector.reconcile(&world, &key, Timestamp(0)).is_empty());
}

#[test]
fn background_takes_whole_trees() {
    let tree = [map("a", &["gone"], ""), map("b", &["a"], ""), map("c", &["b", "a"], "")];
    let world = settle(world(&tree.concat()));
    assert_eq!(names(&world), Vec::<String>::new());
}

#[test]
fn orphans_stay_without_their_owner() {
    let tree = [map("o", &[], &going("orphan")), map("x", &["o"], ""), map("z", &["x"], "")];
    let world = settle(world(&tree.concat()));
    assert_eq!(names(&world), ["x", "z"]);
    let row = world.row_of::<ConfigMap>(&ObjectKey::new("a", "x")).unwrap();
    assert!(row.meta.owners.is_empty());
}

#[test]
fn foreground_takes_the_leaves_first() {
    let tree =
        [map("o", &[], &going("foregroundDeletion")), map("x", &["o"], ""), map("z", &["x"], "")];
    let seen = settle_seeing(world(&tree.concat()));
    assert_eq!(seen, ["o x z", "o x", "o", ""]);
}

#[test]
fn foreground_waits_for_what_holds_a_dependent() {
    let tree = [
        map("o", &[], &going("foregroundDeletion")),
        map("x", &["o"], ", finalizers: [some/hold]"),
    ];
    let world = settle(world(&tree.concat()));
    assert_eq!(names(&world), ["o", "x"]);
    let mut world = world;
    let mut map = world.get::<ConfigMap>(&ObjectKey::new("a", "x")).unwrap().to_owned();
    map.metadata.finalizers = None;
    world.apply(&Change::update(map), Timestamp(0));
    assert_eq!(names(&settle(world)), Vec::<String>::new());
}

#[test]
fn a_dependent_with_another_owner_survives_a_foreground_deletion() {
    let tree =
        [map("o", &[], &going("foregroundDeletion")), map("p", &[], ""), map("x", &["o", "p"], "")];
    assert_eq!(names(&settle(world(&tree.concat()))), ["p", "x"]);
}

#[test]
fn two_that_own_each_other_do_not_wait_for_ever() {
    let tree = [map("o", &["x"], &going("foregroundDeletion")), map("x", &["o"], "")];
    assert_eq!(names(&settle(world(&tree.concat()))), Vec::<String>::new());
}

#[test]
fn kinds_may_be_mixed() {
    let secret = "---\n{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: a, uid: u-s, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: x, uid: u-x}]}}\n";
    let world = settle(world(&[map("x", &["gone"], "").as_str(), secret].concat()));
    assert_eq!(world.all::<Secret>().count(), 0);
}

/// What wakes the collector must be enough: each deletion brings along all that it concerns.
#[test]
fn a_change_wakes_all_that_it_concerns() {
    let tree = [map("o", &[], GOING), map("x", &["o"], "")].concat();
    let mut world = world(&tree);
    let kind = api::kind_of::<ConfigMap>().clone();
    let touched = world.remove(&kind, &ObjectKey::new("a", "o"), 9);
    assert_eq!(concerned(&world, &touched), [ObjectKey::new("a", "/configmaps/x")]);
    let tree = [map("o", &[], &going("foregroundDeletion")), map("x", &["o"], "")].concat();
    let mut world = crate::testing::world(&tree);
    let touched = world.remove(&kind, &ObjectKey::new("a", "x"), 9);
    assert_eq!(concerned(&world, &touched), [ObjectKey::new("a", "/configmaps/o")]);
}

fn names(world: &World) -> Vec<String> {
    world.all::<ConfigMap>().map(|it| it.metadata.name.clone().unwrap()).collect()
}

fn settle(mut world: World) -> World {
    for _ in 0..32 {
        let before = world.revision;
        for key in keys(&world) {
            let plan = GarbageCollector.reconcile(&world, &key, Timestamp(0));
            world = world.after(&plan, Timestamp(0));
        }
        if world.revision == before {
            return world;
        }
    }
    panic!("does not settle: {:?}", names(&world));
}

/// The names that are there, each time that they changed. One object is looked at a time.
fn settle_seeing(mut world: World) -> Vec<String> {
    let mut seen = vec![names(&world).join(" ")];
    for _ in 0..32 {
        let before = world.revision;
        for key in keys(&world) {
            let plan = GarbageCollector.reconcile(&world, &key, Timestamp(0));
            world = world.after(&plan, Timestamp(0));
            let now = names(&world).join(" ");
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        if world.revision == before {
            return seen;
        }
    }
    panic!("does not settle: {seen:?}");
}

fn keys(world: &World) -> Vec<ObjectKey> {
    world.tables().flat_map(|it| it.rows(None)).map(|it| key_of(it)).collect()
}

#[track_caller]
fn check(yaml: &str, name: &str, expected: Expect) -> World {
    let world = world(yaml);
    let key = ObjectKey::new("a", &format!("/configmaps/{name}"));
    let plan = GarbageCollector.reconcile(&world, &key, Timestamp(0));
    expected.assert_eq(&plan.to_string());
    world.after(&plan, Timestamp(0))
}
