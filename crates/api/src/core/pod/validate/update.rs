//! What may change while a pod lives, and what a status may say.

use super::DEADLINE_MOST;
use crate::{
    core::pod::{node_name, restarts},
    field::{Errors, quoted},
    k8s::api::core::v1::{ContainerStatus, Pod, PodSpec, Toleration},
    meta::{
        absent::{list, same, text},
        difference::difference,
        names,
    },
};

/// The annotation of an object that mirrors a static pod.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Fields that may change while a pod lives, as upstream lists them.
const MUTABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(in crate::core::pod) fn validate_update(pod: &Pod, old: &Pod, errors: &mut Errors) {
    let (Some(spec), Some(before)) = (&pod.spec, &old.spec) else { return };
    let counts = |it: &PodSpec| [it.containers.len(), list(&it.init_containers).len()];
    for (n, field) in ["containers", "initContainers"].into_iter().enumerate() {
        if counts(spec)[n] != counts(before)[n] {
            let detail = "pod updates may not add or remove containers";
            errors.forbidden(format!("spec.{field}"), detail);
            return;
        }
    }
    if !validate_deadline(spec.active_deadline_seconds, before.active_deadline_seconds, errors) {
        return;
    }
    validate_tolerations(list(&spec.tolerations), list(&before.tolerations), errors);
    let gates = list(&before.scheduling_gates);
    for (n, it) in list(&spec.scheduling_gates).iter().enumerate() {
        if !gates.contains(it) {
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{}'", it.name);
            errors.forbidden(format!("spec.schedulingGates[{n}].name"), detail);
        }
    }
    let masked = masked(spec, before);
    if !same(&masked, before) {
        let detail = format!("pod updates may not change fields other than {MUTABLE}");
        errors.forbidden("spec", format!("{detail}\n{}", difference(before, &masked)));
    }
}

/// A deadline may come, and come nearer. False if there is no sense in looking further.
fn validate_deadline(now: Option<i64>, before: Option<i64>, errors: &mut Errors) -> bool {
    let path = "spec.activeDeadlineSeconds";
    match (now, before) {
        (Some(now), _) if !(0..=DEADLINE_MOST).contains(&now) => {
            names::in_range(path, now, 0, DEADLINE_MOST, errors);
            false
        }
        (Some(now), Some(before)) if before < now => {
            errors.invalid(path, now, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.invalid(path, "null", detail);
            true
        }
        (Some(_), _) | (None, None) => true,
    }
}

/// Tolerations may be added, and old ones last longer or shorter.
fn validate_tolerations(now: &[Toleration], before: &[Toleration], errors: &mut Errors) {
    let timeless = |it: &Toleration| Toleration { toleration_seconds: None, ..it.clone() };
    let kept = |old: &Toleration| now.iter().any(|it| timeless(it) == timeless(old));
    if !before.iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden("spec.tolerations", detail);
    }
}

/// The new spec with everything that may change as it was.
fn masked(spec: &PodSpec, before: &PodSpec) -> PodSpec {
    let mut masked = spec.clone();
    let pairs = masked.containers.iter_mut().zip(&before.containers);
    let init = masked.init_containers.iter_mut().flatten();
    for (it, old) in pairs.chain(init.zip(list(&before.init_containers))) {
        it.image.clone_from(&old.image);
    }
    masked.active_deadline_seconds = before.active_deadline_seconds;
    masked.scheduling_gates.clone_from(&before.scheduling_gates);
    masked.tolerations.clone_from(&before.tolerations);
    let negative = before.termination_grace_period_seconds.is_some_and(|it| it < 0);
    if negative && masked.termination_grace_period_seconds == Some(1) {
        masked.termination_grace_period_seconds = before.termination_grace_period_seconds;
    }
    if !list(&before.scheduling_gates).is_empty() {
        // A gated pod may still be told where to go: selectors may grow.
        let old = before.node_selector.clone().unwrap_or_default();
        let new = spec.node_selector.clone().unwrap_or_default();
        if old.iter().all(|(key, value)| new.get(key) == Some(value)) {
            masked.node_selector.clone_from(&before.node_selector);
        }
    }
    masked
}

pub(in crate::core::pod) fn validate_status(pod: &Pod, old: &Pod, errors: &mut Errors) {
    let (Some(status), Some(before)) = (&pod.status, &old.status) else { return };
    for (n, it) in list(&status.conditions).iter().enumerate() {
        let known = [
            "PodScheduled",
            "Ready",
            "Initialized",
            "ContainersReady",
            "DisruptionTarget",
            "PodReadyToStartContainers",
        ];
        if !known.contains(&it.type_.as_str()) {
            names::qualified_name(format!("status.conditions[{n}].type"), &it.type_, errors);
        }
    }
    let nominated = text(&status.nominated_node_name);
    if nominated != text(&before.nominated_node_name) && !nominated.is_empty() {
        names::dns_subdomain("status.nominatedNodeName", nominated, errors);
        if !node_name(old).is_empty() {
            let detail = "may not be set on pods that are already bound to a node";
            errors.forbidden("status.nominatedNodeName", detail);
        }
    }
    if text(&status.qos_class) != text(&before.qos_class) {
        errors.invalid("status.qosClass", quoted(text(&status.qos_class)), "field is immutable");
    }
    for (n, it) in list(&before.container_statuses).iter().enumerate() {
        let ended = |it: &ContainerStatus| it.state.as_ref().and_then(|it| it.terminated.clone());
        let Some(end) = ended(it) else { continue };
        // What has ended for good does not run again.
        let spec = old.spec.as_ref();
        let container =
            spec.and_then(|spec| spec.containers.iter().find(|own| own.name == it.name));
        if container.is_none_or(|own| restarts(spec, own, end.exit_code)) {
            continue;
        }
        let mut now = list(&status.container_statuses).iter().filter(|new| new.name == it.name);
        if now.any(|it| ended(it).is_none()) {
            let path = format!("status.containerStatuses[{n}].state");
            errors.forbidden(path, "may not be transitioned to non-terminated state");
        }
    }
    for (n, it) in list(&status.pod_ips).iter().enumerate() {
        names::ip(format!("status.podIPs[{n}]"), &it.ip, errors);
    }
}
