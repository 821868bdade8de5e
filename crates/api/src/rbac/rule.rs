//! What makes a rule of a role well-formed.
//!
//! Upstream: `pkg/apis/rbac/validation/validation.go`, ValidatePolicyRule.

use crate::{field::Errors, k8s::api::rbac::v1::PolicyRule, meta::absent::list};

pub(super) fn validate(rules: &[PolicyRule], namespaced: bool, errors: &mut Errors) {
    for (n, rule) in rules.iter().enumerate() {
        let path = format!("rules[{n}]");
        if rule.verbs.is_empty() {
            errors.required(format!("{path}.verbs"), "verbs must contain at least one value");
        }
        let urls = list(&rule.non_resource_urls);
        let (groups, resources) = (list(&rule.api_groups), list(&rule.resources));
        if urls.is_empty() {
            if groups.is_empty() {
                let why = "resource rules must supply at least one api group";
                errors.required(format!("{path}.apiGroups"), why);
            }
            if resources.is_empty() {
                let why = "resource rules must supply at least one resource";
                errors.required(format!("{path}.resources"), why);
            }
            continue;
        }
        let mut wrong = |why| {
            let shown = serde_json::to_string(urls).expect("texts are plain data");
            errors.invalid(format!("{path}.nonResourceURLs"), shown, why);
        };
        if namespaced {
            wrong("namespaced rules cannot apply to non-resource URLs");
        }
        if !groups.is_empty() || !resources.is_empty() || !list(&rule.resource_names).is_empty() {
            wrong("rules cannot apply to both regular resources and non-resource URLs");
        }
    }
}
