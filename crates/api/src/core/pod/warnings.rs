//! What is allowed in a pod's spec and yet surprises.
//!
//! Upstream: `pkg/api/pod/warnings.go`. Its words on volumes that no longer work there are left out:
//! several of them work here.

use crate::{
    k8s::api::core::v1::{Container, PodSpec},
    meta::{
        Exact,
        absent::{list, text},
    },
};

/// Sentences about a spec, wherever it stands.
pub(crate) fn of_spec(path: &str, spec: &PodSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    let init = list(&spec.init_containers);
    for (field, all) in [("initContainers", init), ("containers", spec.containers.as_slice())] {
        for (n, container) in all.iter().enumerate() {
            let path = format!("{path}.{field}[{n}]");
            fractions(&path, container, &mut warnings);
            hidden_variables(&path, container, &mut warnings);
        }
    }
    if spec.termination_grace_period_seconds.is_some_and(|it| it < 0) {
        let what = "must be >= 0; negative values are invalid and will be treated as 1";
        warnings.push(format!("{path}.terminationGracePeriodSeconds: {what}"));
    }
    warnings
}

fn fractions(path: &str, container: &Container, warnings: &mut Vec<String>) {
    let Some(resources) = &container.resources else { return };
    for name in ["memory", "ephemeral-storage"] {
        for (field, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
            let Some(amount) = amounts.as_ref().and_then(|it| it.get(name)) else { continue };
            let exact = Exact::of(amount);
            if Exact::from_units(exact.units()) != exact {
                let what = format!("fractional byte value {:?} is invalid", amount.0);
                let path = format!("{path}.resources.{field}[{name}]");
                warnings.push(format!("{path}: {what}, must be an integer"));
            }
        }
    }
}

/// A variable that is set twice and does not build on its first value.
fn hidden_variables(path: &str, container: &Container, warnings: &mut Vec<String>) {
    let variables = list(&container.env);
    for (n, it) in variables.iter().enumerate() {
        let reference = format!("$({})", it.name);
        let value = text(&it.value);
        let builds_on = value.contains(&reference) && value != reference && it.value_from.is_none();
        let again = variables[..n].iter().any(|other| other.name == it.name);
        if again && !builds_on {
            let what = format!("hides previous definition of {:?}", it.name);
            warnings
                .push(format!("{path}.env[{n}]: {what}, which may be dropped when using apply"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn warns_of_what_is_allowed_and_surprises() {
        let env = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"},
            {"name": "A", "value": "3"}]);
        let spec = json!({"terminationGracePeriodSeconds": -1, "containers": [{"name": "c",
            "env": env, "resources": {"limits": {"memory": "100m"}}}]});
        assert_eq!(
            of_spec("spec", &serde_json::from_value(spec).unwrap()),
            [
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
    }
}
