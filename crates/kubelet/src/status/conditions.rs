//! The conditions that a kubelet owns. Upstream: `pkg/kubelet/status/generate.go`.

use super::Inputs;
use crate::plan::{is_sidecar, reset};
use api::{
    core::pod::may_restart_all,
    core::v1::{ContainerStatus, PodCondition, PodSpec, PodStatus},
    meta,
};

const OWNED: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
    reset::CONDITION,
];

/// Status, reason, message.
type Verdict = (bool, &'static str, String);

/// Those of others as they are, then ours in upstream's order.
pub(super) fn of(
    inputs: &Inputs<'_>,
    spec: &PodSpec,
    old: &PodStatus,
    status: &PodStatus,
) -> Vec<PodCondition> {
    let before = old.conditions.as_deref().unwrap_or_default();
    let mut all: Vec<PodCondition> =
        before.iter().filter(|it| !OWNED.contains(&it.type_.as_str())).cloned().collect();
    let host_network = spec.host_network == Some(true);
    let sandbox =
        inputs.observed.sandbox().is_some_and(|it| it.ready && (host_network || !it.ip.is_empty()));
    let containers = containers_ready(spec, status);
    let ready = match &containers {
        (true, ..) => gates(spec, &all),
        not => not.clone(),
    };
    let mut verdicts = vec![
        (OWNED[0], (sandbox, "", String::new())),
        (OWNED[1], initialized(spec, status, before)),
        (OWNED[2], ready),
        (OWNED[3], containers),
        (OWNED[4], (true, "", String::new())),
    ];
    if may_restart_all(spec) {
        verdicts.push((OWNED[7], restarting_all(inputs, status)));
    }
    let memory = inputs.memory;
    if let Some(refusal) = &memory.resize_refused {
        verdicts.push((OWNED[5], (true, refusal.reason, refusal.message.clone())));
    } else if inputs.resizing && !inputs.ended {
        let is_told = memory.has_failed_to_resize(inputs.pod);
        let failed = memory.resize_failed.as_ref().filter(|_| is_told);
        let (reason, message) = failed.map_or(("", ""), |it| (it.reason, &it.message));
        verdicts.push((OWNED[6], (true, reason, message.to_owned())));
    }
    for (kind, (status, reason, message)) in verdicts {
        let text = |it: &str| Some(it.to_owned()).filter(|it| !it.is_empty());
        let status = if status { "True" } else { "False" };
        let known = before.iter().find(|it| it.type_ == kind && it.status == status);
        let since = known.and_then(|it| it.last_transition_time.clone());
        all.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: text(reason),
            message: text(&message),
            last_transition_time: since.or_else(|| Some(meta::time(inputs.now))),
            observed_generation: inputs.pod.metadata.generation,
            ..PodCondition::default()
        });
    }
    let disrupts = inputs.verdict.filter(|it| it.disrupts);
    if let Some(verdict) = disrupts
        && !all.iter().any(|it| it.type_ == "DisruptionTarget")
    {
        all.push(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(verdict.message.clone()),
            last_transition_time: Some(meta::time(inputs.now)),
            observed_generation: inputs.pod.metadata.generation,
            ..PodCondition::default()
        });
    }
    all
}

fn restarting_all(inputs: &Inputs<'_>, status: &PodStatus) -> Verdict {
    let (pod, observed) = (inputs.pod, inputs.observed);
    match status.phase.as_deref() {
        Some("Succeeded") => (false, "PodCompleted", String::new()),
        Some("Failed") => (false, "PodFailed", String::new()),
        Some(_) | None if !reset::is_wanted(pod, observed) => (false, "", String::new()),
        Some(_) | None if reset::is_cleared(pod, observed, inputs.starting) => {
            (false, "", String::new())
        }
        Some(_) | None => {
            let message = "container exited with restart policy rule".to_owned();
            (true, "RestartAllContainersStarted", message)
        }
    }
}

fn containers_ready(spec: &PodSpec, status: &PodStatus) -> Verdict {
    match status.phase.as_deref() {
        Some("Succeeded") => return (false, "PodCompleted", String::new()),
        Some("Failed") => return (false, "PodFailed", String::new()),
        Some(_) | None => {}
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|it| is_sidecar(it));
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for container in sidecars.chain(&spec.containers) {
        match find(status, &container.name) {
            Some(it) if it.ready => {}
            Some(_) => unready.push(container.name.as_str()),
            None => unknown.push(container.name.as_str()),
        }
    }
    let message = complaint(("unknown", &unknown), ("unready", &unready));
    match message.is_empty() {
        true => (true, "", message),
        false => (false, "ContainersNotReady", message),
    }
}

fn initialized(spec: &PodSpec, status: &PodStatus, before: &[PodCondition]) -> Verdict {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in spec.init_containers.iter().flatten() {
        match find(status, &container.name) {
            Some(it) if is_sidecar(container) && it.started == Some(true) => {}
            Some(it) if !is_sidecar(container) && it.ready => {}
            Some(_) => incomplete.push(container.name.as_str()),
            None => unknown.push(container.name.as_str()),
        }
    }
    if status.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return (true, "PodCompleted", String::new());
    }
    let message = complaint(("unknown", &unknown), ("incomplete", &incomplete));
    let began = status.container_statuses.iter().flatten().any(|it| {
        let state = it.state.as_ref();
        it.started == Some(true)
            || state.is_some_and(|it| it.running.is_some() || it.terminated.is_some())
    });
    let was = before.iter().any(|it| it.type_ == "Initialized" && it.status == "True");
    match message.is_empty() || began || was {
        true => (true, "", String::new()),
        false => (false, "ContainersNotInitialized", message),
    }
}

fn gates(spec: &PodSpec, conditions: &[PodCondition]) -> Verdict {
    let gates = spec.readiness_gates.iter().flatten();
    let closed: Vec<String> = gates
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match conditions.iter().find(|it| it.type_ == *kind) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{kind}\" does not exist."
                )),
                Some(it) if it.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    it.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    match closed.is_empty() {
        true => (true, "", String::new()),
        false => (false, "ReadinessGatesNotReady", closed.join(", ")),
    }
}

fn find<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists.into_iter().flatten().flatten().find(|it| it.name == name)
}

/// `containers with unready status: [a b]`, as Go prints a list.
fn complaint(first: (&str, &[&str]), second: (&str, &[&str])) -> String {
    let parts = [first, second].into_iter().filter(|(_, names)| !names.is_empty());
    let texts =
        parts.map(|(what, names)| format!("containers with {what} status: [{}]", names.join(" ")));
    texts.collect::<Vec<_>>().join(", ")
}
