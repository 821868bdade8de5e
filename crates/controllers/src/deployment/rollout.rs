//! From an old template to the latest: bit by bit, or all at once after the last old pod has gone.
//!
//! Upstream: `pkg/controller/deployment/rolling.go`, `recreate.go`.

use super::{
    Look,
    replica_sets::{available, is_active},
};
use api::{
    Object,
    apps::{
        deployment::{fenceposts, is_rolling, replicas},
        replica_set,
        v1::ReplicaSet,
    },
    core::{pod::is_terminal, v1::Pod},
};

impl Look<'_> {
    pub(super) fn roll(&mut self) {
        self.make_latest();
        let Some(latest) = self.sets.latest.clone() else { return };
        if latest.uid().is_empty() {
            return;
        }
        let (wanted, size) = (replicas(&self.deployment), replica_set::replicas(&latest));
        let target = if size > wanted { wanted } else { self.room_for_latest(size) };
        if target != size {
            self.resize(&latest, target);
            return;
        }
        if !self.shrink_old(&latest) && self.is_complete() {
            self.forget_old();
        }
    }

    pub(super) fn recreate(&mut self) {
        let old: Vec<_> = self.sets.old.iter().filter(|it| is_active(it)).cloned().collect();
        if !old.is_empty() {
            for set in old {
                self.resize(&set, 0);
            }
            return;
        }
        if self.has_old_pods() {
            return;
        }
        self.make_latest();
        let Some(latest) = self.sets.latest.clone().filter(|it| !it.uid().is_empty()) else {
            return;
        };
        if replica_set::replicas(&latest) != replicas(&self.deployment) {
            self.resize(&latest, replicas(&self.deployment));
        }
        if self.is_complete() {
            self.forget_old();
        }
    }

    /// How many pods the latest ReplicaSet, which has `size`, may have now.
    pub(super) fn room_for_latest(&self, size: i32) -> i32 {
        let wanted = replicas(&self.deployment);
        if !is_rolling(&self.deployment) {
            return wanted;
        }
        let room = wanted + fenceposts(&self.deployment).0 - self.sets.wanted();
        size + room.min(wanted - size).max(0)
    }

    /// Takes pods from old ReplicaSets, as many as can be spared: first those that are of no use.
    fn shrink_old(&mut self, latest: &ReplicaSet) -> bool {
        let old: Vec<_> = self.sets.old.iter().filter(|it| is_active(it)).cloned().collect();
        let least = replicas(&self.deployment) - fenceposts(&self.deployment).1;
        let not_yet = replica_set::replicas(latest) - available(latest);
        let spare = self.sets.wanted() - least - not_yet;
        if old.is_empty() || spare <= 0 {
            return false;
        }
        let mut sizes: Vec<i32> = old.iter().map(replica_set::replicas).collect();
        let mut gone = 0;
        for (set, size) in old.iter().zip(&mut sizes) {
            let useless = (*size - available(set)).max(0).min(spare - gone);
            *size -= useless;
            gone += useless;
        }
        let mut left = (self.sets.available() - least).max(0);
        for size in &mut sizes {
            let fewer = left.min(*size);
            *size -= fewer;
            left -= fewer;
            gone += fewer;
        }
        for (set, size) in old.iter().zip(sizes) {
            if size != replica_set::replicas(set) {
                self.resize(set, size);
            }
        }
        gone > 0
    }

    /// A pod of an earlier template that may still run.
    fn has_old_pods(&self) -> bool {
        let counted = |it: &ReplicaSet| it.status.as_ref().is_some_and(|it| it.replicas > 0);
        self.sets.old.iter().any(|set| {
            counted(set) || self.world.owned::<Pod>(set.uid()).any(|it| !is_terminal(&it))
        })
    }

    pub(super) fn is_complete(&self) -> bool {
        super::status::is_complete(&self.deployment, self.deployment.status.as_ref())
    }
}
