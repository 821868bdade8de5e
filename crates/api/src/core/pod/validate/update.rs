//! What may change while a pod lives, and what a status may say.

use super::DEADLINE_MOST;
use crate::{
    core::pod::{node_name, restarts},
    field::{Errors, quoted},
    k8s::api::core::v1::{
        Affinity, ContainerStatus, NodeSelectorTerm, Pod, PodSpec, PodStatus, Toleration,
    },
    meta::{
        absent::{list, same, text},
        addresses,
        difference::difference,
        names,
    },
};

/// The annotation of an object that mirrors a static pod.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Fields that may change while a pod lives, as upstream lists them.
const MUTABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(in crate::core::pod) fn validate_update(pod: &Pod, old: &Pod, errors: &mut Errors) {
    super::annotations::validate_update(&pod.metadata, &old.metadata, errors);
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
    if !gates.is_empty() {
        validate_gated(spec, before, errors);
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

/// A gated pod may still be told where to go: what chooses its nodes may become narrower.
fn validate_gated(spec: &PodSpec, before: &PodSpec, errors: &mut Errors) {
    let old = before.node_selector.clone().unwrap_or_default();
    let new = spec.node_selector.clone().unwrap_or_default();
    if !old.iter().all(|(key, value)| new.get(key) == Some(value)) {
        let shown = serde_json::to_string(&new).expect("texts are plain data");
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid("spec.nodeSelector", shown, detail);
    }
    let terms = |spec: &PodSpec| -> Vec<NodeSelectorTerm> {
        let affinity = spec.affinity.as_ref().and_then(|it| it.node_affinity.as_ref());
        let required =
            affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.clone());
        required.map(|it| it.node_selector_terms).unwrap_or_default()
    };
    let (old, new) = (terms(before), terms(spec));
    let path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    if !old.is_empty() && old.len() != new.len() {
        let shown = serde_json::to_string(&new).expect("API objects are plain data");
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.invalid(path, shown, detail);
        return;
    }
    for (n, (new, old)) in new.iter().zip(&old).enumerate() {
        if !only_adds(new, old) {
            let shown = serde_json::to_string(new).expect("API objects are plain data");
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.invalid(format!("{path}[{n}]"), shown, detail);
        }
    }
}

/// Whether a term chooses from what the old one chose. An empty one chooses nothing, and stays empty.
fn only_adds(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let pairs = [
        (list(&new.match_expressions), list(&old.match_expressions)),
        (list(&new.match_fields), list(&old.match_fields)),
    ];
    let was_empty = pairs.iter().all(|it| it.1.is_empty());
    let is_empty = pairs.iter().all(|it| it.0.is_empty());
    (!was_empty || is_empty) && pairs.iter().all(|(new, old)| new.starts_with(old))
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
        // What may become narrower has been looked at.
        masked.node_selector.clone_from(&before.node_selector);
        let nodes = before.affinity.as_ref().and_then(|it| it.node_affinity.clone());
        let affinity = masked.affinity.get_or_insert_default();
        affinity.node_affinity = nodes;
        if before.affinity.is_none() && *affinity == Affinity::default() {
            masked.affinity = None;
        }
    }
    masked
}

pub(in crate::core::pod) fn validate_status(pod: &Pod, old: &Pod, errors: &mut Errors) {
    super::annotations::validate_update(&pod.metadata, &old.metadata, errors);
    let (Some(status), Some(before)) = (&pod.status, &old.status) else { return };
    for (n, it) in list(&status.conditions).iter().enumerate() {
        let path = format!("status.conditions[{n}]");
        observed(format!("{path}.observedGeneration"), it.observed_generation, errors);
        names::qualified_name(format!("{path}.Type"), &it.type_, errors);
    }
    observed("status.observedGeneration".to_owned(), status.observed_generation, errors);
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
    validate_transitions(old, status, before, errors);
    let ips: Vec<&str> = list(&status.pod_ips).iter().map(|it| it.ip.as_str()).collect();
    validate_ips("status.podIPs", &ips, errors);
    let ips: Vec<&str> = list(&status.host_ips).iter().map(|it| it.ip.as_str()).collect();
    if let Some(first) = ips.first().filter(|it| **it != text(&status.host_ip)) {
        errors.invalid("status.hostIPs[0].ip", quoted(first), "must be equal to `hostIP`");
    }
    validate_ips("status.hostIPs", &ips, errors);
}

fn observed(path: String, generation: Option<i64>, errors: &mut Errors) {
    if let Some(generation) = generation.filter(|it| *it < 0) {
        errors.invalid(path, generation, "must be a non-negative integer");
    }
}

/// Addresses, of each family one at the most.
fn validate_ips(path: &str, ips: &[&str], errors: &mut Errors) {
    for (n, ip) in ips.iter().enumerate() {
        addresses::validate(format!("{path}[{n}]"), ip, errors);
    }
    let six = ips.iter().filter(|it| it.contains(':')).count();
    if ips.len() > 2 || six > 1 || ips.len() - six > 1 {
        let shown: Vec<String> =
            ips.iter().map(|it| format!("{{\"IP\":{}}}", quoted(it))).collect();
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid(path, format!("[{}]", shown.join(",")), detail);
    }
}

/// What has ended for good does not run again.
fn validate_transitions(pod: &Pod, now: &PodStatus, before: &PodStatus, errors: &mut Errors) {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let all = || spec.containers.iter().chain(list(&spec.init_containers));
    let restarts_all = all()
        .flat_map(|it| list(&it.restart_policy_rules))
        .any(|rule| rule.action == "RestartAllContainers");
    let kinds = [
        ("containerStatuses", &now.container_statuses, &before.container_statuses),
        ("initContainerStatuses", &now.init_container_statuses, &before.init_container_statuses),
        (
            "ephemeralContainerStatuses",
            &now.ephemeral_container_statuses,
            &before.ephemeral_container_statuses,
        ),
    ];
    for (field, now, before) in kinds {
        let is_ephemeral = field == "ephemeralContainerStatuses";
        for (n, it) in list(before).iter().enumerate() {
            let ended =
                |it: &ContainerStatus| it.state.as_ref().and_then(|it| it.terminated.clone());
            let Some(end) = ended(it) else { continue };
            let container = all().find(|own| own.name == it.name).filter(|_| !is_ephemeral);
            let again = container.is_some_and(|own| restarts(Some(spec), own, end.exit_code));
            if again || restarts_all && !is_ephemeral {
                continue;
            }
            let mut now = list(now).iter().filter(|new| new.name == it.name);
            if now.any(|it| ended(it).is_none()) {
                let path = format!("status.{field}[{n}].state");
                errors.forbidden(path, "may not be transitioned to non-terminated state");
            }
        }
    }
}
