//! Keeps each ResourceQuota's status: what may be used, and what is.
//!
//! The door does not decide by it: it counts for itself. Upstream:
//! `pkg/controller/resourcequota/resource_quota_controller.go` (1.36).

use api::{
    Object,
    core::{
        resource_quota as quotas,
        v1::{Pod, ResourceQuota, ResourceQuotaStatus},
    },
    k8s::apimachinery::pkg::api::resource::Quantity,
    meta::quantity::shortest,
};
use std::{sync::Arc, time::Duration};
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Row, Touched, Watch, World};

/// Its keys are quotas.
pub struct ResourceQuotaController;

/// A pod that should have been gone long ago stops counting by itself. Upstream looks at every quota
/// as often.
const AGAIN: Duration = Duration::from_secs(300);

impl Controller for ResourceQuotaController {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<ResourceQuota>(), Watch::Any(quotas_about)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(quota) = world.get::<ResourceQuota>(key).filter(|it| !it.is_deleting()) else {
            return plan;
        };
        let used = world::quota::used(world, &quota, now);
        let used = used.into_iter().map(|(name, amount)| (name, Quantity(shortest(amount))));
        let status = ResourceQuotaStatus {
            hard: Some(quotas::hard(&quota)).filter(|it| !it.is_empty()),
            used: Some(used.collect())
                .filter(|it: &std::collections::BTreeMap<_, _>| !it.is_empty()),
        };
        if quota.status.clone().unwrap_or_default() != status {
            plan.status =
                Some(Change::status(ResourceQuota { status: Some(status), ..quota.to_owned() }));
        }
        let mut pods = world.list::<Pod>(&key.namespace);
        plan.requeue = pods.any(|it| it.is_deleting()).then_some(AGAIN);
        plan
    }
}

/// Quotas whose usage the change may have changed.
fn quotas_about(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    if !quotas::is_charged(&touched.kind) {
        return Vec::new();
    }
    let mut all = world.list::<ResourceQuota>(&touched.key.namespace).peekable();
    if all.peek().is_none() {
        return Vec::new();
    }
    let now = Timestamp::default();
    let usage = |row: &Option<Arc<Row>>| {
        let object = row.as_ref()?.object().ok()?;
        Some(quotas::quota_usage(&touched.kind, &*object, now))
    };
    let same = usage(&touched.old) == usage(&touched.new);
    let covered = |quota: &ResourceQuota, row: &Option<Arc<Row>>| {
        let object = row.as_ref().and_then(|it| it.object().ok());
        object.is_some_and(|it| quotas::covers(quota, &*it))
    };
    let concerned = all.filter(|it| {
        let about = !quotas::names_about(it, &touched.kind).is_empty();
        about && (!same || covered(it, &touched.old) != covered(it, &touched.new))
    });
    concerned.map(|it| ObjectKey::of(&*it)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;
    use api::codec;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    const WORLD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: default}
spec: {containers: [{name: c, image: i, resources: {requests: {cpu: 500m}, limits: {memory: 1Gi}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: over, namespace: default}
spec: {containers: [{name: c, image: i, resources: {requests: {cpu: 500m}}}]}
status: {phase: Succeeded}
---
apiVersion: v1
kind: Pod
metadata: {name: elsewhere, namespace: other}
spec: {containers: [{name: c, image: i, resources: {requests: {cpu: 500m}}}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: default}
spec: {storageClassName: gold, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: q, namespace: default, uid: q}
spec: {hard: {pods: '3', count/pods: '4', requests.cpu: '2', limits.memory: 2Gi, requests.storage: 5Gi,
  gold.storageclass.storage.k8s.io/requests.storage: 3Gi, count/jobs.batch: '1', secrets: '2'}}
---
";

    #[test]
    fn counts_what_is_there_and_only_that() {
        let mut world = world(WORLD);
        let key = ObjectKey::new("default", "q");
        let plan = ResourceQuotaController.reconcile(&world, &key, NOW);
        let quota = plan.status.as_ref().and_then(|it| it.object::<ResourceQuota>()).unwrap();
        assert_eq!(
            codec::to_value(quota)["status"]["used"],
            json!({"pods": "1", "count/pods": "2", "requests.cpu": "500m", "limits.memory": "1Gi",
                "requests.storage": "1Gi", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi",
                "count/jobs.batch": "0", "secrets": "0"})
        );
        world = world.after(&plan, NOW);
        assert!(ResourceQuotaController.reconcile(&world, &key, NOW).is_empty());
    }

    #[test]
    fn is_woken_by_what_changes_its_usage() {
        let old = world(WORLD);
        let row = |world: &World, name: &str| {
            world.row_of::<Pod>(&ObjectKey::new("default", name)).cloned()
        };
        let touched = |old: Option<Arc<Row>>, new: Option<Arc<Row>>| Touched {
            kind: api::kind_of::<Pod>().clone(),
            key: ObjectKey::new("default", "a"),
            old,
            new,
        };
        let pod = row(&old, "a");
        assert_eq!(quotas_about(&old, &touched(None, pod.clone())).len(), 1);
        assert_eq!(quotas_about(&old, &touched(pod.clone(), pod)).len(), 0);
        assert_eq!(quotas_about(&old, &touched(row(&old, "a"), row(&old, "over"))).len(), 1);
    }
}
