//! From figures to evictions, and to what the node says of its own state.
//!
//! Upstream: `pkg/kubelet/eviction/eviction_manager.go` (synchronize), 1.36.

use crate::{
    figures::{Disk, Figures, PodFigures},
    kubelet::Shared,
    plan::eviction::{self, Candidate, CandidateContainer, Eviction, Observed, Signal, Thresholds},
};
use api::{
    Object,
    core::{
        pod,
        v1::{Container, Node, ResourceRequirements},
    },
    meta::Exact,
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use stdx::Timestamp;
use world::Event;

/// Upstream: `evictionPressureTransitionPeriod`. So long the node calls itself short after it was.
const TRANSITION: Duration = Duration::from_secs(300);

const DISK: &str = "ephemeral-storage";

/// When the node was short of something, last.
#[derive(Debug, Default)]
pub(crate) struct Pressure(Mutex<BTreeMap<Signal, Timestamp>>);

impl Pressure {
    /// Memory, and disk.
    pub(crate) fn now(&self, now: Timestamp) -> (bool, bool) {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |signals: &[Signal]| {
            signals.iter().any(|it| seen.get(it).is_some_and(|at| now.since(*at) < TRANSITION))
        };
        let disks = [Signal::NodeDisk, Signal::NodeInodes, Signal::ImageDisk];
        (holds(&[Signal::Memory]), holds(&disks))
    }

    fn note(&self, starved: &[Signal], now: Timestamp) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(starved.iter().map(|it| (*it, now)));
    }
}

/// Who goes, and whether the disk is short.
pub(super) fn look(
    shared: &Shared,
    thresholds: &Thresholds,
    figures: &Figures,
) -> (Vec<Eviction>, bool) {
    let bytes = |it: &Disk| Observed { available: it.available, capacity: it.bytes };
    let inodes = Observed { available: figures.disk.inodes_free, capacity: figures.disk.inodes };
    let memory = Observed { available: figures.memory_available, capacity: figures.memory_total };
    let seen = BTreeMap::from([
        (Signal::Memory, memory),
        (Signal::NodeDisk, bytes(&figures.disk)),
        (Signal::NodeInodes, inodes),
        (Signal::ImageDisk, bytes(&figures.image_disk)),
    ]);
    let starved = eviction::starved(thresholds, &seen);
    shared.pressure.note(&starved, figures.at);
    let candidates: Vec<Candidate> = figures.pods.iter().map(candidate).collect();
    let disk = starved.iter().any(|it| *it != Signal::Memory);
    let over = eviction::over_their_limits(&candidates);
    if !over.is_empty() {
        return (over, disk);
    }
    let Some(signal) = starved.first() else { return (Vec::new(), disk) };
    let world = shared.client.world();
    if let Some(node) = world.cluster::<Node>(&shared.facts.node_name) {
        let text = format!("Attempting to reclaim {signal}");
        shared.client.record(Event::warning(&*node, "EvictionThresholdMet", text));
    }
    let gone = eviction::to_reclaim(*signal, thresholds, &seen, &candidates);
    (gone.into_iter().collect(), disk)
}

fn candidate(figures: &PodFigures) -> Candidate {
    let spec = figures.pod.spec.clone().unwrap_or_default();
    let (requests, limits) = (pod::requests(&spec), pod::limits(&spec));
    let bytes = |it: Option<&Exact>| it.map_or(0, |it| u64::try_from(it.units()).unwrap_or(0));
    let limited = |it: &Container| amount(it.resources.as_ref(), false, DISK).is_some();
    let taken = figures.ephemeral();
    let containers = figures.containers.iter().map(|it| {
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let resources =
            all.into_iter().find(|spec| spec.name == it.name).and_then(|it| it.resources.as_ref());
        CandidateContainer {
            name: it.name.clone(),
            memory: it.used.working_set,
            disk: it.layer.bytes + it.logs.bytes,
            memory_request: bytes(amount(resources, true, "memory").as_ref()),
            disk_request: bytes(amount(resources, true, DISK).as_ref()),
            disk_limit: amount(resources, false, DISK),
        }
    });
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| {
        let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
        let seen = figures.volumes.iter().find(|it| it.name == volume.name)?;
        Some((volume.name.clone(), seen.stats.bytes_used, Exact::of(limit)))
    });
    Candidate {
        uid: figures.pod.uid().to_owned(),
        priority: spec.priority.unwrap_or(0),
        memory: figures.used.working_set,
        disk: taken.bytes,
        inodes: taken.inodes,
        memory_request: bytes(requests.get("memory")),
        disk_request: bytes(requests.get(DISK)),
        disk_limit: limits.get(DISK).copied().filter(|_| spec.containers.iter().all(limited)),
        containers: containers.collect(),
        volumes: volumes.collect(),
    }
}

fn amount(resources: Option<&ResourceRequirements>, request: bool, name: &str) -> Option<Exact> {
    let resources = resources?;
    let list = if request { &resources.requests } else { &resources.limits };
    list.as_ref()?.get(name).map(Exact::of)
}
