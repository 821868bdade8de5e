//! A Deployment of another size: each of its ReplicaSets grows or shrinks by its share, so that an
//! update that is under way is neither hurried nor held up.
//!
//! Upstream: `pkg/controller/deployment/sync.go` (scale), `util/deployment_util.go` (GetReplicaSetProportion).

use super::{
    Look,
    replica_sets::{available, is_active, set_scale_annotations},
};
use api::{
    Object,
    apps::{
        deployment::{DESIRED_REPLICAS, MAX_REPLICAS, fenceposts, is_rolling, replicas},
        replica_set,
        v1::ReplicaSet,
    },
};
use std::cmp::Reverse;
use world::{Change, Event};

impl Look<'_> {
    pub(super) fn scale(&mut self) {
        let wanted = replicas(&self.deployment);
        let mut active: Vec<ReplicaSet> =
            self.sets.all().filter(|it| is_active(it)).cloned().collect();
        if active.len() <= 1 {
            // The one with pods; else the latest one; else the youngest of the old.
            let only = active.pop().or_else(|| self.sets.latest.clone());
            if let Some(set) = only.or_else(|| self.sets.old.last().cloned())
                && replica_set::replicas(&set) != wanted
            {
                self.resize(&set, wanted);
            }
            return;
        }
        if self.sets.latest.as_ref().is_some_and(|it| self.is_saturated(it)) {
            let old: Vec<_> = self.sets.old.iter().filter(|it| is_active(it)).cloned().collect();
            for set in old {
                self.resize(&set, 0);
            }
            return;
        }
        if is_rolling(&self.deployment) {
            self.share_out(active, wanted);
        }
    }

    fn share_out(&mut self, mut active: Vec<ReplicaSet>, wanted: i32) {
        let most = if wanted > 0 { wanted + fenceposts(&self.deployment).0 } else { 0 };
        let now: i32 = active.iter().map(replica_set::replicas).sum();
        let change = most - now;
        // The larger get more; among equals the younger grow first, and the older shrink first.
        active.sort_by_key(|it| Reverse(replica_set::replicas(it)));
        if change > 0 {
            let youngest = self.sets.latest.as_ref().map(|it| it.name().to_owned());
            active.sort_by_key(|it| {
                (Reverse(replica_set::replicas(it)), Some(it.name()) != youngest.as_deref())
            });
        }
        let mut given = 0;
        let mut sizes: Vec<i32> = Vec::new();
        for set in &active {
            let share = if change == 0 { 0 } else { self.share(set, change, given) };
            given += share;
            sizes.push(replica_set::replicas(set) + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + change - given).max(0);
        }
        for (set, size) in active.iter().zip(sizes) {
            self.resize(set, size);
        }
    }

    /// What a ReplicaSet gets of `change`, of which `given` is spoken for.
    fn share(&self, set: &ReplicaSet, change: i32, given: i32) -> i32 {
        let size = replica_set::replicas(set);
        let wanted = replicas(&self.deployment);
        let share = if wanted == 0 {
            -size
        } else {
            let before = set.annotation(MAX_REPLICAS).and_then(|it| it.parse::<i32>().ok());
            let of_status = self.deployment.status.as_ref().and_then(|it| it.replicas);
            let before = before.filter(|it| *it != 0).or(of_status).unwrap_or(0);
            if before == 0 {
                return 0;
            }
            let most = wanted + fenceposts(&self.deployment).0;
            let grown = f64::from(size) * f64::from(most) / f64::from(before);
            // Sizes are far below what does not fit.
            #[allow(clippy::cast_possible_truncation)]
            let grown = grown.round() as i32;
            grown - size
        };
        let left = change - given;
        if change > 0 { share.min(left) } else { share.max(left) }
    }

    /// It has all pods that the Deployment wants, and they are available.
    fn is_saturated(&self, set: &ReplicaSet) -> bool {
        let wanted = replicas(&self.deployment);
        replica_set::replicas(set) == wanted
            && set.annotation(DESIRED_REPLICAS) == Some(&wanted.to_string())
            && available(set) == wanted
    }

    /// Writes a ReplicaSet's size, and what the Deployment wanted at the time; says so if it is another
    /// one. The look goes on with it as written.
    pub(super) fn resize(&mut self, set: &ReplicaSet, size: i32) {
        let before = replica_set::replicas(set);
        let mut resized = set.clone();
        resized.spec.get_or_insert_default().replicas = Some(size);
        set_scale_annotations(&self.deployment, &mut resized);
        if resized == *set {
            return;
        }
        self.plan.write([Change::update(resized.clone())]);
        if size != before {
            let way = if size > before { "up" } else { "down" };
            let name = set.name();
            let message = format!("Scaled {way} replica set {name} from {before} to {size}");
            self.plan.event(Event::normal(&self.deployment, "ScalingReplicaSet", message));
        }
        let all = self.sets.old.iter_mut().chain(&mut self.sets.latest);
        for it in all.filter(|it| it.uid() == set.uid()) {
            *it = resized.clone();
        }
    }
}
