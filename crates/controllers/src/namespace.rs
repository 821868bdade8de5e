//! Empties a namespace that is to go: its pods first, then everything else, of whatever kind; when
//! nothing is left in it, it goes.
//!
//! Upstream: `pkg/controller/namespace/deletion` (1.36). Deviation: while pods are left, upstream's
//! conditions say that all content is removed; here they say what remains. Events are not in the
//! world; the door removes them when the namespace goes.

use api::{
    core::{
        namespace::{FINALIZER, TERMINATING, phase},
        v1::{Namespace, NamespaceCondition, Pod},
    },
    deletion::Propagation,
    k8s::Resource,
    meta,
};
use std::{collections::BTreeMap, sync::Arc};
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Row, Touched, Watch, World};

pub struct NamespaceController;

/// Deletions in one plan: what a loop may keep the ledger busy with before it looks again.
const DELETIONS_MOST: usize = 256;

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Namespace>(), Watch::Any(terminating_namespace)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(namespace) = world.get::<Namespace>(key) else { return plan };
        if namespace.metadata.deletion_timestamp.is_none() || !has_our_finalizer(&namespace) {
            return plan;
        }
        let content = content(world, &key.name);
        if content.is_empty() {
            let mut namespace = namespace.to_owned();
            set_conditions(&mut namespace, &content, now);
            let finalizers = namespace.spec.as_mut().and_then(|it| it.finalizers.as_mut());
            finalizers.into_iter().for_each(|it| it.retain(|it| it != FINALIZER));
            plan.write([Change::both(namespace)]);
            return plan;
        }
        let is_pod = |row: &&Arc<Row>| row.kind.kind == Pod::KIND && row.kind.group.is_empty();
        let pods: Vec<_> = content.iter().filter(is_pod).collect();
        let now_due = if pods.is_empty() { content.iter().collect() } else { pods };
        let unmarked = now_due.into_iter().filter(|it| it.meta.deletion.is_none());
        for row in unmarked.take(DELETIONS_MOST) {
            plan.write([Change::delete_row(row, Some(Propagation::Background))]);
        }
        let left = self::content(&world.after(&plan, now), &key.name);
        let mut told = namespace.to_owned();
        set_conditions(&mut told, &left, now);
        if !left.is_empty() && told != *namespace {
            plan.status = Some(Change::status(told));
        }
        plan
    }
}

/// A change in a namespace that is to go: perhaps it was the last object.
fn terminating_namespace(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    if touched.key.namespace.is_empty() {
        return Vec::new();
    }
    let key = ObjectKey::cluster(&touched.key.namespace);
    let goes = world.row_of::<Namespace>(&key).is_some_and(|it| it.meta.deletion.is_some());
    goes.then_some(key).into_iter().collect()
}

/// Whether a namespace takes no new objects any more.
pub(crate) fn is_terminating(world: &World, namespace: &str) -> bool {
    let row = world.row_of::<Namespace>(&ObjectKey::cluster(namespace));
    row.is_some_and(|it| it.meta.deletion.is_some())
}

fn has_our_finalizer(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|it| it.finalizers.as_ref());
    finalizers.into_iter().flatten().any(|it| it == FINALIZER)
}

fn content(world: &World, namespace: &str) -> Vec<Arc<Row>> {
    world.tables().flat_map(|it| it.rows(Some(namespace))).cloned().collect()
}

/// Says what remains, in upstream's words.
fn set_conditions(namespace: &mut Namespace, content: &[Arc<Row>], now: Timestamp) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for row in content {
        *kinds.entry(format!("{}.{}", row.kind.plural, row.kind.group)).or_default() += 1;
        for finalizer in &row.meta.finalizers {
            *finalizers.entry(finalizer).or_default() += 1;
        }
    }
    let kinds: Vec<_> = kinds
        .iter()
        .map(|(kind, count)| format!("{kind} has {count} resource instances"))
        .collect();
    let finalizers: Vec<_> = finalizers
        .iter()
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    let ok = |reason, message: &str| ("False", reason, message.to_owned());
    let remaining = match kinds.is_empty() {
        true => ok("ContentRemoved", "All content successfully removed"),
        false => (
            "True",
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", kinds.join(", ")),
        ),
    };
    let held = match finalizers.is_empty() {
        true => ok("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        false => (
            "True",
            "SomeFinalizersRemain",
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                finalizers.join(", ")
            ),
        ),
    };
    let conditions = [
        (
            "NamespaceDeletionDiscoveryFailure",
            ok("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ok("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            ok(
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        ("NamespaceContentRemaining", remaining),
        ("NamespaceFinalizersRemaining", held),
    ];
    let status = namespace.status.get_or_insert_default();
    status.phase = Some(TERMINATING.to_owned());
    let all = status.conditions.get_or_insert_default();
    for (kind, (truth, reason, message)) in conditions {
        let mut wanted = NamespaceCondition {
            type_: kind.to_owned(),
            status: truth.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(meta::time(now)),
        };
        match all.iter_mut().find(|it| it.type_ == kind) {
            Some(old) => {
                if old.status == wanted.status {
                    wanted.last_transition_time = old.last_transition_time.clone();
                }
                *old = wanted;
            }
            None => all.push(wanted),
        }
    }
    debug_assert_eq!(phase(namespace), TERMINATING);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;
    use api::core::v1::ConfigMap;
    use expect_test::{Expect, expect};

    const GOING: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a, uid: ns, deletionTimestamp: '2026-01-01T00:00:00Z'}
spec: {finalizers: [kubernetes]}
status: {phase: Terminating}
";
    const MAP: &str = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m, namespace: a}}\n";
    const POD: &str = "---\n{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a}, spec: {nodeName: n1, containers: []}, status: {phase: Running}}\n";
    const OTHER: &str =
        "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m, namespace: b}}\n";

    #[test]
    fn deletes_the_pods_before_everything_else() {
        check(
            &[GOING, MAP, POD, OTHER].concat(),
            expect![[r"
            write
              delete Pod a/p
            status Namespace a
        "]],
        );
        check(
            &[GOING, MAP, OTHER].concat(),
            expect![[r"
            write
              delete ConfigMap a/m
        "]],
        );
    }

    #[test]
    fn an_empty_namespace_goes() {
        let after = check(
            &[GOING, OTHER].concat(),
            expect![[r"
            write
              update Namespace a
        "]],
        );
        assert!(after.cluster::<Namespace>("a").is_none());
        assert_eq!(after.all::<ConfigMap>().count(), 1, "the neighbour's map is still there");
    }

    #[test]
    fn waits_for_the_graces_and_finalizers_of_its_content_and_says_so() {
        let held = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: h, namespace: a, finalizers: [x/y]}}\n";
        let world = settle(&[GOING, MAP, POD, held].concat());
        let said = conditions(&world);
        assert!(said.contains("Some resources are remaining: configmaps. has 2 resource instances, pods. has 1 resource instances"), "{said}");
        let mut world = world;
        let pod = world.list::<Pod>("a").next().unwrap();
        assert!(pod.metadata.deletion_timestamp.is_some(), "with its grace");
        world.apply(&Change::delete_now(&*pod), Timestamp(0));
        let mut world = settle_on(world);
        let said = conditions(&world);
        assert!(said.contains("Some content in the namespace has finalizers remaining: x/y in 1 resource instances"), "{said}");
        let mut map = world.list::<ConfigMap>("a").next().unwrap().to_owned();
        map.metadata.finalizers = None;
        world.apply(&Change::update(map), Timestamp(0));
        assert!(settle_on(world).cluster::<Namespace>("a").is_none());
    }

    #[test]
    fn a_deletion_marks_an_active_namespace_and_leaves_it_in_place() {
        let yaml = "{apiVersion: v1, kind: Namespace, metadata: {name: a}, spec: {finalizers: [kubernetes]}}";
        let mut world = world(yaml);
        let namespace = world.cluster::<Namespace>("a").unwrap();
        world.apply(&Change::delete(&*namespace), Timestamp(0));
        let namespace = world.cluster::<Namespace>("a").expect("it waits to be emptied");
        assert_eq!(phase(&namespace), TERMINATING);
        assert!(settle_on(world).cluster::<Namespace>("a").is_none());
    }

    fn settle(yaml: &str) -> World {
        settle_on(world(yaml))
    }

    fn settle_on(mut world: World) -> World {
        for _ in 0..16 {
            let plan =
                NamespaceController.reconcile(&world, &ObjectKey::cluster("a"), Timestamp(0));
            if plan.is_empty() {
                return world;
            }
            world = world.after(&plan, Timestamp(0));
        }
        panic!("does not settle");
    }

    fn conditions(world: &World) -> String {
        let namespace = world.cluster::<Namespace>("a").unwrap();
        let all = namespace.status.as_ref().unwrap().conditions.clone().unwrap();
        let line =
            |it: &NamespaceCondition| format!("{} {}\n", it.status, it.message.as_deref().unwrap());
        all.iter().map(line).collect()
    }

    #[track_caller]
    fn check(yaml: &str, expected: Expect) -> World {
        let world = world(yaml);
        let plan = NamespaceController.reconcile(&world, &ObjectKey::cluster("a"), Timestamp(0));
        expected.assert_eq(&plan.to_string());
        world.after(&plan, Timestamp(0))
    }
}
