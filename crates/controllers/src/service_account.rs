//! Gives every active namespace its service account `default`.
//!
//! Upstream: `pkg/controller/serviceaccount/serviceaccounts_controller.go` (1.36).

use api::{
    core::{
        namespace,
        v1::{Namespace, ServiceAccount},
    },
    meta::ObjectMeta,
};
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Touched, Watch, World};

/// The account of pods that name none.
const DEFAULT: &str = "default";

/// Its keys are namespaces.
pub struct ServiceAccountController;

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Namespace>(), Watch::mapped::<ServiceAccount>(namespace_without)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let namespace = world.get::<Namespace>(key);
        let active = namespace.is_some_and(|it| namespace::phase(&it) == namespace::ACTIVE);
        let account = ObjectKey::new(&key.name, DEFAULT);
        if active && world.row_of::<ServiceAccount>(&account).is_none() {
            plan.write([Change::create(ServiceAccount {
                metadata: ObjectMeta {
                    name: Some(DEFAULT.to_owned()),
                    namespace: Some(key.name.to_string()),
                    ..ObjectMeta::default()
                },
                ..ServiceAccount::default()
            })]);
        }
        plan
    }
}

/// The namespace that lost its account.
fn namespace_without(_world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let lost = touched.new.is_none() && &*touched.key.name == DEFAULT;
    lost.then(|| ObjectKey::cluster(&touched.key.namespace)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;
    use expect_test::{Expect, expect};

    #[test]
    fn an_active_namespace_gets_its_account_once() {
        let yaml = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}";
        let made = check(
            yaml,
            expect![[r"
            write
              create ServiceAccount a/default
        "]],
        );
        let key = ObjectKey::cluster("a");
        assert!(ServiceAccountController.reconcile(&made, &key, Timestamp(0)).is_empty());
    }

    #[test]
    fn a_namespace_on_its_way_out_gets_none() {
        check(
            "{apiVersion: v1, kind: Namespace, metadata: {name: a}, status: {phase: Terminating}}",
            expect![[r"
            nothing to do
        "]],
        );
    }

    #[track_caller]
    fn check(yaml: &str, expected: Expect) -> World {
        let world = world(yaml);
        let key = ObjectKey::cluster("a");
        let plan = ServiceAccountController.reconcile(&world, &key, Timestamp(0));
        expected.assert_eq(&plan.to_string());
        world.after(&plan, Timestamp(0))
    }
}
