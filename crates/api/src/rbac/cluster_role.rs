//! `rbac.authorization.k8s.io/v1` ClusterRole: what may be done everywhere, or wherever a binding says.
//!
//! Upstream: `pkg/apis/rbac/validation/validation.go`, ValidateClusterRole.

use super::rule;
use crate::{
    field::Errors,
    k8s::api::rbac::v1::ClusterRole,
    kind::{Column, Kind, Names, Scope},
    meta::{
        absent::list,
        columns::{name, text},
        names,
        validate::label_selector,
    },
};

impl Kind for ClusterRole {
    const NAMES: Names =
        Names { plural: "clusterroles", singular: "clusterrole", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/clusterroles";
    const COLUMNS: &'static [Column<ClusterRole>] = &[
        name(),
        text("Created At", "When it was made.", |role, _| {
            let created = role.metadata.creation_timestamp.as_ref();
            created.map(|it| it.0.to_string()).unwrap_or_default().into()
        }),
    ];

    fn validate(&self, errors: &mut Errors) {
        rule::validate(list(&self.rules), false, errors);
        let Some(aggregation) = &self.aggregation_rule else { return };
        let path = "aggregationRule.clusterRoleSelectors";
        let selectors = list(&aggregation.cluster_role_selectors);
        if selectors.is_empty() {
            let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.required(path, why);
        }
        for (n, selector) in selectors.iter().enumerate() {
            label_selector(&format!("{path}[{n}]"), selector, errors);
        }
    }

    fn validate_name(name: &str, errors: &mut Errors) {
        names::path_segment("metadata.name", name, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::from_value;
    use serde_json::{Value, json};

    fn wrong(rules: Value) -> String {
        let role: ClusterRole =
            from_value(&json!({"metadata": {"name": "r"}, "rules": rules})).unwrap();
        let mut errors = Errors::default();
        role.validate(&mut errors);
        errors.message()
    }

    #[test]
    fn a_rule_is_about_objects_or_about_paths() {
        assert_eq!(wrong(json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}])), "");
        assert_eq!(
            wrong(json!([{"verbs": ["get"], "nonResourceURLs": ["/a"], "resources": ["pods"]}])),
            "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: rules cannot apply to both regular resources and non-resource URLs"
        );
        assert_eq!(
            wrong(json!([{}])),
            "[rules[0].verbs: Required value: verbs must contain at least one value, \
             rules[0].apiGroups: Required value: resource rules must supply at least one api group, \
             rules[0].resources: Required value: resource rules must supply at least one resource]"
        );
    }

    #[test]
    fn names_may_hold_colons() {
        let mut errors = Errors::default();
        ClusterRole::validate_name("system:node", &mut errors);
        assert!(errors.is_empty());
        ClusterRole::validate_name("a/b", &mut errors);
        assert!(!errors.is_empty());
    }
}
