//! ReplicationController: what a ReplicaSet does, for a kind with an older spec.
//!
//! Upstream: `pkg/controller/replication` (1.36), which adapts the ReplicaSet's loop just so.

use crate::{
    ownership,
    replica_set::{self, write_condition},
};
use api::{
    Failure, Object,
    apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus},
    core::v1::{
        Pod, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
    },
    meta::LabelSelector,
};
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Watch, World};

pub struct ReplicationControllers;

impl Controller for ReplicationControllers {
    fn name(&self) -> &'static str {
        "replication-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<ReplicationController>(),
            Watch::owned::<Pod, ReplicationController>(),
            Watch::mapped::<Pod>(ownership::choosers::<ReplicationController>),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(controller) = world.get::<ReplicationController>(key) else { return plan };
        let orphans = ownership::orphans(world, &key.namespace);
        ownership::settle::<ReplicationController, Pod>(world, &*controller, orphans, &mut plan);
        if !plan.steps.is_empty() {
            // The next look sees what is ours.
            return plan;
        }
        let set = as_set(&controller);
        let pods: Vec<Pod> = world.owned::<Pod>(set.uid()).map(|it| it.to_owned()).collect();
        if !set.is_deleting() {
            replica_set::manage(world, &*controller, &set, &pods, now, &mut plan);
        }
        let mut status = replica_set::status(&set, &pods, now);
        if !plan.steps.is_empty() {
            // A failure stands until what failed has been done.
            status.conditions = set.status.as_ref().and_then(|it| it.conditions.clone());
        }
        write_status(&controller, status, &mut plan);
        plan.requeue = replica_set::next_available(&set, &pods, now);
        plan
    }

    fn refused(
        &self,
        world: &World,
        key: &ObjectKey,
        changes: &[Change],
        failure: &Failure,
        now: Timestamp,
    ) -> Plan {
        let mut plan = Plan::default();
        let Some(controller) = world.get::<ReplicationController>(key) else { return plan };
        let set = as_set(&controller);
        if let Some(status) = write_condition(&*controller, &set, changes, failure, now, &mut plan)
        {
            write_status(&controller, status, &mut plan);
        }
        plan
    }
}

fn as_set(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.as_ref().map(|it| ReplicaSetSpec {
        min_ready_seconds: it.min_ready_seconds,
        replicas: it.replicas,
        selector: LabelSelector { match_labels: it.selector.clone(), match_expressions: None },
        template: it.template.clone(),
    });
    let status = controller.status.as_ref().map(|it| ReplicaSetStatus {
        replicas: it.replicas,
        fully_labeled_replicas: it.fully_labeled_replicas,
        ready_replicas: it.ready_replicas,
        available_replicas: it.available_replicas,
        terminating_replicas: None,
        observed_generation: it.observed_generation,
        conditions: it.conditions.as_ref().map(|all| {
            let same = |it: &ReplicationControllerCondition| api::apps::v1::ReplicaSetCondition {
                type_: it.type_.clone(),
                status: it.status.clone(),
                reason: it.reason.clone(),
                message: it.message.clone(),
                last_transition_time: it.last_transition_time.clone(),
            };
            all.iter().map(same).collect()
        }),
    });
    ReplicaSet { metadata: controller.metadata.clone(), spec, status }
}

fn write_status(controller: &ReplicationController, set: ReplicaSetStatus, plan: &mut Plan) {
    let status = ReplicationControllerStatus {
        replicas: set.replicas,
        fully_labeled_replicas: set.fully_labeled_replicas,
        ready_replicas: set.ready_replicas,
        available_replicas: set.available_replicas,
        observed_generation: set.observed_generation,
        conditions: set.conditions.map(|all| {
            let same = |it: api::apps::v1::ReplicaSetCondition| ReplicationControllerCondition {
                type_: it.type_,
                status: it.status,
                reason: it.reason,
                message: it.message,
                last_transition_time: it.last_transition_time,
            };
            all.into_iter().map(same).collect()
        }),
    };
    if controller.status.as_ref() != Some(&status) {
        let mut controller = controller.clone();
        controller.status = Some(status);
        plan.status = Some(Change::status(controller));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

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
        let mut gone = Plan::default();
        gone.write([Change::delete(&pod)]);
        let next = next.after(&gone, now);
        let next = next.after(&plan(&next), now);
        assert_eq!(count(&next), 2);
    }
}
