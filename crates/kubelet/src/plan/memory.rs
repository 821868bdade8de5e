//! What a worker remembers between two looks: only what neither the API nor the runtime can tell.
//!
//! Losing all of it is harmless: failures are met again, back-off starts over, probes are asked again.

use super::{Verdict, resize::Refusal};
use crate::runtime::Image;
use api::core::v1::Pod;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use stdx::Timestamp;

/// Upstream: `kubelet.go` (backOffPeriod, MaxCrashLoopBackOff).
pub const RESTART_FIRST: Duration = Duration::from_secs(10);
pub const RESTART_MOST: Duration = Duration::from_secs(300);
/// A container that ran this long is not in a crash loop any more.
const RESTART_FORGOTTEN: Duration = Duration::from_secs(600);

/// What a container needs of images is on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ensured {
    pub image: Image,
    /// Pod volume → the id of the image that it is.
    pub volumes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Why the sandbox could not be made, and when to try again.
    pub sandbox: Option<Failure>,
    /// Why something could not be stopped or removed, and when to try again.
    pub trouble: Option<Failure>,
    /// Container → its image, once that is known to be here.
    pub images: BTreeMap<String, Ensured>,
    /// Container → why it could not be started, and when to try again.
    pub failures: BTreeMap<String, Failure>,
    /// Container → its back-off.
    pub restarts: BTreeMap<String, Restart>,
    /// Sandboxes that were stopped for good: network released, nothing left inside.
    pub stopped: BTreeSet<String>,
    /// Container id → what its probes say.
    pub probes: BTreeMap<String, Probed>,
    /// Containers that were told of their end before it was their turn.
    pub hooked: BTreeSet<String>,
    /// Why this node ends the pod: what was decided stays.
    pub verdict: Option<Verdict>,
    /// Why other resources have to wait.
    pub resize_refused: Option<Refusal>,
    /// Why they could not be given, and when to try again; and the generation of the pod that asked for them.
    pub resize_failed: Option<Failure>,
    pub resize_generation: Option<i64>,
    /// Container id → when it is killed if it has not ended by itself.
    pub stopping: BTreeMap<String, Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// `ErrImagePull`, `CreateContainerError`, …
    pub reason: &'static str,
    pub message: String,
    /// What is shown from `calm_at` on: upstream shows the failure first and the waiting afterwards.
    pub then: Option<(&'static str, String)>,
    pub calm_at: Timestamp,
    pub retry_at: Timestamp,
    /// How long the next failure waits is told from this one.
    pub waited: Duration,
    /// The image was there, and the container could not be made of it.
    pub of_making: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Restart {
    pub backoff: Duration,
    /// The end of the run that was followed by a restart.
    pub after: Timestamp,
}

/// `None`: not known yet, or not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Probed {
    pub started: Option<bool>,
    pub ready: Option<bool>,
    pub live: Option<bool>,
}

impl Memory {
    /// Whether what the pod asks for now could not be given; what it asked for before is another matter.
    pub fn has_failed_to_resize(&self, pod: &Pod) -> bool {
        self.resize_failed.is_some() && self.resize_generation == pod.metadata.generation
    }

    /// Until when a container that ended at `finished` is not restarted, and the back-off it is in.
    pub fn held(&self, container: &str, finished: Timestamp) -> Option<(Timestamp, Duration)> {
        let restart = self.restarts.get(container)?;
        if finished.since(restart.after) > RESTART_FORGOTTEN {
            return None;
        }
        Some((finished.plus(restart.backoff), restart.backoff))
    }

    /// A container that ended at `finished` is started again.
    pub fn restarted(&mut self, container: &str, finished: Timestamp) {
        let backoff = match self.restarts.get(container) {
            Some(it) if finished.since(it.after) <= RESTART_FORGOTTEN => {
                (it.backoff * 2).min(RESTART_MOST)
            }
            Some(_) | None => RESTART_FIRST,
        };
        self.restarts.insert(container.to_owned(), Restart { backoff, after: finished });
    }
}

impl Failure {
    pub fn new(
        reason: &'static str,
        message: impl Into<String>,
        now: Timestamp,
        before: Option<&Failure>,
        first: Duration,
    ) -> Failure {
        let waited = before.map_or(first, |it| (it.waited * 2).min(RESTART_MOST));
        Failure {
            reason,
            message: message.into(),
            then: None,
            calm_at: now,
            retry_at: now.plus(waited),
            waited,
            of_making: false,
        }
    }

    pub fn wait_at_most(&mut self, most: Duration, now: Timestamp) {
        self.waited = self.waited.min(most);
        self.retry_at = self.retry_at.min(now.plus(most));
    }

    /// Reason and message as they are shown at `now`.
    pub fn shown(&self, now: Timestamp) -> (&'static str, &str) {
        match &self.then {
            Some((reason, message)) if now >= self.calm_at => (reason, message),
            Some(_) | None => (self.reason, &self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_the_next_ones_wait_longer_and_longer() {
        let mut memory = Memory::default();
        let at = Timestamp::from_seconds;
        assert_eq!(memory.held("c", at(0)), None);
        let mut waits = Vec::new();
        for n in 1..8 {
            memory.restarted("c", at(n));
            waits.push(memory.held("c", at(n + 1)).unwrap().1.as_secs());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(memory.held("c", at(7 + 601)), None, "ten good minutes are forgiven");
    }
}
