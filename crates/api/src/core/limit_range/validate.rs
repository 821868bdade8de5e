//! What a LimitRange must be.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, ValidateLimitRange.

use super::{CLAIM, CONTAINER, POD};
use crate::{
    core::resource_name,
    field::{Errors, quoted},
    k8s::{
        api::core::v1::{LimitRange, LimitRangeItem},
        apimachinery::pkg::api::resource::Quantity,
    },
    meta::{Exact, names, quantity},
};
use std::collections::{BTreeMap, BTreeSet};

type List = Option<BTreeMap<String, Quantity>>;

pub(super) fn validate(range: &LimitRange, errors: &mut Errors) {
    let items = range.spec.as_ref().map(|it| it.limits.as_slice()).unwrap_or_default();
    for (n, item) in items.iter().enumerate() {
        let path = format!("spec.limits[{n}]");
        validate_type(&format!("{path}.type"), &item.type_, errors);
        if items[..n].iter().any(|it| it.type_ == item.type_) {
            errors.duplicate(format!("{path}.type"), quoted(&item.type_));
        }
        validate_item(&path, item, errors);
    }
}

fn validate_type(path: &str, kind: &str, errors: &mut Errors) {
    let before = errors.0.len();
    names::qualified_name(path, kind, errors);
    if errors.0.len() == before && !kind.contains('/') && ![POD, CONTAINER, CLAIM].contains(&kind) {
        errors.invalid(path, quoted(kind), "must be a standard limit type or fully qualified");
    }
}

fn validate_item(path: &str, item: &LimitRangeItem, errors: &mut Errors) {
    let is_pod = item.type_ == POD;
    let mut resources = BTreeSet::new();
    let mut known = |field: &str, list: &List, errors: &mut Errors| {
        for (name, amount) in list.iter().flatten() {
            let at = format!("{path}.{field}[{name}]");
            match item.type_.as_str() {
                POD | CONTAINER => resource_name::of_container(&at, name, errors),
                _ => resource_name::any(&at, name, errors),
            }
            let _amount = quantity::read(&at, amount, errors);
            resources.insert(name.clone());
        }
    };
    known("max", &item.max, errors);
    known("min", &item.min, errors);
    for (field, list) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
        if !is_pod {
            known(field, list, errors);
        } else if list.as_ref().is_some_and(|it| !it.is_empty()) {
            let detail = "may not be specified when `type` is 'Pod'";
            errors.forbidden(format!("{path}.{field}"), detail);
        }
    }
    let has_storage = |list: &List| list.as_ref().is_some_and(|it| it.contains_key("storage"));
    if item.type_ == CLAIM && !has_storage(&item.min) && !has_storage(&item.max) {
        let detail =
            "either minimum or maximum storage value is required, but neither was provided";
        errors.required(format!("{path}.limits"), detail);
    }
    known("maxLimitRequestRatio", &item.max_limit_request_ratio, errors);
    for name in &resources {
        compare(path, name, item, errors);
    }
}

/// One resource's amounts against each other.
fn compare(path: &str, name: &str, item: &LimitRangeItem, errors: &mut Errors) {
    let of = |list: &List| {
        let amount = list.as_ref()?.get(name)?;
        Some((amount.0.clone(), Exact::of(amount)))
    };
    let unless_pod = |list| if item.type_ == POD { None } else { of(list) };
    let (min, max) = (of(&item.min), of(&item.max));
    let (limit, request) = (unless_pod(&item.default), unless_pod(&item.default_request));
    let ratio = of(&item.max_limit_request_ratio);
    let mut ordered = |less: (&str, &Option<(String, Exact)>),
                       more: (&str, &Option<(String, Exact)>),
                       field: &str,
                       shows_less: bool| {
        if let (Some((low, a)), Some((high, b))) = (less.1, more.1)
            && a > b
        {
            let shown = quoted(if shows_less { low } else { high });
            let detail = format!("{} value {low} is greater than {} value {high}", less.0, more.0);
            errors.invalid(format!("{path}.{field}[{name}]"), shown, detail);
        }
    };
    ordered(("min", &min), ("max", &max), "min", true);
    ordered(("min", &min), ("default request", &request), "defaultRequest", false);
    ordered(("default request", &request), ("max", &max), "defaultRequest", true);
    ordered(("default request", &request), ("default limit", &limit), "defaultRequest", true);
    ordered(("min", &min), ("default", &limit), "default", true);
    ordered(("default", &limit), ("max", &max), "default", false);
    let at = format!("{path}.maxLimitRequestRatio[{name}]");
    if let Some((text, ratio)) = &ratio {
        if *ratio < Exact::from_units(1) {
            errors.invalid(&at, quoted(text), format!("ratio {text} is less than 1"));
        }
        if let (Some((_, min)), Some((_, max))) = (&min, &max) {
            let most = max.0 as f64 / min.0 as f64;
            if ratio.0 as f64 / Exact::from_units(1).0 as f64 > most {
                let detail = format!("ratio {text} is greater than max/min = {most:.6}");
                errors.invalid(&at, quoted(text), detail);
            }
        }
    }
    let fixed = !resource_name::is_native(name) || name.starts_with(resource_name::HUGE_PAGES);
    if let (true, Some((limit, a)), Some((request, b))) = (fixed, &limit, &request)
        && a != b
    {
        let detail =
            format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        errors.invalid(format!("{path}.defaultRequest[{name}]"), quoted(request), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, codec::from_value};
    use serde_json::{Value, json};

    fn wrong(item: Value) -> String {
        let mut range: LimitRange =
            from_value(&json!({"metadata": {"name": "a"}, "spec": {"limits": [item]}})).unwrap();
        Kind::default(&mut range);
        let mut errors = Errors::default();
        validate(&range, &mut errors);
        errors.message()
    }

    #[test]
    fn amounts_stand_in_order() {
        assert_eq!(
            wrong(json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}})),
            ""
        );
        assert_eq!(
            wrong(json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}})),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"
        );
        assert_eq!(
            wrong(json!({"type": "Pod", "default": {"cpu": "1"}})),
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"
        );
        assert_eq!(
            wrong(json!({"type": "PersistentVolumeClaim"})),
            "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided"
        );
        assert_eq!(
            wrong(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}})),
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"
        );
        assert_eq!(
            wrong(json!({"type": "Job"})),
            "spec.limits[0].type: Invalid value: \"Job\": must be a standard limit type or fully qualified"
        );
        assert_eq!(
            wrong(
                json!({"type": "Container", "default": {"memory": "1Gi"}, "defaultRequest": {"memory": "2Gi"}})
            ),
            "spec.limits[0].defaultRequest[memory]: Invalid value: \"2Gi\": default request value 2Gi is greater than default limit value 1Gi"
        );
    }
}
