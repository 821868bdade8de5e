//! One worker for each pod uid: look, plan, do, look again.
//!
//! The actions of a step run at the same time and none waits for another; what one of them changes wakes the next look.
//! A worker that is lost loses nothing: the next one looks at the runtime and the ledger and goes on.

mod admission;
mod done;
mod probes;
mod report;

use crate::{
    kubelet::Shared,
    plan::{self, Action, Course, Look, Memory, Next, Slot, Verdict, VolumeState},
    runtime::{Observed, State},
    static_pods::{self, mirrored},
    volumes::Standing,
};
pub(crate) use admission::Admitted;
use api::{Object, core::v1::Pod};
use done::Done;
use futures_util::{StreamExt, stream::FuturesUnordered};
use probes::Probes;
use report::Reporter;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use stdx::{Backoff, BoxFuture, Timestamp};
use tokio::sync::Notify;
use world::{Change, Event, ObjectKey, Typed};

/// How often a worker looks without being woken: a safety net for lost events.
const NET: Duration = Duration::from_secs(30);
/// A volume that could not be mounted is tried again after 0.5 s, 1 s … 2 min, as upstream.
const MOUNT_FIRST: Duration = Duration::from_millis(500);
const MOUNT_MOST: Duration = Duration::from_secs(122);
/// After a runtime that does not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// How others wake a worker.
#[derive(Default)]
pub(crate) struct Signal {
    notify: Notify,
    runtime: AtomicBool,
    verdict: Mutex<Option<Verdict>>,
}

impl Signal {
    /// The world changed.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// The pod must go.
    pub(crate) fn evict(&self, verdict: Verdict) {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        self.notify.notify_one();
    }

    /// Something happened to the pod's containers.
    pub(crate) fn observe(&self) {
        self.runtime.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

/// An attempt on a volume that failed.
struct Held {
    backoff: Backoff,
    until: Timestamp,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    uid: String,
    key: ObjectKey,
    signal: Arc<Signal>,
    /// The object as it was seen last: a pod that is gone still has a grace and hooks.
    pod: Option<Typed<Pod>>,
    observed: Observed,
    /// The runtime must be asked before the next decision.
    stale: bool,
    memory: Memory,
    held: BTreeMap<String, Held>,
    /// What was said about a volume last, so that it is said once.
    said: BTreeMap<String, String>,
    busy: BTreeSet<Slot>,
    flights: FuturesUnordered<BoxFuture<'static, (Slot, Done)>>,
    probes: Probes,
    reporter: Reporter,
    ending_since: Option<Timestamp>,
    /// This node has taken the pod, or never will.
    is_judged: bool,
    /// Container → the end after which its back-off was told.
    told_backoff: BTreeMap<String, Timestamp>,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        uid: String,
        key: ObjectKey,
        signal: Arc<Signal>,
    ) -> Worker {
        Worker {
            probes: Probes::new(shared.clone()),
            shared,
            uid,
            key,
            signal,
            pod: None,
            observed: Observed::default(),
            stale: true,
            memory: Memory::default(),
            held: BTreeMap::new(),
            said: BTreeMap::new(),
            busy: BTreeSet::new(),
            flights: FuturesUnordered::new(),
            reporter: Reporter::default(),
            ending_since: None,
            is_judged: false,
            told_backoff: BTreeMap::new(),
        }
    }

    /// Ends when nothing is left of the pod: no object, no process, no mount.
    pub(crate) async fn run(mut self) {
        loop {
            if let Err(error) = self.observe().await {
                tracing::warn!(pod = %self.key, operation = error.operation, %error, "look at a pod");
                stdx::sleep(AGAIN).await;
                continue;
            }
            let (next, alive) = self.decide();
            if next.actions.contains(&Action::Forget) {
                self.forget().await;
                return;
            }
            let now = self.shared.clock.now();
            let mut wake_at = next.wake_at;
            match alive {
                Some(pod) => {
                    self.probes.sync(&pod, &self.observed, &self.memory, &next);
                    self.report(&pod, &next);
                }
                None => self.probes.stop(),
            }
            let again = self.reporter.not_before();
            if again > now {
                wake_at = Some(wake_at.map_or(again, |it| it.min(again)));
            }
            self.act(next.actions);
            let rest = wake_at.map_or(NET, |it| it.since(now).min(NET));
            self.rest(rest, wake_at.is_none()).await;
        }
    }

    async fn observe(&mut self) -> crate::runtime::Result<()> {
        if self.signal.runtime.swap(false, Ordering::AcqRel) || self.stale {
            self.stale = true;
            self.observed = self.shared.runtime.observe(&self.uid).await?;
            self.stale = false;
            let ids: BTreeSet<&str> =
                self.observed.containers.iter().map(|it| it.id.as_str()).collect();
            let ended = |id: &String| {
                !self.observed.containers.iter().any(|it| it.id == *id && it.state == State::Exited)
            };
            self.memory.stopping.retain(|id, _| ids.contains(id.as_str()) && ended(id));
            self.memory.probes.retain(|id, _| ids.contains(id.as_str()));
            self.memory.hooked.retain(|id| ids.contains(id.as_str()));
            self.reporter
                .listen(&self.shared, self.pod.as_deref(), &self.uid, &self.observed)
                .await;
        }
        Ok(())
    }

    /// The plan, and the object if there still is one.
    fn decide(&mut self) -> (Next, Option<Typed<Pod>>) {
        let world = self.shared.client.world();
        let now = self.shared.clock.now();
        let alive = self.object(&world);
        if let Some(pod) = &alive {
            self.pod = Some(pod.clone());
        }
        if let Some(pod) = &alive {
            self.judge(&world, pod);
            self.judge_resize(&world, pod);
            self.heed(pod);
        }
        let ending = alive.as_ref().is_none_or(|it| it.is_deleting());
        if ending && self.ending_since.is_none() {
            self.ending_since = Some(now);
        }
        let volumes = match &alive {
            Some(pod) => self.volumes(&world, pod),
            None => BTreeMap::new(),
        };
        let mounted = self.mounted();
        let look = Look {
            pod: alive.as_deref(),
            observed: &self.observed,
            volumes: &volumes,
            mounted: &mounted,
            memory: &self.memory,
            busy: &self.busy,
            ending_since: self.ending_since.unwrap_or(now),
            now,
        };
        let mut next = plan::next(&look);
        match next.course {
            Course::Up => self.ending_since = None,
            Course::Finished | Course::Terminating | Course::Gone => {
                self.ending_since = self.ending_since.or(Some(now));
            }
        }
        if let (Some(pod), Some(verdict), None) = (&alive, &next.verdict, &self.memory.verdict) {
            self.pronounce(pod, verdict.clone());
        }
        if let Some(pod) = &alive {
            self.tell_backoff(pod, &next);
        }
        // What could not be unmounted is held here, whatever has become of its object.
        next.actions.retain(|it| match it {
            Action::Unpublish { volume } => self.held.get(volume).is_none_or(|it| it.until <= now),
            _ => true,
        });
        // Later than the safety net, the net itself finds it in time.
        let renewal = self.shared.volumes.renew_at(&self.uid);
        if let Some(at) = renewal.filter(|it| alive.is_some() && *it > now && it.since(now) < NET) {
            next.wake_at = Some(next.wake_at.map_or(at, |it| it.min(at)));
        }
        for held in self.held.values().filter(|it| it.until > now) {
            next.wake_at = Some(next.wake_at.map_or(held.until, |it| it.min(held.until)));
        }
        tracing::trace!(pod = %self.key, uid = self.uid, "{next}");
        (next, alive)
    }

    /// The object: of the API, or of a file with the status that its mirror shows.
    fn object(&self, world: &world::World) -> Option<Typed<Pod>> {
        let there = world.get::<Pod>(&self.key);
        let Some(mut pod) = self.shared.static_pods.get(&self.uid) else {
            return there.filter(|it| it.uid() == self.uid);
        };
        let mirror = there.filter(|it| mirrored(it) == Some(&self.uid));
        pod.status = mirror.and_then(|it| it.status.clone());
        Some(Typed::from(pod))
    }

    /// Keeps the mirror of a static pod; whether it is as it should be.
    fn keep_mirror(&mut self, pod: &Pod) -> bool {
        if self.shared.static_pods.get(&self.uid).is_none() {
            return true;
        }
        let Some(change) = static_pods::mirror(pod, &self.shared.client.world()) else {
            return true;
        };
        if self.reporter.not_before() <= self.shared.clock.now() {
            self.write(change);
        }
        false
    }

    /// One write to the object is under way at a time.
    fn write(&mut self, change: Change) {
        self.reporter.begin();
        self.busy.insert(Slot::Object);
        let shared = self.shared.clone();
        self.flights.push(Box::pin(async move {
            let written = shared.client.write(vec![change]).await;
            (Slot::Object, Done::Reported(written.map(drop)))
        }));
    }

    /// Whether the pod may begin here, before anything of it does.
    fn judge(&mut self, world: &world::World, pod: &Pod) {
        if self.is_judged || pod.is_deleting() {
            return;
        }
        self.is_judged = true;
        if api::core::pod::is_terminal(pod) || !self.observed.is_empty() {
            return;
        }
        if let Err(verdict) = self.shared.admitted.ask(&self.shared, world, pod) {
            self.pronounce(pod, verdict);
        }
    }

    /// Whether the node has room for what the spec asks for now, if that is another amount than before.
    fn judge_resize(&mut self, world: &world::World, pod: &Pod) {
        let refused = match plan::resize::is_unallocated(pod) {
            true => self.shared.admitted.ask_resize(&self.shared, world, pod).err(),
            false => None,
        };
        if let Some(refusal) = &refused
            && self.memory.resize_refused.as_ref() != Some(refusal)
        {
            let text = format!("Pod resize {}: {}", refusal.reason, refusal.message);
            let reason = match refusal.reason {
                "Infeasible" => "ResizeInfeasible",
                _ => "ResizeDeferred",
            };
            self.shared.client.record(Event::warning(pod, reason, text));
        }
        self.memory.resize_refused = refused;
    }

    /// What was pronounced by the node's upkeep.
    fn heed(&mut self, pod: &Pod) {
        let verdict = self.signal.verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(verdict) = verdict
            && self.memory.verdict.is_none()
            && !api::core::pod::is_terminal(pod)
        {
            self.pronounce(pod, verdict);
        }
    }

    fn pronounce(&mut self, pod: &Pod, verdict: Verdict) {
        let (reason, text) = (verdict.reason, verdict.event().to_owned());
        let event = match verdict.rejected || verdict.reason == "Evicted" {
            true => Event::warning(pod, reason, text),
            false => Event::normal(pod, reason, text),
        };
        self.shared.client.record(event);
        self.memory.verdict = Some(verdict);
    }

    /// Each wait for a restart is told once.
    fn tell_backoff(&mut self, pod: &Pod, next: &Next) {
        for (name, waiting) in &next.waiting {
            let Some(seen) = self.observed.latest(name) else { continue };
            if waiting.reason != "CrashLoopBackOff"
                || self.told_backoff.get(name) == Some(&seen.finished)
            {
                continue;
            }
            self.told_backoff.insert(name.clone(), seen.finished);
            let text = format!(
                "Back-off restarting failed container {name} in pod {}",
                plan::describe(pod)
            );
            if let Some(container) = plan::containers::named(pod, name) {
                let event = Event::warning(pod, "BackOff", text);
                crate::events::about_container(&*self.shared.client, pod, &container, event);
            }
        }
    }

    fn mounted(&self) -> Vec<String> {
        let records = self.shared.volumes.ledger().of_pod(&self.uid);
        records.into_iter().map(|it| it.volume).collect()
    }

    fn volumes(&mut self, world: &world::World, pod: &Pod) -> BTreeMap<String, VolumeState> {
        let facts = &self.shared.facts;
        let (address, now) = (self.address(), self.shared.clock.now());
        let volumes = pod.spec.iter().flat_map(|it| it.volumes.iter().flatten());
        // Images are mounted by the runtime, with each container.
        let volumes = volumes.filter(|it| it.image.is_none());
        let mut states = BTreeMap::new();
        for volume in volumes {
            let name = &volume.name;
            let resolved = plan::volumes::resolve(world, pod, volume, facts, &address);
            let state = match resolved {
                Ok(wanted) => {
                    let standing = self.shared.volumes.standing(&self.uid, name, &wanted, now);
                    let outdated = standing == Standing::Outdated;
                    match (standing, self.held.get(name)) {
                        (Standing::Ready, _) => VolumeState::Ready,
                        (Standing::Absent | Standing::Outdated, Some(held)) => {
                            VolumeState::Held { until: held.until, outdated }
                        }
                        (Standing::Absent | Standing::Outdated, None) => {
                            VolumeState::Wanted { outdated }
                        }
                    }
                }
                Err(why) => {
                    let outdated = self.shared.volumes.published(&self.uid).contains_key(name);
                    if !outdated {
                        let text =
                            format!("MountVolume.SetUp failed for volume \"{name}\" : {why}");
                        say(&self.shared, &mut self.said, pod, name, text);
                    }
                    VolumeState::Waiting { outdated }
                }
            };
            states.insert(name.clone(), state);
        }
        states
    }

    /// The pod's own address, as far as it is known.
    fn address(&self) -> String {
        let host = self.pod.as_ref().and_then(|it| it.spec.as_ref());
        match host.is_some_and(|it| it.host_network == Some(true)) {
            true => self.shared.facts.node_address.clone(),
            false => self.observed.sandbox().map(|it| it.ip.clone()).unwrap_or_default(),
        }
    }

    /// Writes the status if it differs.
    fn report(&mut self, pod: &Typed<Pod>, next: &Next) {
        if self.busy.contains(&Slot::Object) {
            return;
        }
        if !self.keep_mirror(pod) {
            return;
        }
        let change = self.reporter.change(&self.shared, pod, &self.observed, &self.memory, next);
        let Some(mut change) = change else { return };
        if self.reporter.not_before() > self.shared.clock.now() {
            return;
        }
        if self.shared.static_pods.get(&self.uid).is_some() {
            // It is the mirror that is written.
            let Some(mirror) = self.shared.client.world().get::<Pod>(&self.key) else { return };
            let status = change.object::<Pod>().and_then(|it| it.status.clone());
            let mut mirror = mirror.to_owned();
            mirror.status = status;
            change = Change::status(mirror);
        }
        self.write(change);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            let slot = action.slot();
            let hastened = matches!(action, Action::Stop { .. });
            if self.busy.contains(&slot) && !hastened {
                continue;
            }
            if let Some(flight) = self.flight(action) {
                self.busy.insert(slot.clone());
                self.flights.push(Box::pin(async move { (slot, flight.await) }));
            }
        }
    }

    /// Until a flight lands, somebody wakes us, a probe speaks or time is up.
    async fn rest(&mut self, most: Duration, is_net: bool) {
        let landed = tokio::select! {
            Some(landed) = self.flights.next(), if !self.flights.is_empty() => Some(landed),
            () = self.signal.notify.notified() => None,
            Some(report) = self.probes.next() => {
                self.probed(report);
                None
            }
            () = stdx::sleep(most) => {
                // What a timer finds, no event told.
                self.stale |= is_net;
                None
            }
        };
        if let Some((slot, done)) = landed {
            self.land(slot, done);
            // Whatever landed meanwhile is known to the same look.
            while let Some(Some((slot, done))) =
                futures_util::FutureExt::now_or_never(self.flights.next())
            {
                self.land(slot, done);
            }
        }
    }

    fn probed(&mut self, report: crate::probe::Report) {
        if let Some(pod) = &self.pod {
            probes::note(&*self.shared.client, pod, &report);
        }
        let running = |it: &crate::runtime::Container| it.id == report.container_id;
        if let Some(verdict) = report.verdict
            && self.observed.containers.iter().any(running)
        {
            let probed = self.memory.probes.entry(report.container_id).or_default();
            match report.kind {
                crate::probe::Kind::Startup => probed.started = Some(verdict),
                crate::probe::Kind::Readiness => probed.ready = Some(verdict),
                crate::probe::Kind::Liveness => probed.live = Some(verdict),
            }
        }
    }

    /// The last traces: directories and logs.
    async fn forget(&mut self) {
        self.shared.admitted.forget(&self.uid);
        let (shared, uid) = (self.shared.clone(), self.uid.clone());
        let logs = shared.facts.log_dir_of(&self.key.namespace, &self.key.name, &uid);
        let removed = tokio::task::spawn_blocking(move || {
            crate::volumes::remove_pod_dir(&shared.facts, &uid)?;
            match std::fs::remove_dir_all(logs) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            }
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(pod = %self.key, uid = self.uid, %error, "remove the directories of a pod");
        }
    }
}

/// Says something about a volume, once.
fn say(
    shared: &Shared,
    said: &mut BTreeMap<String, String>,
    pod: &Pod,
    volume: &str,
    text: String,
) {
    if said.get(volume) != Some(&text) {
        shared.client.record(Event::warning(pod, "FailedMount", text.clone()));
        said.insert(volume.to_owned(), text);
    }
}
