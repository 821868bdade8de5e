//! Deployment: a ReplicaSet for each template, the latest growing as the others shrink.
//!
//! Upstream: `pkg/controller/deployment` (1.36), syncDeployment. One look makes one move: it scales the
//! latest ReplicaSet, or else old ones, and says in the status where things stand.

mod replica_sets;
mod rollout;
mod scaling;
mod status;

use crate::{namespace::is_terminating, ownership};
use api::{
    Failure, Object,
    apps::{
        deployment::{DESIRED_REPLICAS, replicas},
        v1::{Deployment, ReplicaSet},
    },
    core::v1::Pod,
};
use replica_sets::Sets;
use stdx::Timestamp;
use world::{Change, Controller, Event, ObjectKey, Plan, Touched, Verb, Watch, World};

pub struct DeploymentController;

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<Deployment>(),
            Watch::owned::<ReplicaSet, Deployment>(),
            Watch::mapped::<ReplicaSet>(ownership::choosers::<Deployment>),
            // The last pod of an old template lets a Recreate go on.
            Watch::mapped::<Pod>(deployment_of_gone_pod),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(deployment) = world.get::<Deployment>(key) else { return plan };
        let sets = world.table::<ReplicaSet>().into_iter();
        let sets = sets.flat_map(|it| it.rows(Some(&key.namespace)));
        ownership::settle::<Deployment, ReplicaSet>(world, &*deployment, sets, &mut plan);
        if !plan.steps.is_empty() {
            // The next look sees what is ours.
            return plan;
        }
        let mut look = Look {
            sets: Sets::of(world, &deployment),
            deployment: deployment.to_owned(),
            world,
            now,
            plan,
        };
        look.go();
        look.plan
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
        let Some(deployment) = world.get::<Deployment>(key) else { return plan };
        let Some(change) = changes.first().filter(|it| it.verb == Verb::Create) else {
            return plan;
        };
        let name = &change.key.name;
        let message = format!("Failed to create new replica set \"{name}\": {failure}");
        status::cannot_create(&deployment, &message, now, &mut plan);
        plan.event(Event::warning(&*deployment, "ReplicaSetCreateError", message));
        plan
    }
}

/// One look at one Deployment. `deployment` gathers what its status is to say.
struct Look<'a> {
    world: &'a World,
    deployment: Deployment,
    sets: Sets,
    now: Timestamp,
    plan: Plan,
}

impl Look<'_> {
    fn go(&mut self) {
        let before = self.deployment.clone();
        if !self.deployment.is_deleting() {
            let paused = self.deployment.spec.as_ref().and_then(|it| it.paused) == Some(true);
            status::note_pause(&mut self.deployment, paused, self.now);
            self.keep_latest_up_to_date();
            if paused || self.was_scaled() {
                self.scale();
                if paused {
                    self.forget_old();
                }
                status::write(self, &before, false);
                return;
            }
            if api::apps::deployment::is_rolling(&self.deployment) {
                self.roll();
            } else {
                self.recreate();
            }
        }
        status::write(self, &before, true);
    }

    /// Somebody changed the number of replicas since the ReplicaSets were scaled last.
    fn was_scaled(&self) -> bool {
        let wanted = replicas(&self.deployment).to_string();
        let active = self.sets.all().filter(|it| replica_sets::is_active(it));
        active.filter_map(|it| it.annotation(DESIRED_REPLICAS)).any(|it| it != wanted)
    }

    fn namespace_is_leaving(&self) -> bool {
        is_terminating(self.world, self.deployment.namespace())
    }
}

fn deployment_of_gone_pod(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let (Some(pod), None) = (&touched.old, &touched.new) else { return Vec::new() };
    let set = pod.meta.controller().filter(|it| it.kind == "ReplicaSet");
    let set = set.map(|it| ObjectKey::new(&touched.key.namespace, &it.name));
    let owner = set.and_then(|it| {
        let owner = world.row_of::<ReplicaSet>(&it)?.meta.controller()?;
        Some(ObjectKey::new(&touched.key.namespace, &owner.name))
    });
    owner.into_iter().collect()
}

#[cfg(test)]
mod tests;
