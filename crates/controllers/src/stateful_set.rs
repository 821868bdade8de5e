//! StatefulSet: pods with a number, a name and claims that stay theirs.
//!
//! Upstream: `pkg/controller/statefulset/stateful_set_control.go` (1.36), updateStatefulSet. One plan
//! holds the whole next move of one replica (its claims, then the pod), so nothing is half done when
//! the next look comes.

mod adoption;
mod pod;
mod retention;
mod revisions;
mod status;

use crate::namespace::is_terminating;
use api::{
    Object,
    apps::{
        stateful_set::{first_ordinal, is_parallel, max_unavailable, ordinal_of, replicas},
        v1::{ControllerRevision, StatefulSet},
    },
    core::{
        pod::{condition, is_available, is_ready, is_terminal, phase},
        v1::{PersistentVolumeClaim, Pod},
    },
    meta::{self, ObjectMeta},
};
use revisions::Revisions;
use std::{collections::BTreeMap, time::Duration};
use stdx::Timestamp;
use world::{Change, Controller, Event, ObjectKey, Plan, Touched, Watch, World};

pub struct StatefulSetController;

impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<StatefulSet>(),
            Watch::owned::<Pod, StatefulSet>(),
            Watch::owned::<ControllerRevision, StatefulSet>(),
            // A pod of our name that somebody else made stands in the way until it goes.
            Watch::mapped::<Pod>(sets_by_pod_name),
            Watch::mapped::<PersistentVolumeClaim>(sets_by_claim),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = world.get::<StatefulSet>(key) else { return plan };
        adoption::settle(world, &set, &mut plan);
        if !plan.steps.is_empty() {
            // The next look sees what is ours.
            return plan;
        }
        let pods: Vec<Pod> = world.owned::<Pod>(set.uid()).map(|it| it.to_owned()).collect();
        let revisions = revisions::look(world, &set, &pods, &mut plan);
        if !set.is_deleting() {
            Move { world, set: &set, revisions: &revisions, now, plan: &mut plan }.next(&pods);
            revisions::forget_old(world, &set, &revisions, &pods, &mut plan);
        }
        status::write(&set, &revisions, &pods, now, &mut plan);
        plan
    }
}

fn sets_by_pod_name(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let set = api::apps::stateful_set::set_and_ordinal(&touched.key.name).map(|(set, _)| set);
    let key = set.map(|it| ObjectKey::new(&touched.key.namespace, it));
    key.filter(|it| world.row_of::<StatefulSet>(it).is_some()).into_iter().collect()
}

/// A claim wakes the set whose template made it, by its name: perhaps no pod uses it yet.
fn sets_by_claim(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let Some((_, ordinal)) = api::apps::stateful_set::set_and_ordinal(&touched.key.name) else {
        return Vec::new();
    };
    let sets = world.table::<StatefulSet>().map(|it| it.rows(Some(&touched.key.namespace)));
    let is_of = |row: &&std::sync::Arc<world::Row>| {
        touched.key.name.ends_with(&format!("-{}-{ordinal}", row.meta.name))
    };
    sets.into_iter().flatten().filter(is_of).map(|it| it.key()).collect()
}

/// One decision about one set.
struct Move<'a> {
    world: &'a World,
    set: &'a StatefulSet,
    revisions: &'a Revisions,
    now: Timestamp,
    plan: &'a mut Plan,
}

/// Whether the replicas behind this one may be looked at.
#[derive(PartialEq)]
enum Then {
    GoOn,
    Stop,
}

impl Move<'_> {
    fn next(&mut self, pods: &[Pod]) {
        let ordered = !is_parallel(self.set);
        let (first, count) = (first_ordinal(self.set), replicas(self.set));
        let by_ordinal: BTreeMap<i32, &Pod> =
            pods.iter().filter_map(|it| Some((ordinal_of(self.set, it.name())?, it))).collect();
        let range = first..first + count;
        for ordinal in range.clone() {
            let then = self.replica(ordinal, by_ordinal.get(&ordinal).copied());
            if ordered && then == Then::Stop {
                return;
            }
        }
        for (ordinal, pod) in by_ordinal.iter().filter(|(ordinal, _)| !range.contains(ordinal)) {
            for claim in self.corrected_claims(pod, *ordinal, true) {
                self.plan.write([Change::update(claim)]);
            }
        }
        // From here on, if pods come in order, every wanted one is up and available.
        let condemned = || by_ordinal.iter().rev().filter(|(ordinal, _)| !range.contains(ordinal));
        let first_unavailable = condemned().map(|(_, pod)| *pod).rev().find(|it| !self.is_up(it));
        for (_, pod) in condemned() {
            if pod.is_deleting() {
                if ordered {
                    return;
                }
                continue;
            }
            let is_first = first_unavailable.is_some_and(|it| it.name() == pod.name());
            if ordered && !self.is_up(pod) && !is_first {
                return;
            }
            self.delete(pod);
            if ordered {
                return;
            }
        }
        self.update(&by_ordinal, range);
    }

    fn replica(&mut self, ordinal: i32, pod: Option<&Pod>) -> Then {
        let Some(pod) = pod else {
            self.create(ordinal);
            return Then::Stop;
        };
        if is_terminal(pod) {
            if !pod.is_deleting() {
                self.delete(pod);
            }
            return Then::Stop;
        }
        if phase(pod) == "Pending" {
            let missing = self.missing_claims(ordinal);
            for claim in missing {
                self.claim_event(&claim, pod.name());
                self.plan.write([Change::create(claim)]);
            }
        }
        let is_held_up = pod.is_deleting() || !self.is_up(pod);
        if is_held_up {
            self.come_back_when_available(pod);
            if !is_parallel(self.set) {
                return Then::Stop;
            }
        }
        let claims = self.corrected_claims(pod, ordinal, false);
        let fixed = pod::with_identity(self.set, pod, ordinal);
        if fixed.is_some() || !claims.is_empty() {
            let (pod, set) = (pod.name(), self.set.name());
            let message = format!("Update Pod {pod} in StatefulSet {set} successful");
            self.plan.event(Event::normal(self.set, "SuccessfulUpdate", message));
        }
        for claim in claims {
            self.plan.write([Change::update(claim)]);
        }
        if let Some(pod) = fixed {
            self.plan.write([Change::update(pod)]);
        }
        if is_held_up { Then::Stop } else { Then::GoOn }
    }

    /// RollingUpdate: pods with an old template go, the largest ordinal first: one at a time, or as many
    /// as may be unavailable.
    fn update(&mut self, by_ordinal: &BTreeMap<i32, &Pod>, range: std::ops::Range<i32>) {
        let strategy = self.set.spec.as_ref().and_then(|it| it.update_strategy.as_ref());
        if strategy.and_then(|it| it.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let rolling = strategy.and_then(|it| it.rolling_update.as_ref());
        let partition = rolling.and_then(|it| it.partition).unwrap_or(0);
        // Upstream counts the partition in replicas from the first ordinal, not in ordinals.
        let lowest = range.start + partition;
        if let Some(most) = max_unavailable(self.set) {
            self.update_several(by_ordinal, range, lowest, most);
            return;
        }
        for ordinal in range.rev().take_while(|it| *it >= lowest) {
            let Some(pod) = by_ordinal.get(&ordinal) else { return };
            if pod.label(api::apps::stateful_set::REVISION_LABEL)
                != Some(&self.revisions.update_name)
                && !pod.is_deleting()
            {
                self.delete(pod);
                return;
            }
            if !self.is_up(pod) {
                return;
            }
        }
    }

    fn update_several(
        &mut self,
        by_ordinal: &BTreeMap<i32, &Pod>,
        range: std::ops::Range<i32>,
        lowest: i32,
        most: i32,
    ) {
        let is_up = |it: &i32| by_ordinal.get(it).is_some_and(|it| self.is_up(it));
        let unavailable = range.clone().filter(|it| !is_up(it)).count();
        let spare = usize::try_from(most).unwrap_or(0).saturating_sub(unavailable);
        let pods = range.rev().take_while(|it| *it >= lowest).filter_map(|it| by_ordinal.get(&it));
        let is_old = |it: &&&Pod| {
            it.label(api::apps::stateful_set::REVISION_LABEL) != Some(&self.revisions.update_name)
                && !it.is_deleting()
        };
        let old: Vec<&Pod> = pods.filter(is_old).take(spare).copied().collect();
        for pod in old {
            self.delete(pod);
        }
    }

    /// Running, ready, and for long enough.
    fn is_up(&self, pod: &Pod) -> bool {
        phase(pod) == "Running"
            && is_available(pod, self.min_ready_seconds(), self.now)
            && !pod.is_deleting()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.set.spec.as_ref().and_then(|it| it.min_ready_seconds).unwrap_or(0)
    }

    fn come_back_when_available(&mut self, pod: &Pod) {
        let seconds = self.min_ready_seconds();
        if seconds == 0 || !is_ready(pod) || pod.is_deleting() {
            return;
        }
        let ready = condition(pod, "Ready");
        let Some(since) = ready.and_then(|it| it.last_transition_time.as_ref()) else { return };
        let wait = Duration::from_secs(seconds.unsigned_abs().into());
        let end = meta::timestamp_of(since).plus(wait);
        self.plan.requeue = Some(end.since(self.now) + Duration::from_millis(1));
    }

    fn create(&mut self, ordinal: i32) {
        if is_terminating(self.world, self.set.namespace()) {
            // The door would refuse it, and there is nothing to tell anybody.
            return;
        }
        let name = api::apps::stateful_set::pod_name(self.set, ordinal);
        let key = ObjectKey::new(self.set.namespace(), &name);
        if let Some(other) = self.world.get::<Pod>(&key) {
            if !other.is_deleting() {
                let why = "a pod of this name is there and has another owner";
                self.cannot_create(&name, why);
            }
            return;
        }
        // Of the pod that is to be only the name is known.
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let to_be = Pod { metadata, ..Pod::default() };
        for claim in pod::claims(self.set, ordinal) {
            let claim = self.world.get::<PersistentVolumeClaim>(&ObjectKey::of(&claim));
            let Some(claim) = claim else { continue };
            if claim.is_deleting() {
                // Until it is gone, a pod that counts on its name would lose its data.
                self.cannot_create(&name, &format!("pvc {} is being deleted", claim.name()));
                return;
            }
            if retention::goes_with_another_pod(self.set, &to_be, &claim) {
                return;
            }
        }
        let claims = self.missing_claims(ordinal);
        for claim in self.corrected_claims(&to_be, ordinal, false) {
            self.plan.write([Change::update(claim)]);
        }
        let revision = self.revisions.for_new_pod(self.set, ordinal);
        let pod = pod::new(&revision.set, &revision.name, ordinal);
        let mut changes: Vec<Change> = Vec::new();
        for claim in claims {
            self.claim_event(&claim, &name);
            changes.push(Change::create(claim));
        }
        // Each claim is a commit of its own, but for the last: it goes together with the pod.
        let last = changes.pop();
        for claim in changes {
            self.plan.write([claim]);
        }
        self.plan.write(last.into_iter().chain([Change::create(pod)]));
        let message = format!("Create Pod {name} in StatefulSet {} successful", self.set.name());
        self.plan.event(Event::normal(self.set, "SuccessfulCreate", message));
    }

    fn delete(&mut self, pod: &Pod) {
        self.plan.write([Change::delete(pod)]);
        let name = (pod.name(), self.set.name());
        let message = format!("Delete Pod {} in StatefulSet {} successful", name.0, name.1);
        self.plan.event(Event::normal(self.set, "SuccessfulDelete", message));
    }

    fn claim_event(&mut self, claim: &PersistentVolumeClaim, pod: &str) {
        let message = format!(
            "Create Claim {} Pod {pod} in StatefulSet {} success",
            claim.name(),
            self.set.name()
        );
        self.plan.event(Event::normal(self.set, "SuccessfulCreate", message));
    }

    fn cannot_create(&mut self, pod: &str, why: &str) {
        let set = self.set.name();
        let message = format!("Create Pod {pod} in StatefulSet {set} failed error: {why}");
        self.plan.event(Event::warning(self.set, "FailedCreate", message));
    }

    /// The claims that the pod is to have and that are not there, owned as the policy wants it.
    fn missing_claims(&self, ordinal: i32) -> Vec<PersistentVolumeClaim> {
        let missing = |it: &PersistentVolumeClaim| {
            self.world.row_of::<PersistentVolumeClaim>(&ObjectKey::of(it)).is_none()
        };
        let owned = |it: PersistentVolumeClaim| {
            retention::corrected(self.set, &Pod::default(), false, &it).unwrap_or(it)
        };
        pod::claims(self.set, ordinal).into_iter().filter(missing).map(owned).collect()
    }

    /// The claims of the pod whose owners are not those that the policy wants.
    fn corrected_claims(
        &self,
        pod: &Pod,
        ordinal: i32,
        is_condemned: bool,
    ) -> Vec<PersistentVolumeClaim> {
        let claims = pod::claims(self.set, ordinal).into_iter();
        let claims =
            claims.filter_map(|it| self.world.get::<PersistentVolumeClaim>(&ObjectKey::of(&it)));
        let corrected = |it: world::Typed<PersistentVolumeClaim>| {
            retention::corrected(self.set, pod, is_condemned, &it)
        };
        claims.filter_map(corrected).collect()
    }
}

#[cfg(test)]
mod adversary;
#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod tests;
