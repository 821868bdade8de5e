//! What all objects of a namespace use of a quota, counted anew.
//!
//! Upstream: `pkg/controller/resourcequota/resource_quota_controller.go`, CalculateUsage.

use crate::World;
use api::{
    Erased, KindRef, Object,
    core::{resource_quota as quotas, v1::ResourceQuota},
    meta::Exact,
};
use quotas::Usage;
use stdx::Timestamp;

/// What is used of each resource that the quota limits. Resources of which nothing can be used here
/// are at zero.
pub fn used(world: &World, quota: &ResourceQuota, now: Timestamp) -> Usage {
    let mut used: Usage = quotas::hard(quota).into_keys().map(|it| (it, Exact::ZERO)).collect();
    let spec = quotas::spec(quota);
    let is_scoped = spec.scope_selector.is_some() || spec.scopes.is_some_and(|it| !it.is_empty());
    for table in world.tables().filter(|it| quotas::is_charged(&it.kind)) {
        let kind: &KindRef = &table.kind;
        let names = quotas::names_about(quota, kind);
        if names.is_empty() {
            continue;
        }
        let counts_only = !is_scoped && names.iter().all(|it| it.starts_with("count/"));
        for row in table.rows(Some(quota.namespace())) {
            if counts_only {
                names.iter().for_each(|it| add(&mut used, it, Exact::from_units(1)));
                continue;
            }
            let Ok(object) = row.object() else { continue };
            let object: &dyn Erased = &*object;
            if !quotas::covers(quota, object) {
                continue;
            }
            for (name, amount) in quotas::quota_usage(kind, object, now) {
                add(&mut used, &name, amount);
            }
        }
    }
    used
}

fn add(used: &mut Usage, name: &str, more: Exact) {
    if let Some(amount) = used.get_mut(name) {
        *amount = *amount + more;
    }
}
