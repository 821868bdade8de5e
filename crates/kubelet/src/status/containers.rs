//! The status of each container. Upstream: `kubelet_pods.go` (convertToAPIContainerStatuses).

use super::Inputs;
use crate::{
    plan::{
        containers::{List, as_container},
        has_started, is_sidecar, reset,
        resize::is_outdated,
        restarts,
    },
    runtime::{Container as Seen, State},
    spec::container::is_read_only_to_the_bottom,
};
use api::{
    core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
        ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser, PodSpec,
        PodStatus, VolumeMountStatus,
    },
    meta,
};
use stdx::Timestamp;

pub(super) fn statuses(inputs: &Inputs<'_>, spec: &PodSpec, list: List) -> Vec<ContainerStatus> {
    let has_init = spec.init_containers.as_ref().is_some_and(|it| !it.is_empty());
    let first = if has_init { "PodInitializing" } else { "ContainerCreating" };
    match list {
        List::Init => {
            let containers = spec.init_containers.iter().flatten();
            containers.map(|it| status(inputs, it, list, first)).collect()
        }
        List::Regular => spec.containers.iter().map(|it| status(inputs, it, list, first)).collect(),
        List::Ephemeral => {
            let containers = spec.ephemeral_containers.iter().flatten().map(as_container);
            containers.map(|it| status(inputs, &it, list, "ContainerCreating")).collect()
        }
    }
}

fn status(
    inputs: &Inputs<'_>,
    container: &Container,
    list: List,
    first_reason: &str,
) -> ContainerStatus {
    let init = list == List::Init;
    let old_status = inputs.pod.status.as_ref();
    let old_list = old_status.map(|it| match list {
        List::Init => &it.init_container_statuses,
        List::Regular => &it.container_statuses,
        List::Ephemeral => &it.ephemeral_container_statuses,
    });
    let old = old_list
        .and_then(Option::as_ref)
        .into_iter()
        .flatten()
        .find(|it| it.name == container.name);
    let mut runs = inputs.observed.containers.iter().filter(|it| it.name == container.name);
    let (latest, previous) = (runs.next(), runs.next());
    let Some(seen) = latest else { return unseen(inputs, container, old, first_reason) };
    // Its postStart hook is part of the start.
    let is_starting = seen.state == State::Running && inputs.starting.contains(&container.name);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        container_id: Some(container_id(seen)),
        image: seen.image.clone(),
        image_id: seen.image_ref.clone(),
        restart_count: i32::try_from(seen.attempt).unwrap_or(i32::MAX),
        ready: false,
        started: Some(false),
        // Made and not yet started, or not to the end, it waits for the same thing as before.
        state: Some(match seen.state {
            State::Created => waits(first_reason, ""),
            State::Running if is_starting => waits(first_reason, ""),
            State::Running | State::Exited | State::Unknown => state(inputs, seen),
        }),
        last_state: Some(ContainerState::default()),
        allocated_resources: match (&inputs.memory.resize_refused, old) {
            (Some(_), Some(old)) => old.allocated_resources.clone(),
            _ => container.resources.as_ref().and_then(|it| it.requests.clone()),
        },
        // What it runs with, not what it is to have: what was told before, or nothing.
        resources: match is_outdated(inputs.pod, container, seen) || is_refused(inputs, old, seen) {
            true => old.and_then(|it| it.resources.clone()),
            false => Some(container.resources.clone().unwrap_or_default()),
        },
        volume_mounts: volume_mounts(container),
        user: seen.user.clone().map(|(uid, gid, groups)| ContainerUser {
            linux: Some(LinuxContainerUser { uid, gid, supplemental_groups: Some(groups) }),
        }),
        ..ContainerStatus::default()
    };
    if let Some(previous) = previous.filter(|it| it.state == State::Exited) {
        status.last_state = Some(state(inputs, previous));
    } else if let Some(old) = old {
        // The runtime has forgotten it, the object has not.
        let same = old.container_id == status.container_id;
        let terminated = old.state.as_ref().filter(|it| !same && it.terminated.is_some());
        status.last_state = terminated.or(old.last_state.as_ref()).cloned().or(status.last_state);
    }
    if seen.state == State::Running && !is_starting {
        let probed = inputs.memory.probes.get(&seen.id).copied().unwrap_or_default();
        let started = has_started(container, seen, inputs.memory);
        let before = old.filter(|it| it.container_id == status.container_id);
        // After a restart of the node's server the last word stands until the probes speak again.
        let known = |now: Option<bool>, before: Option<bool>| now.or(before).unwrap_or(false);
        status.started = Some(match container.startup_probe {
            None => true,
            Some(_) => started || known(probed.started, before.and_then(|it| it.started)),
        });
        status.ready = status.started == Some(true)
            && (!init || is_sidecar(container))
            && match container.readiness_probe {
                None => true,
                Some(_) => known(probed.ready, before.map(|it| it.ready)),
            };
    } else if init && !is_sidecar(container) {
        // An init container is ready once it has done its work.
        status.ready = seen.state == State::Exited && seen.exit_code == 0;
    }
    if list == List::Ephemeral {
        // Nobody waits for it to be ready.
        (status.ready, status.started) = (false, None);
    }
    if let Some(waiting) = inputs.waiting.get(&container.name).filter(|_| !inputs.ended) {
        let now = status.state.take().unwrap_or_default();
        if now.terminated.is_some() {
            status.last_state = Some(now);
        }
        status.state = Some(waits(&waiting.reason, &waiting.message));
    }
    status
}

/// Whether the same run was told to have something, and the node has no room for what it is to have now: requests for
/// memory are nothing that the runtime would tell.
fn is_refused(inputs: &Inputs<'_>, old: Option<&ContainerStatus>, seen: &Seen) -> bool {
    let id = container_id(seen);
    let is_same = |it: &ContainerStatus| it.container_id.as_ref() == Some(&id);
    inputs.memory.resize_refused.is_some() && old.is_some_and(is_same)
}

const LOST: &str = "The container could not be located when the pod was deleted.  The container used to be Running";
/// Upstream gives it the code of a killed process.
const UNSEEN: i32 = 137;

/// A container that the runtime does not know.
fn unseen(
    inputs: &Inputs<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    first_reason: &str,
) -> ContainerStatus {
    let waits_already =
        |it: &ContainerStatus| it.state.as_ref().is_some_and(|it| it.waiting.is_some());
    if let Some(old) = old.filter(|it| !waits_already(it))
        && reset::is_wanted(inputs.pod, inputs.observed)
    {
        return removed(container, old);
    }
    let terminated =
        |it: &&ContainerStatus| it.state.as_ref().is_some_and(|it| it.terminated.is_some());
    if let Some(old) = old.filter(terminated) {
        return old.clone();
    }
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ready: false,
        started: Some(false),
        restart_count: old.map_or(0, |it| it.restart_count),
        state: Some(waits(first_reason, "")),
        last_state: Some(old.and_then(|it| it.last_state.clone()).unwrap_or_default()),
        volume_mounts: volume_mounts(container),
        ..ContainerStatus::default()
    };
    let was_running = old.and_then(|it| it.state.as_ref()).is_some_and(|it| it.running.is_some());
    if let Some(old) =
        old.filter(|_| was_running && !restarts(inputs.pod.spec.as_ref(), container, UNSEEN))
    {
        // It was lost, and does not come again.
        let terminated = Some(lost(LOST));
        let state = Some(ContainerState { terminated, ..ContainerState::default() });
        return ContainerStatus { state, ready: false, started: Some(false), ..old.clone() };
    }
    let last = status.last_state.as_ref().is_some_and(|it| it.terminated.is_some());
    if was_running && !last {
        status.last_state =
            Some(ContainerState { terminated: Some(lost(LOST)), ..ContainerState::default() });
        status.restart_count += i32::from(inputs.pod.metadata.deletion_timestamp.is_none());
    }
    if let Some(waiting) = inputs.waiting.get(&container.name) {
        status.state = Some(waits(&waiting.reason, &waiting.message));
    }
    status
}

/// All containers begin again, and this one was taken away for it.
fn removed(container: &Container, old: &ContainerStatus) -> ContainerStatus {
    let message = "The container is removed because RestartAllContainers in place";
    let terminated =
        Some(ContainerStateTerminated { reason: Some(reset::REASON.to_owned()), ..lost(message) });
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ready: false,
        started: Some(false),
        restart_count: old.restart_count + 1,
        state: Some(waits(reset::REASON, message)),
        last_state: Some(ContainerState { terminated, ..ContainerState::default() }),
        volume_mounts: volume_mounts(container),
        ..ContainerStatus::default()
    }
}

/// The pod has ended: of a container that had been started and cannot be found, say so; one that never was stays as it is.
pub(super) fn end(status: &mut PodStatus, old: &PodStatus) {
    let begun = |it: &ContainerStatus| {
        it.restart_count > 0
            || it.container_id.as_ref().is_some_and(|id| !id.is_empty())
            || it.last_state.as_ref().is_some_and(|it| it.terminated.is_some())
    };
    let initialized =
        status.container_statuses.iter().chain(&old.container_statuses).flatten().any(begun);
    for container in status.container_statuses.iter_mut().flatten() {
        container.ready = false;
        container.started = Some(false);
        let terminated = container.state.as_ref().is_some_and(|it| it.terminated.is_some());
        if initialized && !terminated {
            let terminated =
                Some(lost("The container could not be located when the pod was terminated"));
            container.state = Some(ContainerState { terminated, ..ContainerState::default() });
        }
    }
}

fn lost(message: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(message.to_owned()),
        exit_code: UNSEEN,
        ..ContainerStateTerminated::default()
    }
}

fn state(inputs: &Inputs<'_>, seen: &Seen) -> ContainerState {
    let time = |at: Timestamp| (at > Timestamp(0)).then(|| meta::time(at));
    match seen.state {
        State::Created | State::Unknown => ContainerState {
            waiting: Some(ContainerStateWaiting::default()),
            ..ContainerState::default()
        },
        State::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(seen.started) }),
            ..ContainerState::default()
        },
        State::Exited => {
            let words = inputs.last_words.get(&seen.id).map(String::as_str).unwrap_or_default();
            let parts = [seen.message.as_str(), words];
            let message =
                parts.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(": ");
            let reason = match (seen.reason.as_str(), seen.exit_code) {
                ("", 0) => "Completed",
                ("", _) => "Error",
                (reason, _) => reason,
            };
            let terminated = ContainerStateTerminated {
                container_id: Some(container_id(seen)),
                exit_code: seen.exit_code,
                reason: Some(reason.to_owned()),
                message: Some(message).filter(|it| !it.is_empty()),
                started_at: time(seen.started),
                finished_at: time(seen.finished),
                ..ContainerStateTerminated::default()
            };
            ContainerState { terminated: Some(terminated), ..ContainerState::default() }
        }
    }
}

fn waits(reason: &str, message: &str) -> ContainerState {
    let text = |it: &str| Some(it.to_owned()).filter(|it| !it.is_empty());
    let waiting = ContainerStateWaiting { reason: text(reason), message: text(message) };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

/// `stanchion://<id>`
fn container_id(seen: &Seen) -> String {
    format!("stanchion://{}", seen.id)
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|it| !it.is_empty())?;
    let status = |it: &api::core::v1::VolumeMount| VolumeMountStatus {
        name: it.name.clone(),
        mount_path: it.mount_path.clone(),
        read_only: it.read_only.filter(|it| *it),
        recursive_read_only: (it.read_only == Some(true)).then(|| {
            let to_the_bottom = is_read_only_to_the_bottom(it);
            if to_the_bottom { "Enabled" } else { "Disabled" }.to_owned()
        }),
        ..VolumeMountStatus::default()
    };
    Some(mounts.iter().map(status).collect())
}
