//! A pod that names a RuntimeClass gets its overhead and goes where it is; the class must be there.
//!
//! Upstream: `plugin/pkg/admission/runtimeclass/admission.go`, `pkg/util/tolerations`.

use super::{Act, Attempt, Plugin};
use api::{
    AnyObject, Failure,
    core::v1::{Pod, Toleration},
    node::v1::RuntimeClass,
};

pub(super) const PLUGIN: Plugin = Plugin { name: "RuntimeClass", admit };

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let pod = object.and_then(|it| (**it).as_any_mut().downcast_mut::<Pod>());
    let Some(pod) = pod.filter(|_| attempt.act == Act::Create) else { return Ok(()) };
    let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
    let refuse = |why: &str| Err(Failure::forbidden(attempt.kind, &attempt.key.name, why));
    let class = match &spec.runtime_class_name {
        None => None,
        Some(name) => match attempt.view.world.cluster::<RuntimeClass>(name) {
            None => return refuse(&format!("pod rejected: RuntimeClass {name:?} not found")),
            class => class,
        },
    };
    let own = spec.overhead.clone().filter(|it| !it.is_empty());
    let overhead = class.as_ref().and_then(|it| it.overhead.clone());
    match (overhead, &own) {
        (None, Some(_)) => {
            return refuse(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            );
        }
        (Some(overhead), Some(own)) if overhead.pod_fixed.as_ref() != Some(own) => {
            return refuse(
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            );
        }
        (Some(overhead), _) => spec.overhead = overhead.pod_fixed,
        (None, None) => {}
    }
    let Some(scheduling) = class.and_then(|it| it.scheduling.clone()) else { return Ok(()) };
    let selector = spec.node_selector.get_or_insert_default();
    for (key, value) in scheduling.node_selector.into_iter().flatten() {
        if let Some(own) = selector.get(&key).filter(|it| **it != value) {
            return refuse(&format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        selector.insert(key, value);
    }
    let all = spec.tolerations.take().into_iter().chain(scheduling.tolerations).flatten();
    spec.tolerations = Some(merged(all.collect()));
    Ok(())
}

/// Without those that another one covers.
fn merged(all: Vec<Toleration>) -> Vec<Toleration> {
    let mut merged: Vec<Toleration> = Vec::new();
    for (n, it) in all.iter().enumerate() {
        let later = all[n + 1..].iter().any(|other| other != it && covers(other, it));
        if !later && !merged.iter().any(|other| covers(other, it)) {
            merged.push(it.clone());
        }
    }
    merged
}

fn covers(more: &Toleration, less: &Toleration) -> bool {
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    if more == less {
        return true;
    }
    if text(&more.key) != text(&less.key) && !(text(&more.key).is_empty() && exists(more)) {
        return false;
    }
    if text(&more.effect) != text(&less.effect) && !text(&more.effect).is_empty() {
        return false;
    }
    let long = more
        .toleration_seconds
        .is_none_or(|most| less.toleration_seconds.is_some_and(|it| it <= most));
    long && (exists(more) || !exists(less) && text(&more.value) == text(&less.value))
}

fn exists(toleration: &Toleration) -> bool {
    toleration.operator.as_deref() == Some("Exists")
}
