//! From figures to evictions, and to what the node says of its own state.
//!
//! Upstream: `pkg/kubelet/eviction/eviction_manager.go` (synchronize), 1.36.

use crate::{
    figures::{Disk, Figures, PodFigures},
    kubelet::Shared,
    plan::eviction::{
        self, Candidate, CandidateContainer, Eviction, Observed, Past, Policy, Signal,
    },
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
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use stdx::Timestamp;
use world::Event;

const DISK: &str = "ephemeral-storage";

/// When the node was short of something, last.
#[derive(Debug)]
pub(crate) struct Pressure {
    seen: Mutex<BTreeMap<Signal, Timestamp>>,
    /// So long the node calls itself short after it was.
    transition: Duration,
}

/// What a node calls itself short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) processes: bool,
}

impl Pressure {
    pub(crate) fn new(transition: Duration) -> Pressure {
        Pressure { seen: Mutex::default(), transition }
    }

    pub(crate) fn now(&self, now: Timestamp) -> Shortage {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let recent: Vec<Signal> = seen
            .iter()
            .filter(|(_, at)| now.since(**at) < self.transition)
            .map(|(signal, _)| *signal)
            .collect();
        Shortage {
            memory: recent.contains(&Signal::Memory),
            disk: recent.iter().any(|it| it.is_of_disk()),
            processes: recent.contains(&Signal::Processes),
        }
    }

    fn note(&self, short: &BTreeSet<Signal>, now: Timestamp) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(short.iter().map(|it| (*it, now)));
    }
}

/// Who goes, and whether the disk is short.
pub(super) fn look(
    shared: &Shared,
    policy: &Policy,
    past: &mut Past,
    figures: &Figures,
) -> (Vec<Eviction>, bool) {
    let bytes = |it: &Disk| Observed { available: it.available, capacity: it.bytes };
    let inodes = |it: &Disk| Observed { available: it.inodes_free, capacity: it.inodes };
    let (running, most) = processes();
    let left = Observed { available: most.saturating_sub(running), capacity: most };
    let memory = Observed { available: figures.memory_available, capacity: figures.memory_total };
    let seen = BTreeMap::from([
        (Signal::Memory, memory),
        (Signal::NodeDisk, bytes(&figures.disk)),
        (Signal::NodeInodes, inodes(&figures.disk)),
        (Signal::ImageDisk, bytes(&figures.image_disk)),
        (Signal::ImageInodes, inodes(&figures.image_disk)),
        (Signal::Processes, left),
    ]);
    let passed = eviction::look(policy, past, &seen, figures.at);
    shared.pressure.note(&passed.short, figures.at);
    let candidates: Vec<Candidate> = figures.pods.iter().map(candidate).collect();
    let disk = passed.due.iter().any(|it| it.signal.is_of_disk());
    let over = eviction::over_their_limits(&candidates);
    if !over.is_empty() {
        return (over, disk);
    }
    let Some(first) = passed.due.first() else { return (Vec::new(), disk) };
    let world = shared.client.world();
    if let Some(node) = world.cluster::<Node>(&shared.facts.node_name) {
        let text = format!("Attempting to reclaim {}", first.signal);
        shared.client.record(Event::warning(&*node, "EvictionThresholdMet", text));
    }
    let mut gone = eviction::to_reclaim(*first, policy, &seen, &candidates);
    if let Some(eviction) = &mut gone
        && let Some(most) = &mut eviction.grace_seconds
    {
        let pod = figures.pods.iter().find(|it| it.pod.uid() == eviction.uid);
        let own = pod.and_then(|it| it.pod.spec.as_ref()?.termination_grace_period_seconds);
        *most = own.map_or(*most, |it| it.min(*most)).max(1);
    }
    (gone.into_iter().collect(), disk)
}

/// How many process numbers are taken, and how many there are.
fn processes() -> (u64, u64) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let number = |path: &str| read(path).trim().parse::<u64>().ok();
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let most = limits.into_iter().filter_map(number).min().unwrap_or(0);
    let loads = read("/proc/loadavg");
    let threads = loads.split_whitespace().nth(3).and_then(|it| it.split('/').nth(1));
    (threads.and_then(|it| it.parse().ok()).unwrap_or(0), most)
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
        processes: figures.processes,
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
