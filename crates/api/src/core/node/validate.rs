//! What node selectors and nodes must be.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, ValidateNodeSelector, ValidateNode and Update.

use crate::{
    core::resource_name,
    field::{Errors, Reason, quoted},
    k8s::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, NodeSpec},
    meta::{
        Exact,
        absent::{list, text},
        addresses, names, quantity,
    },
};

/// Says what is wrong with a node selector.
pub(crate) fn validate_selector(path: &str, selector: &NodeSelector, errors: &mut Errors) {
    let path = format!("{path}.nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (n, term) in selector.node_selector_terms.iter().enumerate() {
        validate_term(&format!("{path}[{n}]"), term, true, errors);
    }
}

/// Says what is wrong with one term. Values that no label can have are wrong only where the term must hold: `strict`.
pub(crate) fn validate_term(
    path: &str,
    term: &NodeSelectorTerm,
    strict: bool,
    errors: &mut Errors,
) {
    for (n, it) in list(&term.match_expressions).iter().enumerate() {
        let path = format!("{path}.matchExpressions[{n}]");
        validate_expression(&path, it, errors);
        for (n, value) in list(&it.values).iter().enumerate().filter(|_| strict) {
            names::label_value(format!("{path}.values[{n}]"), value, errors);
        }
    }
    for (n, it) in list(&term.match_fields).iter().enumerate() {
        validate_field(&format!("{path}.matchFields[{n}]"), it, errors);
    }
}

fn validate_expression(path: &str, it: &NodeSelectorRequirement, errors: &mut Errors) {
    let values = list(&it.values);
    let at = format!("{path}.values");
    match (it.operator.as_str(), values.len()) {
        ("In" | "NotIn", 0) => {
            errors.required(at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        ("Exists" | "DoesNotExist", 1..) => errors
            .forbidden(at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        ("Gt" | "Lt", count) if count != 1 => {
            errors.required(at, "must be specified single value when `operator` is 'Lt' or 'Gt'")
        }
        ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => {}
        (operator, _) => errors.invalid(
            format!("{path}.operator"),
            quoted(operator),
            "not a valid selector operator",
        ),
    }
    names::qualified_name(format!("{path}.key"), &it.key, errors);
}

fn validate_field(path: &str, it: &NodeSelectorRequirement, errors: &mut Errors) {
    let values = list(&it.values);
    match it.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => errors.required(
            format!("{path}.values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
        "In" | "NotIn" => {}
        operator => errors.invalid(
            format!("{path}.operator"),
            quoted(operator),
            "not a valid selector operator",
        ),
    }
    if it.key != "metadata.name" {
        let detail = "not a valid field selector key";
        errors.invalid(format!("{path}.key"), quoted(&it.key), detail);
        return;
    }
    for (n, value) in values.iter().enumerate() {
        names::dns_subdomain(format!("{path}.values[{n}]"), value, errors);
    }
}

/// One of the effects of taints.
pub(crate) fn validate_effect(path: String, effect: &str, errors: &mut Errors) {
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if !effects.contains(&effect) {
        errors.not_supported(path, effect, &effects);
    }
}

pub(super) fn validate(node: &Node, errors: &mut Errors) {
    validate_amounts(node, errors);
    let Some(spec) = &node.spec else { return };
    let ranges = list(&spec.pod_cidrs);
    for (n, range) in ranges.iter().enumerate() {
        addresses::validate_range(format!("spec.podCIDRs[{n}]"), range, errors);
    }
    let six = ranges.iter().filter(|it| it.contains(':')).count();
    if ranges.len() > 1 && (six != 1 || ranges.len() > 2) {
        let shown = serde_json::to_string(ranges).expect("texts are plain data");
        let detail = "may specify no more than one CIDR for each IP family";
        errors.invalid("spec.podCIDRs", shown, detail);
    }
    let mut seen = Vec::new();
    for (n, taint) in list(&spec.taints).iter().enumerate() {
        let path = format!("metadata.taints[{n}]");
        names::qualified_name(format!("{path}.key"), &taint.key, errors);
        names::label_value_whole(format!("{path}.value"), text(&taint.value), errors);
        match taint.effect.as_str() {
            "" => errors.required(format!("{path}.effect"), ""),
            effect => validate_effect(format!("{path}.effect"), effect, errors),
        }
        if seen.contains(&(&taint.key, &taint.effect)) {
            let shown = serde_json::to_string(taint).expect("API objects are plain data");
            let detail = "taints must be unique by key and effect pair";
            errors.push(Reason::Duplicate, &path, Some(shown), detail);
            continue;
        }
        seen.push((&taint.key, &taint.effect));
    }
}

/// What there is is nothing less than nothing.
fn validate_amounts(node: &Node, errors: &mut Errors) {
    let Some(status) = &node.status else { return };
    for (field, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (name, amount) in amounts.iter().flatten() {
            let path = format!("status.{field}.{name}");
            let Some(exact) = quantity::read(&path, amount, errors) else { continue };
            if exact < Exact::ZERO {
                errors.invalid(&path, quoted(&amount.0), "must be greater than or equal to 0");
            }
            if resource_name::is_whole(name) && Exact::from_units(exact.units()) != exact {
                errors.invalid(&path, quoted(&amount.0), "must be an integer");
            }
        }
    }
}

pub(super) fn validate_status(node: &Node, errors: &mut Errors) {
    validate_amounts(node, errors);
    let addresses = node.status.as_ref().map(|it| list(&it.addresses)).unwrap_or_default();
    for (n, it) in addresses.iter().enumerate() {
        if addresses[..n].contains(it) {
            let shown =
                format!("{{\"Type\":{},\"Address\":{}}}", quoted(&it.type_), quoted(&it.address));
            errors.duplicate(format!("status.addresses[{n}]"), shown);
        }
    }
}

pub(super) fn validate_update(node: &Node, old: &Node, errors: &mut Errors) {
    let empty = NodeSpec::default();
    let (spec, before) =
        (node.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    let changed = list(&before.pod_cidrs) != list(&spec.pod_cidrs);
    if changed && !list(&before.pod_cidrs).is_empty() {
        errors.forbidden(
            "spec.podCIDRs",
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
    let changed = text(&before.provider_id) != text(&spec.provider_id);
    if changed && !text(&before.provider_id).is_empty() {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden("spec.providerID", detail);
    }
}
