//! Which pods go when they take more of the disk than they may, or when the node runs short.
//!
//! Upstream: `pkg/kubelet/eviction/{eviction_manager,helpers}.go` (1.36). Deviation: a tenth of a large disk is plenty,
//! so the default for disks holds only below an absolute amount too.

mod thresholds;

pub use thresholds::{Graces, Least, Policy, Reclaims, Thresholds, duration};

use api::meta::{Exact, quantity};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use stdx::Timestamp;

/// Pods of this priority and above are the cluster's own.
const CRITICAL: i32 = 2_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    Memory,
    NodeDisk,
    NodeInodes,
    ImageDisk,
    ImageInodes,
    Processes,
}

impl Signal {
    /// The resource that is short.
    fn resource(self) -> &'static str {
        match self {
            Signal::Memory => "memory",
            Signal::NodeDisk | Signal::ImageDisk => "ephemeral-storage",
            Signal::NodeInodes | Signal::ImageInodes => "inodes",
            Signal::Processes => "pids",
        }
    }

    /// Something of a disk, which also the removal of images can help.
    pub fn is_of_disk(self) -> bool {
        !matches!(self, Signal::Memory | Signal::Processes)
    }
}

/// What is left of something, and what there is of it at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    pub available: u64,
    pub capacity: u64,
}

/// A pod that could go.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    pub uid: String,
    pub priority: i32,
    pub memory: Option<u64>,
    /// Bytes on the node's own disk.
    pub disk: u64,
    pub inodes: u64,
    pub processes: Option<u64>,
    pub memory_request: u64,
    pub disk_request: u64,
    /// Of all its containers together, if each has one.
    pub disk_limit: Option<Exact>,
    pub containers: Vec<CandidateContainer>,
    /// emptyDir on the disk: name, bytes, limit.
    pub volumes: Vec<(String, u64, Exact)>,
}

#[derive(Clone, Debug, Default)]
pub struct CandidateContainer {
    pub name: String,
    pub memory: Option<u64>,
    pub disk: u64,
    pub memory_request: u64,
    pub disk_request: u64,
    pub disk_limit: Option<Exact>,
}

/// A pod that goes, and why, as its status and its event say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub uid: String,
    pub message: String,
    /// What the node is short of; none: the pod took more than it may.
    pub starved: Option<Signal>,
    /// How long the pod has at most. None: none at all.
    pub grace_seconds: Option<i64>,
}

/// Pods that take more of the disk than they may.
pub fn over_their_limits(pods: &[Candidate]) -> Vec<Eviction> {
    let evict = |pod: &Candidate| {
        let message = limit_passed(pod)?;
        let uid = pod.uid.clone();
        Some(Eviction { uid, message, starved: None, grace_seconds: None })
    };
    pods.iter().filter(|it| it.priority < CRITICAL).filter_map(evict).collect()
}

fn limit_passed(pod: &Candidate) -> Option<String> {
    let passes =
        |bytes: u64, limit: Exact| i64::try_from(bytes).unwrap_or(i64::MAX) > limit.units();
    for (name, bytes, limit) in &pod.volumes {
        if limit.units() > 0 && passes(*bytes, *limit) {
            return Some(format!(
                "Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ",
                text(*limit)
            ));
        }
    }
    if let Some(limit) = pod.disk_limit.filter(|it| passes(pod.disk, *it)) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            text(limit)
        ));
    }
    pod.containers.iter().find_map(|it| {
        let limit = it.disk_limit.filter(|limit| limit.units() > 0 && passes(it.disk, *limit))?;
        Some(format!(
            "Container {} exceeded its local ephemeral storage limit {:?}. ",
            it.name,
            text(limit)
        ))
    })
}

/// One threshold that is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Passed {
    pub signal: Signal,
    /// It may be passed for a while.
    pub soft: bool,
}

/// What a look remembers for the next one.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Which thresholds were passed, and since when.
    since: BTreeMap<Passed, Timestamp>,
}

/// What is passed now.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The node calls itself short of these.
    pub short: BTreeSet<Signal>,
    /// Somebody has to go for these: what matters most first, hard thresholds before soft ones.
    pub due: Vec<Passed>,
}

/// Looks at the thresholds. One that was passed is so until what is to be reclaimed at least is free beyond it.
pub fn look(
    policy: &Policy,
    past: &mut Past,
    seen: &BTreeMap<Signal, Observed>,
    now: Timestamp,
) -> Look {
    let mut since = BTreeMap::new();
    for (soft, thresholds) in [(false, &policy.hard), (true, &policy.soft)] {
        for (signal, least) in &thresholds.0 {
            let Some(seen) = seen.get(signal).filter(|it| it.capacity > 0) else { continue };
            let passed = Passed { signal: *signal, soft };
            let before = past.since.get(&passed);
            let reclaim = before.and(policy.minimum_reclaim.0.get(signal));
            let more = reclaim.map_or(0, |it| it.of(seen.capacity));
            if seen.available < least.of(seen.capacity).saturating_add(more) {
                since.insert(passed, before.copied().unwrap_or(now));
            }
        }
    }
    past.since = since;
    let grace = |it: &Passed| policy.soft_graces.0.get(&it.signal).copied().unwrap_or_default();
    let is_due = |(passed, since): &(&Passed, &Timestamp)| {
        !passed.soft || now.since(**since) >= grace(passed)
    };
    let mut due: Vec<Passed> = past.since.iter().filter(is_due).map(|(it, _)| *it).collect();
    due.sort_by_key(|it| (it.signal != Signal::Memory, it.soft, it.signal));
    Look { short: past.since.keys().map(|it| it.signal).collect(), due }
}

/// The one pod that goes for the sake of the others.
pub fn to_reclaim(
    passed: Passed,
    policy: &Policy,
    seen: &BTreeMap<Signal, Observed>,
    pods: &[Candidate],
) -> Option<Eviction> {
    let signal = passed.signal;
    let pod = pods.iter().filter(|it| it.priority < CRITICAL).min_by_key(|it| rank(signal, it))?;
    let mut message = format!("The node was low on resource: {}. ", signal.resource());
    let thresholds = if passed.soft { &policy.soft } else { &policy.hard };
    if let (Some(least), Some(seen)) = (thresholds.0.get(&signal), seen.get(&signal)) {
        let (least, available) = (least.of(seen.capacity), seen.available);
        message += &match signal {
            Signal::NodeInodes | Signal::ImageInodes | Signal::Processes => {
                format!("Threshold quantity: {least}, available: {available}. ")
            }
            Signal::Memory | Signal::NodeDisk | Signal::ImageDisk => {
                format!("Threshold quantity: {}, available: {}. ", bytes(least), kibi(available))
            }
        };
    }
    for it in &pod.containers {
        let (used, request) = match signal {
            Signal::Memory => (it.memory.unwrap_or(0), it.memory_request),
            Signal::NodeDisk | Signal::ImageDisk => (it.disk, it.disk_request),
            Signal::NodeInodes | Signal::ImageInodes | Signal::Processes => continue,
        };
        if used > request {
            message += &format!(
                "Container {} was using {}, request is {}, has larger consumption of {}. ",
                it.name,
                bytes(used),
                bytes(request),
                signal.resource()
            );
        }
    }
    Some(Eviction {
        uid: pod.uid.clone(),
        message,
        starved: Some(signal),
        grace_seconds: passed.soft.then_some(policy.pod_grace_seconds_max),
    })
}

/// The smallest goes first: of unknown use, above its request, of low priority, the greediest.
fn rank(signal: Signal, pod: &Candidate) -> (bool, bool, i32, Reverse<u64>) {
    let (used, request) = match signal {
        Signal::Memory => (pod.memory, pod.memory_request),
        Signal::NodeDisk | Signal::ImageDisk => (Some(pod.disk), pod.disk_request),
        Signal::NodeInodes | Signal::ImageInodes => (Some(pod.inodes), 0),
        Signal::Processes => (pod.processes, 0),
    };
    let above = used.unwrap_or(0).saturating_sub(request);
    (used.is_some(), used.is_some_and(|it| it <= request), pod.priority, Reverse(above))
}

fn bytes(amount: u64) -> String {
    quantity::binary(amount).0
}

/// As upstream shows what it measures: whole kibibytes.
fn kibi(amount: u64) -> String {
    format!("{}Ki", amount / 1024)
}

fn text(limit: Exact) -> String {
    bytes(u64::try_from(limit.units()).unwrap_or(0))
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32, memory: u64, request: u64) -> Candidate {
        Candidate {
            uid: uid.to_owned(),
            priority,
            memory: Some(memory),
            memory_request: request,
            containers: vec![CandidateContainer {
                name: "main".to_owned(),
                memory: Some(memory),
                memory_request: request,
                ..CandidateContainer::default()
            }],
            ..Candidate::default()
        }
    }

    #[test]
    fn a_volume_a_pod_and_a_container_may_take_so_much() {
        let limit = |it: &str| Exact::parse(it).unwrap();
        let fine = Candidate { uid: "fine".to_owned(), disk: 10, ..Candidate::default() };
        let volume = Candidate {
            uid: "v".to_owned(),
            volumes: vec![("data".to_owned(), (1 << 20) + 1, limit("1Mi"))],
            ..Candidate::default()
        };
        let whole = Candidate {
            uid: "w".to_owned(),
            disk: 2 << 20,
            disk_limit: Some(limit("1Mi")),
            ..Candidate::default()
        };
        let container = CandidateContainer {
            name: "c".to_owned(),
            disk: 2 << 20,
            disk_limit: Some(limit("1Mi")),
            ..CandidateContainer::default()
        };
        let part = Candidate { uid: "p".to_owned(), containers: vec![container], ..fine.clone() };
        let critical = Candidate { priority: CRITICAL, ..volume.clone() };
        let gone = over_their_limits(&[
            fine,
            volume,
            whole,
            Candidate { uid: "p".into(), ..part },
            critical,
        ]);
        let said: Vec<(&str, &str)> =
            gone.iter().map(|it| (it.uid.as_str(), it.message.as_str())).collect();
        assert_eq!(
            said,
            [
                ("v", "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". "),
                (
                    "w",
                    "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
                ),
                ("p", "Container c exceeded its local ephemeral storage limit \"1Mi\". "),
            ]
        );
    }

    #[test]
    fn whoever_takes_more_than_asked_goes_before_priority_and_then_the_greediest() {
        let hard = "memory.available<100Mi".parse().unwrap();
        let policy = Policy { hard, ..Policy::default() };
        let seen =
            BTreeMap::from([(Signal::Memory, Observed { available: 50 << 20, capacity: 1 << 30 })]);
        let passed = Passed { signal: Signal::Memory, soft: false };
        assert_eq!(look(&policy, &mut Past::default(), &seen, Timestamp(0)).due, [passed]);
        let mi = 1 << 20;
        let mut pods = vec![
            pod("modest", 0, 10 * mi, 20 * mi),
            pod("greedy", 100, 40 * mi, 20 * mi),
            pod("greedier", 100, 50 * mi, 20 * mi),
            pod("lowly", 10, 21 * mi, 20 * mi),
            pod("system", CRITICAL, 500 * mi, 0),
        ];
        let mut order = Vec::new();
        while let Some(next) = to_reclaim(passed, &policy, &seen, &pods) {
            if order.is_empty() {
                assert_eq!(
                    next.message,
                    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51200Ki. \
                     Container main was using 21Mi, request is 20Mi, has larger consumption of memory. "
                );
            }
            pods.retain(|it| it.uid != next.uid);
            order.push(next.uid);
        }
        assert_eq!(order, ["lowly", "greedier", "greedy", "modest"]);
    }

    #[test]
    fn a_soft_threshold_may_be_passed_for_a_while_and_holds_until_enough_is_free() {
        let policy = Policy {
            hard: "nodefs.available<1Gi".parse().unwrap(),
            soft: "nodefs.available<2Gi".parse().unwrap(),
            soft_graces: "nodefs.available=1m30s".parse().unwrap(),
            minimum_reclaim: "nodefs.available=512Mi".parse().unwrap(),
            pod_grace_seconds_max: 20,
        };
        let mi = |it: u64| {
            BTreeMap::from([(
                Signal::NodeDisk,
                Observed { available: it << 20, capacity: 100 << 30 },
            )])
        };
        let mut past = Past::default();
        let mut at = |seconds: i64, available: u64| {
            look(&policy, &mut past, &mi(available), Timestamp::from_seconds(seconds))
        };
        let (soft, hard) = (
            Passed { signal: Signal::NodeDisk, soft: true },
            Passed { signal: Signal::NodeDisk, soft: false },
        );
        let short = BTreeSet::from([Signal::NodeDisk]);
        assert_eq!(at(0, 3000).short, BTreeSet::new());
        assert_eq!((at(10, 1900).short, at(10, 1900).due), (short.clone(), vec![]));
        assert_eq!(at(99, 1900).due, []);
        assert_eq!(at(100, 1900).due, [soft]);
        assert_eq!(at(110, 2100).due, [soft], "less than 512Mi beyond it are free");
        assert_eq!(at(120, 2600).short, BTreeSet::new());
        assert_eq!(at(130, 1900).due, [], "it begins anew");
        assert_eq!(at(140, 1000).due, [hard]);
        assert_eq!(at(150, 1100).due, [hard]);
        assert_eq!(at(160, 1600).due, []);

        let pods = [pod("p", 0, 0, 0)];
        let evict = |passed: Passed| to_reclaim(passed, &policy, &mi(900), &pods).unwrap();
        assert_eq!(evict(soft).grace_seconds, Some(20));
        assert_eq!(evict(hard).grace_seconds, None);
        let said = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 921600Ki. ";
        assert_eq!(evict(hard).message, said);
    }

    #[test]
    fn who_has_the_most_processes_goes_when_their_numbers_run_out() {
        let hard = "pid.available<10%".parse().unwrap();
        let policy = Policy { hard, ..Policy::default() };
        let seen =
            BTreeMap::from([(Signal::Processes, Observed { available: 900, capacity: 10_000 })]);
        let passed = look(&policy, &mut Past::default(), &seen, Timestamp(0)).due[0];
        let many = |uid: &str, processes: u64| Candidate {
            processes: Some(processes),
            ..pod(uid, 0, 0, 0)
        };
        let gone = to_reclaim(passed, &policy, &seen, &[many("a", 3), many("b", 5000)]).unwrap();
        assert_eq!(gone.uid, "b");
        let said = "The node was low on resource: pids. Threshold quantity: 1000, available: 900. ";
        assert_eq!(gone.message, said);
    }
}
