//! Pods by template: what Deployments, ReplicaSets, DaemonSets, StatefulSets and Jobs share.
//!
//! Upstream: `pkg/apis/apps/validation/validation.go` (ValidatePodTemplateSpecForReplicaSet),
//! `pkg/controller/deployment/util` (EqualIgnoreHash).

use crate::{
    core::pod,
    field::Errors,
    k8s::{
        api::core::v1::{Container, PodSpec, PodTemplateSpec},
        apimachinery::pkg::apis::meta::v1::LabelSelector,
    },
    meta::{
        Selector,
        absent::{same, text},
        validate::{label_selector, validate_template},
    },
};
use serde_json::Value;

/// On a Deployment's ReplicaSets and pods: the hash of their template.
pub const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// A field of each container, joined by commas: the cells of `kubectl get -o wide`.
pub(crate) fn containers(spec: Option<&PodSpec>, field: fn(&Container) -> &str) -> String {
    let containers = spec.map(|it| it.containers.as_slice()).unwrap_or_default();
    containers.iter().map(field).collect::<Vec<_>>().join(",")
}

pub(crate) fn image(container: &Container) -> &str {
    text(&container.image)
}

pub(crate) fn default_template(template: &mut PodTemplateSpec) {
    pod::default_spec(template.spec.get_or_insert_default());
}

/// A selector that is there, well formed and not empty. `of` names the kind in upstream's words.
pub(crate) fn validate_selector(selector: &LabelSelector, of: &str, errors: &mut Errors) {
    label_selector("spec.selector", selector, errors);
    if is_empty(selector) {
        let detail = format!("empty selector is invalid for {of}");
        errors.invalid("spec.selector", "{}", detail);
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
    if is_empty(selector) || Selector::of(Some(selector)).matches(&labels) {
        return;
    }
    let shown = match labels.is_empty() {
        true => "null".to_owned(),
        false => serde_json::to_string(&labels).expect("labels are plain data"),
    };
    let detail = "`selector` does not match template `labels`";
    errors.invalid("spec.template.metadata.labels", shown, detail);
}

/// The template in itself.
pub(crate) fn validate_spec(template: &PodTemplateSpec, errors: &mut Errors) {
    validate_template("spec.template", template.metadata.as_ref(), errors);
    let spec = template.spec.clone().unwrap_or_default();
    pod::validate_spec("spec.template.spec", &spec, None, errors);
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
