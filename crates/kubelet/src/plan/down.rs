//! Taking a pod down: its processes, then its sandbox, then its volumes, then its object.

use super::{
    Action, Course, Slot, VolumeState, Why, is_sidecar,
    pod::{GRACE_SECONDS_MIN, Plan},
};
use crate::runtime::{Container as Seen, State};
use api::{Object, core::v1::Pod, meta};
use std::{collections::BTreeSet, time::Duration};
use stdx::Timestamp;

const GRACE_SECONDS_DEFAULT: i64 = 30;

impl Plan<'_, '_> {
    pub(super) fn down(&mut self) {
        let look = self.look;
        // What was begun is waited for, except images: those who fetch them are told to stop.
        let begun = |it: &Slot| match it {
            Slot::Container(_) | Slot::Sandbox | Slot::Hook(_) | Slot::Resize => true,
            Slot::Stop(_) | Slot::Volume(_) | Slot::Image(_) | Slot::Object => false,
        };
        let by = self.ends_by();
        let living = |it: &&Seen| matches!(it.state, State::Running | State::Unknown);
        let living: Vec<&Seen> = look.observed.containers.iter().filter(living).collect();
        for seen in &living {
            match self.waits_for_others(seen, &living) {
                true => self.tell_of_end(seen, by),
                false => self.stop(seen, by, Why::Ending),
            }
        }
        if !living.is_empty() || look.busy.iter().any(begun) {
            return;
        }
        for sandbox in &look.observed.sandboxes {
            if sandbox.ready || !look.memory.stopped.contains(&sandbox.id) {
                self.act(Action::StopSandbox { id: sandbox.id.clone() });
                return;
            }
        }
        self.next.ended = true;
        for volume in look.mounted {
            match look.volumes.get(volume) {
                Some(VolumeState::Held { until, .. }) if *until > look.now => self.wake_at(*until),
                Some(_) | None => {
                    let unpublish = Action::Unpublish { volume: volume.clone() };
                    self.act(unpublish);
                }
            }
        }
        let publishing = look.busy.iter().any(|it| matches!(it, Slot::Volume(_)));
        if !look.mounted.is_empty() || publishing {
            return;
        }
        match self.next.course {
            Course::Up => {}
            Course::Finished => self.clear_evicted(),
            Course::Terminating => {
                let held = look.pod.is_some_and(|it| {
                    it.metadata.deletion_grace_period_seconds == Some(0)
                        && it.metadata.finalizers.as_ref().is_some_and(|it| !it.is_empty())
                });
                if !held {
                    self.act(Action::Delete);
                }
            }
            Course::Gone => {
                for sandbox in &look.observed.sandboxes {
                    let id = sandbox.id.clone();
                    self.act(Action::RemoveSandbox { id });
                }
                if look.observed.sandboxes.is_empty() && look.busy.is_empty() {
                    self.next.actions.push(Action::Forget);
                }
            }
        }
    }

    /// What a pod wrote that was evicted is what the node wants back. Once its status is written, nothing of its
    /// containers is kept. Upstream: `kuberuntime_gc.go` (evictContainers).
    fn clear_evicted(&mut self) {
        let status = self.look.pod.and_then(|it| it.status.as_ref());
        let told = status.is_some_and(|it| it.reason.as_deref() == Some("Evicted"));
        if !told || !self.look.pod.is_some_and(api::core::pod::is_terminal) {
            return;
        }
        let mut names = BTreeSet::new();
        for seen in &self.look.observed.containers {
            // One run of each at a time.
            if names.insert(&seen.name) {
                let (container, id) = (seen.name.clone(), seen.id.clone());
                self.act(Action::RemoveContainer { container, id });
            }
        }
    }

    /// A sidecar ends after every container that it served, and after the sidecars that came after it.
    /// Upstream: `kuberuntime_termination_order.go`.
    fn waits_for_others(&self, seen: &Seen, living: &[&Seen]) -> bool {
        let Some(spec) = self.look.pod.and_then(|it| it.spec.as_ref()) else { return false };
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let Some(at) = init.iter().position(|it| it.name == seen.name && is_sidecar(it)) else {
            return false;
        };
        let later = init[at + 1..].iter().filter(|it| is_sidecar(it));
        let mut before = spec.containers.iter().chain(later);
        before.any(|it| living.iter().any(|living| living.name == it.name))
    }

    fn tell_of_end(&mut self, seen: &Seen, by: Timestamp) {
        self.wake_at(by);
        let begun = self.look.memory.stopping.contains_key(&seen.id);
        if !begun && !self.look.memory.hooked.contains(&seen.id) {
            self.act(Action::Hook { container: seen.name.clone(), id: seen.id.clone(), by });
        }
    }

    /// When the last process is killed.
    fn ends_by(&self) -> Timestamp {
        let look = self.look;
        let soonest = deadline(look.now, GRACE_SECONDS_MIN);
        let verdict = self.next.verdict.as_ref().and_then(|it| it.grace_seconds);
        let asked = match look.pod {
            Some(pod) if !pod.is_deleting() && verdict.is_some() => {
                deadline(look.ending_since, verdict.unwrap_or_default())
            }
            Some(pod) => match &pod.metadata.deletion_timestamp {
                Some(at) => meta::timestamp_of(at).plus(Duration::from_secs(1)),
                None => deadline(look.ending_since, spec_grace(pod)),
            },
            None => {
                let told = look.observed.sandboxes.iter().find_map(|it| it.grace_seconds);
                deadline(look.ending_since, told.unwrap_or(GRACE_SECONDS_DEFAULT))
            }
        };
        asked.max(soonest)
    }
}

pub(super) fn deadline(from: Timestamp, seconds: i64) -> Timestamp {
    from.plus(Duration::from_secs(seconds.max(GRACE_SECONDS_MIN).unsigned_abs()))
}

pub(super) fn spec_grace(pod: &Pod) -> i64 {
    let spec = pod.spec.as_ref().and_then(|it| it.termination_grace_period_seconds);
    spec.unwrap_or(GRACE_SECONDS_DEFAULT)
}
