//! What a Job may say of failures that count, of indexes that fail, and of success before the end.
//!
//! Upstream: `pkg/apis/batch/validation/validation.go` (1.36), validatePodFailurePolicy, validateSuccessPolicy.

use crate::{
    field::{Errors, Reason, quoted},
    k8s::api::batch::v1::{
        JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
        PodFailurePolicyRule, SuccessPolicyRule,
    },
    meta::{absent::text, names},
};

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
/// Of the text that names indexes.
const INDEXES_BYTES_MAX: usize = 64 * 1024;
/// A status has to hold the indexes that failed.
const FAILED_INDEXES_MAX: i32 = 100_000;
/// With more completions than this, the indexes that may fail are fewer, and so are pods at a time.
const COMPLETIONS_MANY: i32 = 100_000;
const OF_MANY_MAX: i32 = 10_000;

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

pub(super) fn validate(spec: &JobSpec, errors: &mut Errors) {
    validate_limits(spec, errors);
    if let Some(policy) = &spec.pod_failure_policy {
        let path = "spec.podFailurePolicy.rules";
        if policy.rules.len() > RULES_MAX {
            errors.too_many(path, policy.rules.len(), RULES_MAX);
        }
        for (n, rule) in policy.rules.iter().enumerate() {
            failure_rule(spec, rule, &format!("{path}[{n}]"), errors);
        }
    }
    let Some(policy) = &spec.success_policy else { return };
    let Some(completions) = spec.completions.filter(|_| is_indexed(spec)) else {
        if !is_indexed(spec) {
            let what = "requires indexed completion mode";
            errors.push(Reason::Invalid, "spec.successPolicy", None, what);
        }
        return;
    };
    let (path, rules) = ("spec.successPolicy.rules", policy.rules.as_slice());
    if rules.is_empty() {
        let what = "at least one rules must be specified when the successPolicy is specified";
        errors.required(path, what);
    }
    if rules.len() > RULES_MAX {
        errors.too_many(path, rules.len(), RULES_MAX);
    }
    for (n, rule) in rules.iter().enumerate() {
        success_rule(completions, rule, &format!("{path}[{n}]"), errors);
    }
}

fn is_indexed(spec: &JobSpec) -> bool {
    text(&spec.completion_mode) == "Indexed"
}

fn validate_limits(spec: &JobSpec, errors: &mut Errors) {
    let (limit, most) = (spec.backoff_limit_per_index, spec.max_failed_indexes);
    let (per_index, failed) = ("spec.backoffLimitPerIndex", "spec.maxFailedIndexes");
    if let Some(limit) = limit {
        names::not_negative(per_index, limit.into(), errors);
    }
    if let Some(most) = most {
        names::not_negative(failed, most.into(), errors);
        if limit.is_none() {
            errors.required(per_index, "when maxFailedIndexes is specified");
        }
    }
    if !is_indexed(spec) {
        for (path, value) in [(per_index, limit), (failed, most)] {
            if let Some(value) = value {
                errors.invalid(path, value, "requires indexed completion mode");
            }
        }
        return;
    }
    let Some(completions) = spec.completions else { return };
    let mut at_most = |path: &str, value: Option<i32>, limit: i32, why: &str| {
        if let Some(value) = value.filter(|it| *it > limit) {
            errors.invalid(path, value, format!("must be less than or equal to {why}"));
        }
    };
    at_most(failed, most, completions, "completions");
    at_most(failed, most, FAILED_INDEXES_MAX, &FAILED_INDEXES_MAX.to_string());
    if completions > COMPLETIONS_MANY && limit.is_some() {
        let why = format!(
            "{OF_MANY_MAX} when completions are above {COMPLETIONS_MANY} and used with backoff limit per index"
        );
        at_most("spec.parallelism", spec.parallelism, OF_MANY_MAX, &why);
        at_most(failed, most, OF_MANY_MAX, &why);
        if most.is_none() {
            let why = format!("must be specified when completions is above {COMPLETIONS_MANY}");
            errors.required(failed, why);
        }
    }
}

fn failure_rule(spec: &JobSpec, rule: &PodFailurePolicyRule, path: &str, errors: &mut Errors) {
    match rule.action.as_str() {
        "" => {
            errors.required(format!("{path}.action"), format!("valid values: {}", list(&ACTIONS)))
        }
        "FailIndex" if spec.backoff_limit_per_index.is_none() => {
            let why = "requires the backoffLimitPerIndex to be set";
            errors.invalid(format!("{path}.action"), quoted(&rule.action), why);
        }
        action if !ACTIONS.contains(&action) => {
            errors.not_supported(format!("{path}.action"), action, &ACTIONS);
        }
        _ => {}
    }
    let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(spec, codes, &format!("{path}.onExitCodes"), errors);
    }
    if !conditions.is_empty() {
        pod_conditions(conditions, &format!("{path}.onPodConditions"), errors);
    }
    let why = match (rule.on_exit_codes.is_some(), !conditions.is_empty()) {
        (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
        (true, false) | (false, true) => return,
    };
    errors.push(Reason::Invalid, path, None, why);
}

/// As Go prints a list of texts.
fn list(texts: &[&str]) -> String {
    let quoted: Vec<String> = texts.iter().map(|it| quoted(it)).collect();
    format!("[{}]", quoted.join(" "))
}

fn exit_codes(
    spec: &JobSpec,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    path: &str,
    errors: &mut Errors,
) {
    match codes.operator.as_str() {
        "In" | "NotIn" => {}
        "" => {
            let known = list(&["In", "NotIn"]);
            errors.required(format!("{path}.operator"), format!("valid values: {known}"));
        }
        other => errors.not_supported(format!("{path}.operator"), other, &["In", "NotIn"]),
    }
    if let Some(name) = &codes.container_name {
        let pod = spec.template.spec.as_ref();
        let init = pod.into_iter().flat_map(|it| it.init_containers.iter().flatten());
        let mut all = init.chain(pod.into_iter().flat_map(|it| &it.containers));
        if !all.any(|it| it.name == *name) {
            let why = "must be one of the container or initContainer names in the pod template";
            errors.invalid(format!("{path}.containerName"), quoted(name), why);
        }
    }
    let (path, values) = (format!("{path}.values"), codes.values.as_slice());
    let printed = || {
        let texts: Vec<String> = values.iter().map(i32::to_string).collect();
        format!("[{}]", texts.join(","))
    };
    if values.is_empty() {
        errors.invalid(&path, "[]", "at least one value is required");
    } else if values.len() > EXIT_CODES_MAX {
        errors.too_many(&path, values.len(), EXIT_CODES_MAX);
    }
    for (n, value) in values.iter().enumerate() {
        if codes.operator == "In" && *value == 0 {
            errors.invalid(format!("{path}[{n}]"), value, "must not be 0 for the In operator");
        }
        if values[..n].contains(value) {
            errors.duplicate(format!("{path}[{n}]"), value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(&path, printed(), "must be ordered");
    }
}

fn pod_conditions(
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
    path: &str,
    errors: &mut Errors,
) {
    const KNOWN: [&str; 3] = ["False", "True", "Unknown"];
    if patterns.len() > CONDITIONS_MAX {
        errors.too_many(path, patterns.len(), CONDITIONS_MAX);
    }
    for (n, pattern) in patterns.iter().enumerate() {
        names::qualified_name(format!("{path}[{n}].type"), &pattern.type_, errors);
        match text(&pattern.status) {
            status if KNOWN.contains(&status) => {}
            "" => {
                let why = format!("valid values: {}", list(&KNOWN));
                errors.required(format!("{path}[{n}].status"), why);
            }
            other => errors.not_supported(format!("{path}[{n}].status"), other, &KNOWN),
        }
    }
}

fn success_rule(completions: i32, rule: &SuccessPolicyRule, path: &str, errors: &mut Errors) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        errors.required(path, why);
    }
    let mut named = None;
    if let Some(indexes) = &rule.succeeded_indexes {
        let path = format!("{path}.succeededIndexes");
        if indexes.len() > INDEXES_BYTES_MAX {
            errors.too_long(&path, INDEXES_BYTES_MAX);
        }
        match count_indexes(indexes, completions) {
            Ok(count) => named = Some(count),
            Err(why) => {
                named = Some(0);
                let why = format!("error parsing succeededIndexes: {why}");
                errors.invalid(path, quoted(indexes), why);
            }
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let path = format!("{path}.succeededCount");
    names::not_negative(&path, count.into(), errors);
    if count > completions {
        let why = format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        );
        errors.invalid(&path, count, why);
    }
    if let Some(named) = named.filter(|it| count > *it) {
        let why = format!(
            "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&path, count, why);
    }
}

/// How many indexes `0-2,5` names, all below `completions` and in order.
fn count_indexes(text: &str, completions: i32) -> Result<i32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut last, mut count) = (None, 0);
    for part in text.split(',') {
        let limits: Vec<&str> = part.split('-').collect();
        if limits.len() > 2 {
            return Err(format!(
                "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let number = |text: &str| {
            let number = text.parse::<i64>();
            let number = number
                .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
            let small = i32::try_from(number).ok().filter(|it| *it < completions);
            small.ok_or_else(|| format!("too large index: {text:?}"))
        };
        let order = |a: i32, b: i32| format!("non-increasing order, previous: {a}, current: {b}");
        let first = number(limits[0])?;
        let end = limits.get(1).map_or(Ok(first), |it| number(it))?;
        if limits.len() == 2 && first >= end {
            return Err(order(first, end));
        }
        if let Some(last) = last.filter(|it| *it >= first) {
            return Err(order(last, first));
        }
        count += end - first + 1;
        last = Some(end);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted_or_refused_in_upstreams_words() {
        assert_eq!(count_indexes("0-2,5", 6), Ok(4));
        assert_eq!(count_indexes("", 6), Ok(0));
        for (text, why) in [
            (
                "0-2-3",
                "the fragment \"0-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
            ("a", "cannot convert string to integer for index: \"a\""),
            ("0-6", "too large index: \"6\""),
            ("2-2", "non-increasing order, previous: 2, current: 2"),
            ("3,1", "non-increasing order, previous: 3, current: 1"),
        ] {
            assert_eq!(count_indexes(text, 6), Err(why.to_owned()));
        }
    }
}
