//! What to do next for one pod: bring it up, keep it up, or take it down.
//!
//! Everything that can go on at once is answered at once; what is under way (`busy`) is not answered again. Stop
//! containers before the sandbox, the sandbox before the volumes, and delete the object when nothing is left.
//! Upstream: `pkg/kubelet/kuberuntime/kuberuntime_manager.go` (computePodActions), `pod_workers.go` (1.36). Deviation: a
//! container that was created and never started is removed and made again under the same restart count.

use super::{
    Action, Course, Memory, Next, Slot, Verdict, Waiting, Why, active_until,
    containers::as_container,
    down::{deadline, spec_grace},
    fate::{Fate, UNSEEN, ephemeral_fate, fate, is_finished},
    has_started, human, is_sidecar, reset, resize,
    words::describe,
};
use crate::runtime::{Container as Seen, Observed, Sandbox, State};
use api::{
    Object,
    core::{
        pod,
        v1::{Container, Pod, PodSpec},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use stdx::Timestamp;

/// Upstream: `minimumGracePeriodInSeconds`.
pub const GRACE_SECONDS_MIN: i64 = 2;
/// Exited containers kept for each name, besides the latest: what `lastState` and `logs --previous` show.
const PREVIOUS_KEPT: usize = 1;

/// Everything that a decision needs.
pub struct Look<'a> {
    /// None: the object is gone.
    pub pod: Option<&'a Pod>,
    pub observed: &'a Observed,
    /// Each volume of the spec.
    pub volumes: &'a BTreeMap<String, VolumeState>,
    /// What the ledger says is, or may be, mounted for the pod.
    pub mounted: &'a [String],
    pub memory: &'a Memory,
    pub busy: &'a BTreeSet<Slot>,
    /// When this worker saw that the pod is to end; its deadline is counted from here if nothing else says it.
    pub ending_since: Timestamp,
    pub now: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// Mounted as the spec and the world want it.
    Ready,
    /// Not mounted, or with other contents than wanted.
    Wanted { outdated: bool },
    /// An attempt failed.
    Held { until: Timestamp, outdated: bool },
    /// Something that it needs does not exist yet; the world will wake the worker.
    Waiting { outdated: bool },
}

/// Decides.
pub fn next(look: &Look<'_>) -> Next {
    let decided = look.memory.verdict.clone();
    let (course, verdict) = match look.pod {
        None => (Course::Gone, None),
        Some(pod) if pod.is_deleting() => (Course::Terminating, decided),
        Some(pod) if pod::is_terminal(pod) => (Course::Finished, None),
        Some(_) if decided.is_some() => (Course::Finished, decided),
        Some(pod) if is_finished(pod, look.observed) && !reset::is_wanted(pod, look.observed) => {
            (Course::Finished, None)
        }
        Some(pod) if active_until(pod).is_some_and(|it| it <= look.now) => {
            (Course::Finished, Some(Verdict::deadline_exceeded()))
        }
        Some(_) => (Course::Up, None),
    };
    let next = Next {
        course,
        ended: false,
        verdict,
        resizing: false,
        starting: look.busy.iter().filter_map(Slot::container).map(str::to_owned).collect(),
        actions: Vec::new(),
        waiting: BTreeMap::new(),
        wake_at: None,
    };
    let mut plan = Plan { look, next };
    match (course, look.pod) {
        (Course::Up, Some(pod)) => plan.up(pod),
        (Course::Up, None) | (Course::Finished | Course::Terminating | Course::Gone, _) => {
            plan.down()
        }
    }
    plan.next
}

pub(super) struct Plan<'a, 'b> {
    pub(super) look: &'b Look<'a>,
    pub(super) next: Next,
}

impl<'a> Plan<'a, '_> {
    pub(super) fn act(&mut self, action: Action) {
        if !self.look.busy.contains(&action.slot()) && !self.is_in_trouble(&action) {
            self.next.actions.push(action);
        }
    }

    /// A runtime that refuses to stop or remove is not asked again at once.
    fn is_in_trouble(&mut self, action: &Action) -> bool {
        let ends = matches!(
            action,
            Action::Stop { .. }
                | Action::StopSandbox { .. }
                | Action::RemoveSandbox { .. }
                | Action::RemoveContainer { .. }
        );
        let until = self.look.memory.trouble.as_ref().map(|it| it.retry_at);
        let Some(until) = until.filter(|it| ends && *it > self.look.now) else { return false };
        self.wake_at(until);
        true
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        if at > self.look.now {
            let earlier = self.next.wake_at.map_or(at, |it| it.min(at));
            self.next.wake_at = Some(earlier);
        }
    }

    fn up(&mut self, pod: &Pod) {
        let Some(spec) = &pod.spec else { return };
        if let Some(until) = active_until(pod) {
            self.wake_at(until);
        }
        let mounted = self.volumes();
        let sandbox = self.sandbox(spec);
        for it in spec.ephemeral_containers.iter().flatten() {
            // Whatever becomes of the others: they are there to find out.
            let fate = ephemeral_fate(pod, &it.name, self.look.observed);
            self.container(&as_container(it), &fate, sandbox, mounted);
        }
        if reset::is_wanted(pod, self.look.observed) {
            return self.reset(pod);
        }
        for (container, fate) in self.due(pod, spec, sandbox) {
            self.container(container, &fate, sandbox, mounted);
        }
        self.watch_running(pod, spec);
        self.resize(pod, spec, sandbox);
        self.prune(spec);
    }

    /// Publishes what is missing; true when every volume can be used.
    fn volumes(&mut self) -> bool {
        let mut usable = true;
        for (volume, state) in self.look.volumes {
            let publish = Action::Publish { volume: volume.clone() };
            match state {
                VolumeState::Ready => {}
                VolumeState::Wanted { outdated } => {
                    usable &= outdated;
                    self.act(publish);
                }
                VolumeState::Held { until, outdated } => {
                    usable &= outdated;
                    match *until <= self.look.now {
                        true => self.act(publish),
                        false => self.wake_at(*until),
                    }
                }
                VolumeState::Waiting { outdated } => usable &= outdated,
            }
        }
        usable
    }

    /// The sandbox to start containers in, if there is one; makes one if there is none.
    fn sandbox(&mut self, spec: &PodSpec) -> Option<&'a Sandbox> {
        let observed = self.look.observed;
        let host_network = spec.host_network == Some(true);
        let usable = |it: &Sandbox| {
            it.ready && it.host_network == host_network && (host_network || !it.ip.is_empty())
        };
        let current = observed.sandbox().filter(|it| usable(it));
        let stale =
            observed.sandboxes.iter().filter(|it| current.is_none_or(|now| now.id != it.id));
        let mut cleared = true;
        for sandbox in stale {
            if sandbox.ready || !self.look.memory.stopped.contains(&sandbox.id) {
                cleared = false;
                self.act(Action::StopSandbox { id: sandbox.id.clone() });
            }
        }
        if current.is_some() || !cleared {
            return current;
        }
        match &self.look.memory.sandbox {
            Some(failure) if failure.retry_at > self.look.now => self.wake_at(failure.retry_at),
            Some(_) | None => {
                let attempt = observed.sandbox().map_or(0, |it| it.attempt + 1);
                self.act(Action::RunSandbox { attempt });
            }
        }
        None
    }

    /// The containers whose turn it is.
    fn due<'p>(
        &self,
        pod: &Pod,
        spec: &'p PodSpec,
        sandbox: Option<&Sandbox>,
    ) -> Vec<(&'p Container, Fate<'a>)> {
        let observed = self.look.observed;
        let in_sandbox = |it: &Container| {
            let latest = observed.latest(&it.name);
            latest.is_some_and(|it| sandbox.is_some_and(|now| now.id == it.sandbox))
        };
        // Init containers that the runtime has forgotten are not run again under a running pod.
        let initialized = spec.containers.iter().any(in_sandbox);
        let mut due = Vec::new();
        for container in spec.init_containers.iter().flatten() {
            let fate = fate(pod, container, true, observed);
            let passed = match &fate {
                Fate::Over { succeeded } => *succeeded || initialized,
                Fate::Running(seen) => {
                    is_sidecar(container)
                        && !self.next.starting.contains(&container.name)
                        && has_started(container, seen, self.look.memory)
                }
                Fate::New { .. } | Fate::Again { .. } if initialized && !is_sidecar(container) => {
                    true
                }
                Fate::New { .. } | Fate::Again { .. } | Fate::Stillborn(_) | Fate::Unknown(_) => {
                    due.push((container, fate));
                    initialized
                }
            };
            if !passed {
                return due;
            }
        }
        for container in &spec.containers {
            due.push((container, fate(pod, container, false, observed)));
        }
        due
    }

    fn container(
        &mut self,
        container: &Container,
        fate: &Fate<'_>,
        sandbox: Option<&Sandbox>,
        mounted: bool,
    ) {
        let look = self.look;
        let name = &container.name;
        let (attempt, finished) = match fate {
            Fate::Running(_) | Fate::Over { .. } => return,
            Fate::Stillborn(seen) => {
                let remove =
                    Action::RemoveContainer { container: name.clone(), id: seen.id.clone() };
                if !self.next.starting.contains(name) {
                    self.act(remove);
                }
                return;
            }
            Fate::Unknown(seen) => {
                let by = look.now.plus(Duration::from_secs(GRACE_SECONDS_MIN.unsigned_abs()));
                return self.stop(seen, by, Why::Unknown);
            }
            Fate::New { attempt } => (*attempt, None),
            Fate::Again { attempt, finished } => (*attempt, *finished),
        };
        if let Some((until, backoff)) = finished.and_then(|it| look.memory.held(name, it))
            && until > look.now
        {
            self.wake_at(until);
            let message = format!(
                "back-off {} restarting failed container={name} pod={}",
                human(backoff),
                look.pod.map(describe).unwrap_or_default()
            );
            let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), message };
            self.next.waiting.insert(name.clone(), waiting);
            return;
        }
        if let Some(failure) = look.memory.failures.get(name) {
            let (reason, message) = failure.shown(look.now);
            let waiting = Waiting { reason: reason.to_owned(), message: message.to_owned() };
            self.next.waiting.insert(name.clone(), waiting);
            if failure.retry_at > look.now {
                self.wake_at(failure.calm_at);
                return self.wake_at(failure.retry_at);
            }
        }
        let image = look.memory.images.contains_key(name);
        if !image {
            self.act(Action::EnsureImage { container: name.clone() });
        }
        if let Some(sandbox) = sandbox
            && image
            && mounted
        {
            let start = Action::Start {
                container: name.clone(),
                attempt,
                sandbox: sandbox.id.clone(),
                after: finished,
            };
            self.act(start);
        }
    }

    /// Stops running containers whose probes ask for it.
    fn watch_running(&mut self, pod: &Pod, spec: &PodSpec) {
        let all = spec.init_containers.iter().flatten().chain(&spec.containers);
        for container in all {
            let Some(seen) = self.look.observed.latest(&container.name) else { continue };
            let Some(probed) = self.look.memory.probes.get(&seen.id) else { continue };
            let (why, probe) = match (probed.live, probed.started) {
                (Some(false), _) => (Why::Liveness, &container.liveness_probe),
                (_, Some(false)) => (Why::Startup, &container.startup_probe),
                (Some(true) | None, Some(true) | None) => continue,
            };
            let own = probe.as_ref().and_then(|it| it.termination_grace_period_seconds);
            let by = deadline(self.look.now, own.unwrap_or_else(|| spec_grace(pod)));
            if seen.state == State::Running {
                self.stop(seen, by, why);
            }
        }
    }

    /// Stops running containers whose image is another one now, and gives the others the resources of their spec.
    fn resize(&mut self, pod: &Pod, spec: &PodSpec, sandbox: Option<&Sandbox>) {
        let all = spec.init_containers.iter().flatten().chain(&spec.containers);
        let mut in_place = false;
        for container in all {
            let Some(seen) = self.look.observed.latest(&container.name) else { continue };
            if seen.state != State::Running || self.look.memory.stopping.contains_key(&seen.id) {
                continue;
            }
            let by = deadline(self.look.now, spec_grace(pod));
            let image = container.image.as_deref().unwrap_or_default();
            let comes_again = super::restarts(Some(spec), container, UNSEEN);
            if !seen.spec_image.is_empty() && seen.spec_image != image && comes_again {
                self.stop(seen, by, Why::Changed);
                continue;
            }
            if !resize::is_outdated(pod, container, seen) {
                continue;
            }
            self.next.resizing = true;
            if self.look.memory.resize_refused.is_some() {
                continue;
            }
            match seen.limits {
                Some(now) if resize::restarts(pod, container, now) && comes_again => {
                    self.stop(seen, by, Why::Resize);
                }
                Some(_) | None => in_place = true,
            }
        }
        let memory = self.look.memory;
        if memory.resize_failed.is_some() && memory.resize_refused.is_none() && sandbox.is_some() {
            // Every container may have its share already: the pod as a whole has not.
            self.next.resizing = true;
            in_place = true;
        }
        let Some(sandbox) = sandbox.filter(|_| in_place) else { return };
        match &memory.resize_failed {
            Some(failure)
                if failure.retry_at > self.look.now && memory.has_failed_to_resize(pod) =>
            {
                self.wake_at(failure.retry_at);
            }
            Some(_) | None => self.act(Action::Resize { sandbox: sandbox.id.clone() }),
        }
    }

    pub(super) fn stop(&mut self, seen: &Seen, by: Timestamp, why: Why) {
        let hook_runs = self.look.busy.contains(&Slot::Hook(seen.id.clone()));
        // What runs while it is being started is in its postStart hook: the pod's end does not wait for that.
        let is_starting = self.next.starting.contains(&seen.name) && why != Why::Ending;
        if is_starting || (hook_runs && by > self.look.now) {
            return;
        }
        // A stop that is under way is only hastened.
        let under_way = self.look.memory.stopping.get(&seen.id);
        let sooner = |it: &Timestamp| by.plus(Duration::from_secs(1)) < *it && why == Why::Ending;
        if under_way.is_none_or(sooner) {
            let stop = Action::Stop { container: seen.name.clone(), id: seen.id.clone(), by, why };
            if !self.is_in_trouble(&stop) {
                self.next.actions.push(stop);
            }
        }
    }

    /// Removes what nobody will ask for again.
    fn prune(&mut self, spec: &PodSpec) {
        let observed = self.look.observed;
        let all = spec.init_containers.iter().flatten().chain(&spec.containers);
        for container in all {
            let mut ended = observed.containers.iter().filter(|it| it.name == container.name);
            let latest = ended.next();
            for seen in ended.skip(PREVIOUS_KEPT) {
                let lives = matches!(seen.state, State::Running | State::Unknown);
                if !lives && latest.is_some_and(|it| it.state == State::Running) {
                    let remove = Action::RemoveContainer {
                        container: container.name.clone(),
                        id: seen.id.clone(),
                    };
                    self.act(remove);
                }
            }
        }
        // An old sandbox goes once nothing in it is worth showing.
        let kept = |it: &Sandbox| {
            let mut containers = observed.containers.iter().filter(|seen| seen.sandbox == it.id);
            containers.any(|seen| {
                let newer = observed.containers.iter().filter(|other| other.name == seen.name);
                let newer = newer.take_while(|other| other.id != seen.id).count();
                newer <= PREVIOUS_KEPT || seen.state == State::Running
            })
        };
        for sandbox in observed.sandboxes.iter().skip(1) {
            if self.look.memory.stopped.contains(&sandbox.id) && !sandbox.ready && !kept(sandbox) {
                let id = sandbox.id.clone();
                self.act(Action::RemoveSandbox { id });
            }
        }
    }
}
