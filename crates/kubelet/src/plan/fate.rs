//! What became of one container, and whether it comes again.
//!
//! Upstream: `pkg/kubelet/container/helpers.go` (ShouldContainerBeRestarted).

use super::Memory;
use crate::runtime::{Container as Seen, Observed, State};
pub use api::core::pod::restarts;
use api::core::v1::{Container, Pod};
use stdx::Timestamp;

/// What became of one container.
pub(super) enum Fate<'a> {
    /// Never started (in this sandbox, for init containers).
    New {
        attempt: u32,
    },
    /// Made, and then somebody lost interest.
    Stillborn(&'a Seen),
    Running(&'a Seen),
    Unknown(&'a Seen),
    /// Ended, and comes again.
    Again {
        attempt: u32,
        finished: Option<Timestamp>,
    },
    /// Ended, and stays so.
    Over {
        succeeded: bool,
    },
}

pub(super) fn fate<'a>(
    pod: &Pod,
    container: &Container,
    init: bool,
    observed: &'a Observed,
) -> Fate<'a> {
    let again = |code: i32| {
        let done = init && code == 0 && !is_sidecar(container);
        !done && restarts(pod.spec.as_ref(), container, code)
    };
    let current = observed.sandbox().filter(|it| it.ready).map(|it| it.id.as_str());
    match observed.latest(&container.name) {
        Some(seen) => match seen.state {
            State::Created => Fate::Stillborn(seen),
            State::Running => Fate::Running(seen),
            State::Unknown => Fate::Unknown(seen),
            // A failure that nothing is to follow stays one when the sandbox is gone, too.
            State::Exited if init && seen.exit_code != 0 && !again(seen.exit_code) => {
                Fate::Over { succeeded: false }
            }
            // A new sandbox begins from the first init container.
            State::Exited if init && current != Some(&seen.sandbox) => {
                Fate::New { attempt: seen.attempt + 1 }
            }
            State::Exited if again(seen.exit_code) => {
                Fate::Again { attempt: seen.attempt + 1, finished: Some(seen.finished) }
            }
            State::Exited => Fate::Over { succeeded: seen.exit_code == 0 },
        },
        None => {
            // The runtime knows nothing: has the container ever run?
            let status = pod.status.as_ref();
            let statuses = status.map(|it| match init {
                true => &it.init_container_statuses,
                false => &it.container_statuses,
            });
            let status = statuses.and_then(Option::as_ref).into_iter().flatten();
            let known = status.into_iter().find(|it| it.name == container.name);
            let before =
                known.filter(|it| it.container_id.as_ref().is_some_and(|id| !id.is_empty()));
            let terminated = before.and_then(|it| it.state.as_ref()?.terminated.as_ref());
            match before {
                // What was lost is counted already: the status says so.
                None => Fate::New {
                    attempt: known.map_or(0, |it| u32::try_from(it.restart_count).unwrap_or(0)),
                },
                Some(it) if init && !is_sidecar(container) => {
                    Fate::New { attempt: u32::try_from(it.restart_count + 1).unwrap_or(0) }
                }
                Some(it) => match again(terminated.map_or(UNSEEN, |it| it.exit_code)) {
                    true => Fate::Again {
                        attempt: u32::try_from(it.restart_count + 1).unwrap_or(0),
                        finished: None,
                    },
                    false => {
                        Fate::Over { succeeded: terminated.is_some_and(|it| it.exit_code == 0) }
                    }
                },
            }
        }
    }
}

/// An ephemeral container runs once, whatever happens.
pub(super) fn ephemeral_fate<'a>(pod: &Pod, name: &str, observed: &'a Observed) -> Fate<'a> {
    match observed.latest(name) {
        Some(seen) => match seen.state {
            State::Created => Fate::Stillborn(seen),
            State::Running => Fate::Running(seen),
            State::Exited | State::Unknown => Fate::Over { succeeded: seen.exit_code == 0 },
        },
        None => {
            let status = pod.status.as_ref();
            let statuses = status.and_then(|it| it.ephemeral_container_statuses.as_ref());
            let mut own = statuses.into_iter().flatten().filter(|it| it.name == name);
            let ran = own.any(|it| it.container_id.as_ref().is_some_and(|id| !id.is_empty()));
            if ran { Fate::Over { succeeded: false } } else { Fate::New { attempt: 0 } }
        }
    }
}

/// Upstream: `ContainerStatusUnknown` has the code of a killed process.
pub(super) const UNSEEN: i32 = 137;

/// Every container ended and none comes again, or a failed init container keeps them from ever starting.
pub(super) fn is_finished(pod: &Pod, observed: &Observed) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let over =
        |container: &Container| matches!(fate(pod, container, false, observed), Fate::Over { .. });
    let failed = |container: &Container| {
        matches!(fate(pod, container, true, observed), Fate::Over { succeeded: false })
    };
    let never_started = || spec.containers.iter().all(|it| observed.latest(&it.name).is_none());
    spec.containers.iter().all(over)
        || (never_started() && spec.init_containers.iter().flatten().any(failed))
}

/// An init container that keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether a running container counts as started: at once, or when its startup probe says so.
pub fn has_started(container: &Container, seen: &Seen, memory: &Memory) -> bool {
    container.startup_probe.is_none()
        || memory.probes.get(&seen.id).is_some_and(|it| it.started == Some(true))
}
