//! The probes of one pod's running containers: each a task, begun with its container and ended with it.

use crate::{
    events::about_container,
    kubelet::Shared,
    plan::{Course, Memory, Next, has_started},
    probe::{Check, Kind, Note, Probe, Report, Timing},
    runtime::{Container as Seen, Observed, State},
};
use api::core::v1::{self, Container, Pod};
use client::Client;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::{sync::mpsc, task::JoinHandle};
use world::Event;

/// Reports that wait to be read; a probe that has more to say waits too.
const REPORTS: usize = 16;

pub(super) struct Probes {
    shared: Arc<Shared>,
    tasks: BTreeMap<(String, Kind), Task>,
    sender: mpsc::Sender<Report>,
    receiver: mpsc::Receiver<Report>,
}

/// Ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Probes {
    pub(super) fn new(shared: Arc<Shared>) -> Probes {
        let (sender, receiver) = mpsc::channel(REPORTS);
        Probes { shared, tasks: BTreeMap::new(), sender, receiver }
    }

    pub(super) async fn next(&mut self) -> Option<Report> {
        self.receiver.recv().await
    }

    pub(super) fn stop(&mut self) {
        self.tasks.clear();
    }

    /// Begins what is missing and ends what is over.
    pub(super) fn sync(&mut self, pod: &Pod, observed: &Observed, memory: &Memory, next: &Next) {
        let Some(spec) = &pod.spec else { return };
        let host_network = spec.host_network == Some(true);
        let address = match host_network {
            true => self.shared.facts.node_address.clone(),
            false => observed.sandbox().map(|it| it.ip.clone()).unwrap_or_default(),
        };
        let mut wanted = BTreeSet::new();
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            if next.starting.contains(&container.name) {
                continue;
            }
            let running = |it: &&Seen| it.state == State::Running;
            let Some(seen) = observed.latest(&container.name).filter(running) else { continue };
            let started = has_started(container, seen, memory);
            for (kind, probe) in probes(container) {
                let due = match kind {
                    Kind::Startup => !started,
                    Kind::Readiness | Kind::Liveness => started,
                };
                // Readiness is asked to the end, so that endpoints know.
                let ending = next.course != Course::Up && kind != Kind::Readiness;
                if !due
                    || ending
                    || memory.stopping.contains_key(&seen.id) && kind != Kind::Readiness
                {
                    continue;
                }
                let key = (seen.id.clone(), kind);
                wanted.insert(key.clone());
                if !self.tasks.contains_key(&key) {
                    let task = self.begin(container, seen, kind, probe, &address);
                    self.tasks.insert(key, task);
                }
            }
        }
        self.tasks.retain(|key, _| wanted.contains(key));
    }

    fn begin(
        &self,
        container: &Container,
        seen: &Seen,
        kind: Kind,
        probe: &v1::Probe,
        address: &str,
    ) -> Task {
        let probe = Probe {
            container_id: seen.id.clone(),
            container: container.name.clone(),
            kind,
            check: Check::of(probe, container, address),
            timing: Timing::of(probe),
            started: seen.started,
            runtime: self.shared.runtime.clone(),
            clock: self.shared.clock.clone(),
            reports: self.sender.clone(),
        };
        Task(tokio::spawn(probe.run()))
    }
}

fn probes(container: &Container) -> impl Iterator<Item = (Kind, &v1::Probe)> {
    let all = [
        (Kind::Startup, &container.startup_probe),
        (Kind::Readiness, &container.readiness_probe),
        (Kind::Liveness, &container.liveness_probe),
    ];
    all.into_iter().filter_map(|(kind, probe)| Some((kind, probe.as_ref()?)))
}

/// Tells the user of a check that failed, or said more than yes.
pub(super) fn note(client: &dyn Client, pod: &Pod, report: &Report) {
    let Some(note) = &report.note else { return };
    let Some(container) = crate::plan::containers::named(pod, &report.container) else { return };
    let kind = report.kind.title();
    let (reason, message) = match note {
        Note::Failed(why) => ("Unhealthy", format!("{kind} probe failed: {why}")),
        Note::Errored(why) => {
            ("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {why}"))
        }
        Note::Warning(what) => ("ProbeWarning", format!("{kind} probe warning: {what}")),
    };
    about_container(client, pod, &container, Event::warning(pod, reason, message));
}
