//! Whether a container that has ended is started again.
//!
//! Upstream: `pkg/api/v1/pod/util.go` (ContainerShouldRestart, FindMatchingContainerRestartRule), 1.36.

use crate::k8s::api::core::v1::{Container, ContainerRestartRule, PodSpec};

/// Whether a container that ended with this code is started again.
pub fn restarts(spec: Option<&PodSpec>, container: &Container, code: i32) -> bool {
    if container.restart_policy.is_some() && matching_rule(container, code).is_some() {
        // Both actions there are begin the container again.
        return true;
    }
    let of_pod = spec.and_then(|it| it.restart_policy.as_deref());
    match container.restart_policy.as_deref().or(of_pod).unwrap_or("Always") {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

/// Whether the end of this container with this code begins every container of the pod again.
pub fn restarts_all(container: &Container, code: i32) -> bool {
    let rule = matching_rule(container, code).filter(|_| container.restart_policy.is_some());
    rule.is_some_and(|it| it.action == ALL)
}

/// Whether there is a way in which a container of the pod can end that begins all of them again.
pub fn may_restart_all(spec: &PodSpec) -> bool {
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    all.flat_map(|it| it.restart_policy_rules.iter().flatten()).any(|it| it.action == ALL)
}

const ALL: &str = "RestartAllContainers";

/// The first rule that speaks of this exit code.
fn matching_rule(container: &Container, code: i32) -> Option<&ContainerRestartRule> {
    let speaks = |rule: &&ContainerRestartRule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|it| *it == code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    container.restart_policy_rules.iter().flatten().find(speaks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_goes_before_the_containers_policy_and_that_before_the_pods() {
        let spec = |policy: &str| PodSpec {
            restart_policy: Some(policy.to_owned()),
            ..PodSpec::default()
        };
        let container = |value| serde_json::from_value::<Container>(value).unwrap();
        let plain = container(json!({"name": "c"}));
        let own = container(json!({"name": "c", "restartPolicy": "OnFailure"}));
        let ruled =
            container(json!({"name": "c", "restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0, 1]}}]}));
        for (container, policy, code, expected) in [
            (&plain, "Never", 1, false),
            (&plain, "OnFailure", 0, false),
            (&plain, "OnFailure", 1, true),
            (&plain, "Always", 0, true),
            (&own, "Never", 1, true),
            (&own, "Always", 0, false),
            (&ruled, "Always", 1, false),
            (&ruled, "Always", 2, true),
        ] {
            assert_eq!(restarts(Some(&spec(policy)), container, code), expected, "{policy} {code}");
        }
    }
}
