//! Pods by template: what Deployments, ReplicaSets, DaemonSets, StatefulSets and Jobs share.
//!
//! Upstream: `pkg/apis/apps/validation/validation.go` (ValidatePodTemplateSpecForReplicaSet),
//! `pkg/controller/deployment/util` (EqualIgnoreHash).

use crate::{
    core::pod,
    field::{Errors, Reason, quoted},
    k8s::{api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::LabelSelector},
    meta::{
        Selector,
        absent::{same, text},
        validate::label_selector,
    },
};
use serde_json::Value;

/// On a Deployment's ReplicaSets and pods: the hash of their template.
pub const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

pub(crate) fn default_template(template: &mut PodTemplateSpec) {
    pod::default_spec(template.spec.get_or_insert_default());
}

/// A selector that is there, well formed and not empty. `of` names the kind in upstream's words.
pub(crate) fn validate_selector(selector: &LabelSelector, of: &str, errors: &mut Errors) {
    label_selector("spec.selector", selector, errors);
    if is_empty(selector) {
        errors.invalid("spec.selector", "{}", format!("empty selector is invalid for {of}"));
    }
}

/// As [`validate_selector`]. An empty selector is mostly one that was left out, and answered as such: it chooses nothing.
pub(crate) fn require_selector(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    errors: &mut Errors,
) {
    label_selector("spec.selector", selector, errors);
    if is_empty(selector) {
        errors.required("spec.selector", "");
        no_match(template, errors);
    }
}

fn is_empty(selector: &LabelSelector) -> bool {
    let labels = selector.match_labels.as_ref().map_or(0, |it| it.len());
    labels + selector.match_expressions.as_ref().map_or(0, |it| it.len()) == 0
}

/// Pods that are always started again, and that the selector chooses. `of` is the kind.
pub(crate) fn validate_pods(
    template: &PodTemplateSpec,
    selector: &LabelSelector,
    of: &str,
    errors: &mut Errors,
) {
    validate_labels(template, selector, errors);
    validate_spec(template, errors);
    let spec = template.spec.as_ref();
    let policy = spec.map_or("", |it| text(&it.restart_policy));
    if policy != "Always" {
        errors.not_supported("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    if spec.is_some_and(|it| it.active_deadline_seconds.is_some()) {
        let detail = format!("activeDeadlineSeconds in {of} is not Supported");
        errors.forbidden("spec.template.spec.activeDeadlineSeconds", detail);
    }
}

/// The labels of the template are among those that the selector chooses.
pub(crate) fn validate_labels(
    template: &PodTemplateSpec,
    selector: &LabelSelector,
    errors: &mut Errors,
) {
    let labels = template.metadata.as_ref().and_then(|it| it.labels.clone()).unwrap_or_default();
    if !is_empty(selector) && !Selector::of(Some(selector)).matches(&labels) {
        no_match(template, errors);
    }
}

fn no_match(template: &PodTemplateSpec, errors: &mut Errors) {
    let labels = template.metadata.as_ref().and_then(|it| it.labels.clone()).unwrap_or_default();
    let shown = match labels.is_empty() {
        true => "null".to_owned(),
        false => serde_json::to_string(&labels).expect("labels are plain data"),
    };
    let detail = "`selector` does not match template `labels`";
    errors.invalid("spec.template.metadata.labels", shown, detail);
}

/// The template in itself.
pub(crate) fn validate_spec(template: &PodTemplateSpec, errors: &mut Errors) {
    pod::validate_template("spec.template", template, errors);
}

/// A strategy whose type nobody knows, with the names that fields have inside upstream's server.
pub(crate) fn unknown_strategy<T: serde::Serialize>(
    path: &str,
    kind: &str,
    rolling: &Option<T>,
    known: &[&str],
    errors: &mut Errors,
) {
    let known: Vec<String> = known.iter().map(|it| quoted(it)).collect();
    let detail = format!("supported values: {}", known.join(", "));
    errors.push(Reason::NotSupported, path, Some(shown_strategy(kind, rolling)), detail);
}

/// A strategy as upstream's errors show it.
pub(crate) fn shown_strategy<T: serde::Serialize>(kind: &str, rolling: &Option<T>) -> String {
    let rolling = rolling.as_ref().map_or_else(|| "null".to_owned(), shown_rolling);
    format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", quoted(kind))
}

/// The part of a strategy that rolls, likewise.
pub(crate) fn shown_rolling<T: serde::Serialize>(rolling: &T) -> String {
    let fields = serde_json::to_value(rolling).expect("API objects are plain data");
    let shown = |(name, value): (&String, &Value)| {
        let (first, rest) = name.split_at(1);
        format!("\"{}{rest}\":{value}", first.to_uppercase())
    };
    let fields: Vec<String> = fields.as_object().into_iter().flatten().map(shown).collect();
    format!("{{{}}}", fields.join(","))
}

/// A field that keeps its first value.
pub(crate) fn immutable<T: serde::Serialize + PartialEq>(
    path: &str,
    new: &T,
    old: &T,
    errors: &mut Errors,
) {
    if !same(new, old) {
        let shown = serde_json::to_string(new).expect("API objects are plain data");
        errors.invalid(path, shown, "field is immutable");
    }
}

/// Whether two templates make the same pods, whatever hash they bear.
pub fn same_pods(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    same(&without_hash(one), &without_hash(other))
}

/// The template without the label that says which template it is.
fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|it| it.labels.as_mut()) {
        labels.remove(TEMPLATE_HASH_LABEL);
    }
    template
}

/// A name for a template, for labels and names of objects. `collisions` makes another one.
pub fn hash_of(template: &PodTemplateSpec, collisions: i32) -> String {
    let document = serde_json::to_value(without_hash(template));
    let document: Value = document.expect("API objects are plain data");
    super::history::hash(&document, collisions)
}
