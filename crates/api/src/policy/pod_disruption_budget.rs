//! `policy/v1` PodDisruptionBudget: how many pods of a selection may be missing on purpose.
//!
//! Upstream: `pkg/apis/policy/validation/validation.go`,
//! `component-helpers/apps/poddisruptionbudget/helpers.go`.

use crate::{
    field::{Errors, quoted},
    k8s::{
        api::policy::v1::{
            PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus,
        },
        apimachinery::pkg::util::intstr::IntOrString,
    },
    kind::{Cell, Column, Kind, Names, Scope, Subresource},
    meta::{
        self, Condition, Selector,
        absent::{list, omit_zero, same},
        columns::{age, integer, name, text},
        names, next_generation,
        validate::label_selector,
    },
};
use std::collections::BTreeMap;
use stdx::Timestamp;

/// The condition that says whether a pod may be taken away now.
pub const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";
pub const SUFFICIENT_PODS: &str = "SufficientPods";
pub const INSUFFICIENT_PODS: &str = "InsufficientPods";
pub const SYNC_FAILED: &str = "SyncFailed";

const UNHEALTHY_POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

impl Kind for PodDisruptionBudget {
    const NAMES: Names = Names {
        plural: "poddisruptionbudgets",
        singular: "poddisruptionbudget",
        short: &["pdb"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/poddisruptionbudgets";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column<PodDisruptionBudget>] = &[
        name(),
        text("Min Available", "Pods that must stay.", |budget, _| {
            amount(budget.spec.as_ref().and_then(|it| it.min_available.as_ref()))
        }),
        text("Max Unavailable", "Pods that may be missing.", |budget, _| {
            amount(budget.spec.as_ref().and_then(|it| it.max_unavailable.as_ref()))
        }),
        integer("Allowed Disruptions", "Pods that may be taken away now.", |budget, _| {
            Cell::Number(i64::from(disruptions_allowed(budget)))
        }),
        age(),
    ];

    fn default(&mut self) {
        self.spec.get_or_insert_default();
        let status = self.status.get_or_insert_default();
        for field in [
            &mut status.current_healthy,
            &mut status.desired_healthy,
            &mut status.disruptions_allowed,
            &mut status.expected_pods,
        ] {
            field.get_or_insert(0);
        }
        omit_zero(&mut status.observed_generation);
    }

    fn prepare_create(&mut self) {
        self.status = None;
        self.metadata.generation = Some(1);
        Kind::default(self);
    }

    fn prepare_update(&mut self, old: &PodDisruptionBudget) {
        self.status.clone_from(&old.status);
        let changed = !same(&self.spec, &old.spec);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn prepare_status(&mut self, old: &PodDisruptionBudget) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let shown = serde_json::to_string(spec).expect("API objects are plain data");
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.invalid("spec", shown, detail);
        }
        for (field, value) in
            [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)]
        {
            if let Some(value) = value {
                count_or_percent(&format!("spec.{field}"), value, errors);
            }
        }
        if let Some(selector) = &spec.selector {
            label_selector("spec.selector", selector, errors);
        }
        let policy = spec.unhealthy_pod_eviction_policy.as_deref();
        if let Some(policy) = policy.filter(|it| !UNHEALTHY_POLICIES.contains(it)) {
            errors.not_supported("spec.unhealthyPodEvictionPolicy", policy, &UNHEALTHY_POLICIES);
        }
    }

    fn validate_status(&self, _old: &PodDisruptionBudget, errors: &mut Errors) {
        let Some(status) = &self.status else { return };
        validate_conditions("status.conditions", list(&status.conditions), errors);
        let counts = [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ];
        for (field, count) in counts {
            names::not_negative(format!("status.{field}"), i64::from(count.unwrap_or(0)), errors);
        }
    }
}

fn amount(value: Option<&IntOrString>) -> Cell {
    match value {
        None => "N/A".into(),
        Some(IntOrString::Int(count)) => count.to_string().into(),
        Some(IntOrString::String(percent)) => percent.as_str().into(),
    }
}

/// A count that is not negative, or a percentage of at most 100.
fn count_or_percent(path: &str, value: &IntOrString, errors: &mut Errors) {
    match value {
        IntOrString::Int(count) => names::not_negative(path, i64::from(*count), errors),
        IntOrString::String(text) => match percent(text) {
            None => {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                errors.invalid(path, quoted(text), detail);
            }
            Some(percent) if percent > 100 => {
                errors.invalid(path, quoted(text), "must not be greater than 100%");
            }
            Some(_) => {}
        },
    }
}

fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    let all = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
    all.then(|| digits.parse().unwrap_or(i64::MAX))
}

/// A count, or its share of `total`, rounded up. `None` for what is neither.
pub fn scaled(value: &IntOrString, total: i32) -> Option<i32> {
    match value {
        IntOrString::Int(count) => Some(*count),
        IntOrString::String(text) => {
            let share = percent(text)?.saturating_mul(i64::from(total));
            i32::try_from(share.saturating_add(99).div_euclid(100)).ok()
        }
    }
}

/// Upstream: `apimachinery/pkg/apis/meta/v1/validation`, ValidateConditions.
fn validate_conditions(path: &str, conditions: &[Condition], errors: &mut Errors) {
    for (n, it) in conditions.iter().enumerate() {
        let path = format!("{path}[{n}]");
        if conditions[..n].iter().any(|other| other.type_ == it.type_) {
            errors.duplicate(format!("{path}.type"), quoted(&it.type_));
        }
        names::qualified_name(format!("{path}.type"), &it.type_, errors);
        let statuses = ["False", "True", "Unknown"];
        if !statuses.contains(&it.status.as_str()) {
            errors.not_supported(format!("{path}.status"), &it.status, &statuses);
        }
        if let Some(generation) = it.observed_generation.filter(|it| *it < 0) {
            let detail = "must be greater than or equal to zero";
            errors.invalid(format!("{path}.observedGeneration"), generation, detail);
        }
        let at = format!("{path}.reason");
        if it.reason.is_empty() {
            errors.required(at, "");
        } else {
            if !is_reason(&it.reason) {
                errors.invalid(&at, quoted(&it.reason), REASON);
            }
            if it.reason.len() > REASON_MOST {
                errors.too_long(at, REASON_MOST);
            }
        }
        if it.message.len() > MESSAGE_MOST {
            errors.too_long(format!("{path}.message"), MESSAGE_MOST);
        }
    }
}

/// Longest reason and message of a condition, in bytes.
const REASON_MOST: usize = 1024;
const MESSAGE_MOST: usize = 32 * 1024;
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

fn is_reason(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |it: &u8| it.is_ascii_alphanumeric() || b"_,:".contains(it);
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|it| it.is_ascii_alphanumeric() || *it == b'_')
        && bytes.iter().all(inner)
}

pub fn disruptions_allowed(budget: &PodDisruptionBudget) -> i32 {
    budget.status.as_ref().and_then(|it| it.disruptions_allowed).unwrap_or(0)
}

/// Whether the budget is about pods with these labels. Without a selector it is about none.
pub fn covers(budget: &PodDisruptionBudget, labels: &BTreeMap<String, String>) -> bool {
    Selector::of(budget.spec.as_ref().and_then(|it| it.selector.as_ref())).matches(labels)
}

/// The condition, if there is one yet.
pub fn allowance(status: &PodDisruptionBudgetStatus) -> Option<&Condition> {
    list(&status.conditions).iter().find(|it| it.type_ == DISRUPTION_ALLOWED)
}

/// Brings the condition in line with `disruptionsAllowed`.
pub fn set_allowance(status: &mut PodDisruptionBudgetStatus, now: Timestamp) {
    let (state, reason) = match status.disruptions_allowed.unwrap_or(0) {
        ..=0 => ("False", INSUFFICIENT_PODS),
        1.. => ("True", SUFFICIENT_PODS),
    };
    set_condition(status, state, reason, "", now);
}

/// Writes the condition; its time changes only with its status.
pub fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    state: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let observed = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let at = conditions.iter().position(|it| it.type_ == DISRUPTION_ALLOWED);
    let since = at.map(|it| &conditions[it]).filter(|it| it.status == state);
    let condition = Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: observed,
        last_transition_time: match since {
            Some(before) => before.last_transition_time.clone(),
            None => meta::time(now),
        },
    };
    match at {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

/// The spec, or an empty one.
pub fn spec(budget: &PodDisruptionBudget) -> PodDisruptionBudgetSpec {
    budget.spec.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn budget(spec: Value) -> PodDisruptionBudget {
        let mut budget: PodDisruptionBudget =
            from_value(&json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        Kind::default(&mut budget);
        budget
    }

    fn wrong(spec: Value) -> String {
        let mut errors = Errors::default();
        budget(spec).validate(&mut errors);
        errors.message()
    }

    #[test]
    fn is_about_counts_or_percentages() {
        assert_eq!(wrong(json!({"minAvailable": 1})), "");
        assert_eq!(wrong(json!({"maxUnavailable": "100%"})), "");
        assert_eq!(
            wrong(json!({"maxUnavailable": "101%"})),
            "spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"
        );
        assert_eq!(
            wrong(json!({"minAvailable": -1})),
            "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"
        );
        assert!(wrong(json!({"minAvailable": "x"})).contains("numeric string followed by"));
        assert!(
            wrong(json!({"minAvailable": 1, "maxUnavailable": 1}))
                .ends_with("minAvailable and maxUnavailable cannot be both set")
        );
        assert_eq!(
            wrong(json!({"unhealthyPodEvictionPolicy": "Never"})),
            "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\""
        );
    }

    #[test]
    fn a_share_is_rounded_up() {
        let of = |text: &str, total| scaled(&IntOrString::String(text.to_owned()), total);
        assert_eq!(of("50%", 3), Some(2));
        assert_eq!(of("0%", 3), Some(0));
        assert_eq!(of("100%", 7), Some(7));
        assert_eq!(of("half", 7), None);
    }

    #[test]
    fn prints_what_may_be_missing() {
        assert_eq!(row(&budget(json!({"maxUnavailable": 1}))), "web | N/A | 1 | 0 | <unknown>");
    }

    #[test]
    fn the_condition_keeps_its_time_while_its_status_stays() {
        let mut status = PodDisruptionBudgetStatus::default();
        let at = Timestamp::from_seconds;
        set_allowance(&mut status, at(1));
        set_allowance(&mut status, at(2));
        assert_eq!(allowance(&status).unwrap().last_transition_time, meta::time(at(1)));
        status.disruptions_allowed = Some(1);
        set_allowance(&mut status, at(3));
        let condition = allowance(&status).unwrap();
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            ("True", SUFFICIENT_PODS)
        );
        assert_eq!(condition.last_transition_time, meta::time(at(3)));
    }
}
