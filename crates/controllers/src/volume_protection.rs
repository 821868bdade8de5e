//! Claims in use by a pod and volumes bound to a claim are not removed while they are so.
//!
//! Upstream: `pkg/controller/volume/{pvcprotection,pvprotection}`. The door puts the finalizers on
//! (StorageObjectInUseProtection); these two take them off.

use api::{
    Object,
    core::{
        persistent_volume as volumes,
        pod::{claims, is_scheduled},
        v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    },
};
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Touched, Watch, World};

pub const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
pub const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

pub struct ClaimProtection;
pub struct VolumeProtection;

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "pvc-protection-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<PersistentVolumeClaim>(), Watch::mapped::<Pod>(claims_of_pod)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = world.get::<PersistentVolumeClaim>(key) else { return plan };
        if !claim.is_deleting() || !claim.has_finalizer(CLAIM_FINALIZER) {
            return plan;
        }
        let name = key.to_string();
        // A pod without a node never touched it. Upstream: one that ended still holds it.
        if world.indexed::<Pod>("claim", &name).any(|it| is_scheduled(&it)) {
            return plan;
        }
        let mut claim = claim.to_owned();
        claim.metadata.finalizers.iter_mut().for_each(|it| it.retain(|it| it != CLAIM_FINALIZER));
        plan.write([Change::update(claim)]);
        plan
    }
}

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "pv-protection-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<PersistentVolume>()]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(volume) = world.get::<PersistentVolume>(key) else { return plan };
        let is_bound = volumes::phase(&volume) == volumes::BOUND;
        if !volume.is_deleting() || is_bound || !volume.has_finalizer(VOLUME_FINALIZER) {
            return plan;
        }
        let mut volume = volume.to_owned();
        volume.metadata.finalizers.iter_mut().for_each(|it| it.retain(|it| it != VOLUME_FINALIZER));
        plan.write([Change::update(volume)]);
        plan
    }
}

fn claims_of_pod(_: &World, touched: &Touched) -> Vec<ObjectKey> {
    let sides = [&touched.old, &touched.new].into_iter().flatten();
    let pods = sides.filter_map(|it| it.typed::<Pod>());
    let keys = |pod: world::Typed<Pod>| -> Vec<ObjectKey> {
        let key = |(_, claim): (&str, String)| ObjectKey::new(pod.namespace(), &claim);
        claims(&pod).into_iter().map(key).collect()
    };
    pods.flat_map(keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

    const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c, namespace: default, finalizers: [kubernetes.io/pvc-protection], deletionTimestamp: '2026-01-01T00:00:00Z'}
";

    fn pod(node: &str, phase: &str) -> String {
        format!(
            "{CLAIM}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: default}}\nspec: {{nodeName: '{node}', containers: [{{name: c, image: i}}], volumes: [{{name: v, persistentVolumeClaim: {{claimName: c}}}}]}}\nstatus: {{phase: {phase}}}\n"
        )
    }

    fn goes(yaml: &str) -> bool {
        let (world, key) = (world(yaml), ObjectKey::new("default", "c"));
        let plan = ClaimProtection.reconcile(&world, &key, Timestamp(0));
        world.after(&plan, Timestamp(0)).row_of::<PersistentVolumeClaim>(&key).is_none()
    }

    #[test]
    fn a_claim_stays_while_a_pod_uses_it() {
        assert!(!goes(&pod("n1", "Running")));
        assert!(!goes(&pod("n1", "Pending")), "its node may be mounting it");
        assert!(!goes(&pod("n1", "Succeeded")), "until it is deleted");
        assert!(goes(&pod("", "Pending")), "nobody has touched it");
        assert!(goes(CLAIM));
    }

    #[test]
    fn a_bound_volume_stays() {
        let volume = |phase: &str| {
            format!(
                "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: v, finalizers: [kubernetes.io/pv-protection], deletionTimestamp: '2026-01-01T00:00:00Z'}}\nspec: {{hostPath: {{path: /x}}}}\nstatus: {{phase: {phase}}}\n"
            )
        };
        for (phase, goes) in [("Bound", false), ("Released", true), ("Available", true)] {
            let (world, key) = (world(&volume(phase)), ObjectKey::cluster("v"));
            let plan = VolumeProtection.reconcile(&world, &key, Timestamp(0));
            let after = world.after(&plan, Timestamp(0));
            assert_eq!(after.row_of::<PersistentVolume>(&key).is_none(), goes, "{phase}");
        }
    }
}
