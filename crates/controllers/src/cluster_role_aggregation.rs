//! Gathers the rules of cluster roles that carry a label into the roles that ask for them.
//!
//! Upstream: `pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go` (1.36).

use api::{
    Object,
    meta::Selector,
    rbac::v1::{ClusterRole, PolicyRule},
};
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Touched, Watch, World};

/// Its keys are cluster roles.
pub struct ClusterRoleAggregation;

impl Controller for ClusterRoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::mapped::<ClusterRole>(gatherers)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(role) = world.get::<ClusterRole>(key) else { return plan };
        let Some(aggregation) = role.aggregation_rule.as_ref() else { return plan };
        let selectors = aggregation.cluster_role_selectors.iter().flatten();
        let mut rules: Vec<PolicyRule> = Vec::new();
        for selector in selectors.map(|it| Selector::of(Some(it))) {
            for other in world.all::<ClusterRole>() {
                let labels = other.metadata.labels.clone().unwrap_or_default();
                // A role does not gather itself.
                if other.name() == role.name() || !selector.matches(&labels) {
                    continue;
                }
                for rule in other.rules.iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        if role.rules.as_deref().unwrap_or_default() != rules {
            let mut role = role.to_owned();
            role.rules = Some(rules);
            plan.write([Change::update(role)]);
        }
        plan
    }
}

/// Every role that gathers: any of them may gather the one that was touched.
fn gatherers(world: &World, _touched: &Touched) -> Vec<ObjectKey> {
    let roles = world.all::<ClusterRole>().filter(|it| it.aggregation_rule.is_some());
    roles.map(|it| ObjectKey::of(&*it)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

    #[test]
    fn rules_are_gathered_by_label() {
        let world = world(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: view, labels: {to-view: 'true'}}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {to-view: 'true'}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: more, labels: {to-view: 'true'}}
rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: other}
rules: [{verbs: [get], apiGroups: [''], resources: [secrets]}]
",
        );
        let key = ObjectKey::cluster("view");
        let plan = ClusterRoleAggregation.reconcile(&world, &key, Timestamp(0));
        let world = world.after(&plan, Timestamp(0));
        let view = world.get::<ClusterRole>(&key).unwrap();
        let rules = view.rules.as_deref().unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].resources.as_deref().unwrap(), ["pods"]);
        assert!(ClusterRoleAggregation.reconcile(&world, &key, Timestamp(0)).is_empty());
    }
}
