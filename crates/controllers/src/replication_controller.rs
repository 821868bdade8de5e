//! ReplicationController: what a ReplicaSet does, for a kind with an older spec.
//!
//! Upstream: `pkg/controller/replication` (1.36), which adapts the ReplicaSet's loop just so.

use crate::replica_set::{self, Replicated};
use api::{
    Failure,
    apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus},
    core::v1::{
        ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
    },
    meta::LabelSelector,
};
use std::borrow::Cow;
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Watch, World};

pub struct ReplicationControllers;

impl Controller for ReplicationControllers {
    fn name(&self) -> &'static str {
        "replication-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        replica_set::watches::<ReplicationController>()
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        replica_set::reconcile::<ReplicationController>(world, key, now)
    }

    fn refused(
        &self,
        world: &World,
        key: &ObjectKey,
        changes: &[Change],
        failure: &Failure,
        now: Timestamp,
    ) -> Plan {
        replica_set::refused::<ReplicationController>(world, key, changes, failure, now)
    }
}

impl Replicated for ReplicationController {
    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.as_ref().map(|it| ReplicaSetSpec {
            min_ready_seconds: it.min_ready_seconds,
            replicas: it.replicas,
            selector: LabelSelector { match_labels: it.selector.clone(), match_expressions: None },
            template: it.template.clone(),
        });
        let status = self.status.as_ref().map(|it| ReplicaSetStatus {
            replicas: it.replicas,
            fully_labeled_replicas: it.fully_labeled_replicas,
            ready_replicas: it.ready_replicas,
            available_replicas: it.available_replicas,
            terminating_replicas: None,
            observed_generation: it.observed_generation,
            conditions: it.conditions.as_ref().map(|all| {
                let same =
                    |it: &ReplicationControllerCondition| api::apps::v1::ReplicaSetCondition {
                        type_: it.type_.clone(),
                        status: it.status.clone(),
                        reason: it.reason.clone(),
                        message: it.message.clone(),
                        last_transition_time: it.last_transition_time.clone(),
                    };
                all.iter().map(same).collect()
            }),
        });
        Cow::Owned(ReplicaSet { metadata: self.metadata.clone(), spec, status })
    }

    fn say(&mut self, set: ReplicaSetStatus) {
        self.status = Some(ReplicationControllerStatus {
            replicas: set.replicas,
            fully_labeled_replicas: set.fully_labeled_replicas,
            ready_replicas: set.ready_replicas,
            available_replicas: set.available_replicas,
            observed_generation: set.observed_generation,
            conditions: set.conditions.map(|all| {
                let same =
                    |it: api::apps::v1::ReplicaSetCondition| ReplicationControllerCondition {
                        type_: it.type_,
                        status: it.status,
                        reason: it.reason,
                        message: it.message,
                        last_transition_time: it.last_transition_time,
                    };
                all.into_iter().map(same).collect()
            }),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;
    use api::core::v1::Pod;

    const CONTROLLER: &str = "
{apiVersion: v1, kind: ReplicationController, metadata: {name: web, namespace: ns, uid: rc, generation: 1},
 spec: {replicas: 2, selector: {app: web}, template: {metadata: {labels: {app: web}},
 spec: {containers: [{name: c, image: nginx}]}}}}
";

    #[test]
    fn keeps_as_many_pods_as_are_wanted() {
        let now = Timestamp::from_seconds(1_000);
        let key = ObjectKey::new("ns", "web");
        let plan = |world: &World| ReplicationControllers.reconcile(world, &key, now);
        let count = |world: &World| world.list::<Pod>("ns").count();
        let first = world(CONTROLLER);
        let next = first.after(&plan(&first), now);
        assert_eq!(count(&next), 2);
        let pod = next.list::<Pod>("ns").next().unwrap().to_owned();
        let owner = &pod.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.api_version.as_str()),
            ("ReplicationController", "v1")
        );
        let next = next.after(&plan(&next), now);
        assert_eq!(
            next.get::<ReplicationController>(&key).unwrap().status.clone().unwrap().replicas,
            2
        );
        assert!(plan(&next).status.is_none(), "what was said is not said again");
        let mut gone = Plan::default();
        gone.write([Change::delete(&pod)]);
        let next = next.after(&gone, now);
        let next = next.after(&plan(&next), now);
        assert_eq!(count(&next), 2);
    }
}
