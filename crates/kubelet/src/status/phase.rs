//! The phase, from what the containers' statuses say. Upstream: `kubelet_pods.go` (getPhase).

use crate::plan::{reset, restarts};
use api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, PodSpec, PodStatus};

pub(super) fn of(spec: &PodSpec, status: &PodStatus, ended: bool) -> &'static str {
    let find = |list: &'_ Option<Vec<ContainerStatus>>, name: &str| -> Option<ContainerStatus> {
        list.iter().flatten().find(|it| it.name == name).cloned()
    };
    let mut pending_init = 0;
    let mut pending_sidecars = 0;
    let (mut unknown, mut running, mut waiting) = (0, 0, 0);
    for container in spec.init_containers.iter().flatten() {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        let found = find(&status.init_container_statuses, &container.name);
        let state = found.as_ref().map(Now::of);
        if !sidecar {
            match state {
                Some(Now::Ended(it)) if it.exit_code != 0 && !comes_again(spec, container, &it) => {
                    return "Failed";
                }
                Some(Now::Ended(_)) => {}
                Some(Now::Running | Now::Waiting) | None => pending_init += 1,
            }
            continue;
        }
        match state {
            Some(Now::Running) => {
                running += 1;
                pending_sidecars += i32::from(found.and_then(|it| it.started) != Some(true));
            }
            Some(Now::Ended(_)) => {}
            Some(Now::Waiting) => {
                pending_sidecars += 1;
                waiting += 1;
            }
            None => unknown += 1,
        }
    }
    let (mut stopped, mut stays_stopped, mut succeeded, mut initialized) = (0, 0, 0, false);
    for container in &spec.containers {
        let found = find(&status.container_statuses, &container.name);
        match found.as_ref().map(Now::of) {
            Some(Now::Running) => running += 1,
            Some(Now::Ended(it)) => {
                stopped += 1;
                stays_stopped += i32::from(!comes_again(spec, container, &it));
                let is_waiting =
                    found.and_then(|it| it.state).is_some_and(|it| it.waiting.is_some());
                succeeded += i32::from(it.exit_code == 0 && !is_waiting);
            }
            Some(Now::Waiting) => {
                waiting += 1;
                continue;
            }
            None => {
                unknown += 1;
                continue;
            }
        }
        initialized = true;
    }
    if pending_init > 0 || (pending_sidecars > 0 && !initialized) || waiting > 0 {
        "Pending"
    } else if running > 0 && unknown == 0 && !(ended && stopped > 0) {
        "Running"
    } else if stopped > 0 && unknown == 0 {
        match (ended || stopped == stays_stopped, stopped == succeeded) {
            (true, true) => "Succeeded",
            (true, false) => "Failed",
            // At least one of them is about to be restarted.
            (false, _) => "Running",
        }
    } else {
        "Pending"
    }
}

fn comes_again(spec: &PodSpec, container: &Container, ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some(reset::REASON)
        || restarts(Some(spec), container, ended.exit_code)
}

/// How a container stands, for the phase: one that waits for its restart counts as ended.
enum Now {
    Running,
    Ended(ContainerStateTerminated),
    Waiting,
}

impl Now {
    fn of(status: &ContainerStatus) -> Now {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.clone().and_then(|it| it.terminated);
        match (state.running, state.terminated, last) {
            (Some(_), ..) => Now::Running,
            (None, Some(terminated), _) => Now::Ended(terminated),
            (None, None, Some(last)) => Now::Ended(last),
            (None, None, None) => Now::Waiting,
        }
    }
}
