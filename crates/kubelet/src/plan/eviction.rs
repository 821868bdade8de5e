//! Which pods go when they take more of the disk than they may, or when the node runs short.
//!
//! Upstream: `pkg/kubelet/eviction/{eviction_manager,helpers}.go` (1.36). Deviation: a tenth of a large disk is plenty,
//! so the default for disks holds only below an absolute amount too.

use api::meta::{Exact, quantity};
use std::{cmp::Reverse, collections::BTreeMap, fmt};

/// Pods of this priority and above are the cluster's own.
const CRITICAL: i32 = 2_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    Memory,
    NodeDisk,
    NodeInodes,
    ImageDisk,
}

/// How little may be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    Bytes(u64),
    /// Of the capacity; never more than so many bytes.
    Percent(u64, u64),
}

/// `memory.available<100Mi,nodefs.available<10%`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds(pub BTreeMap<Signal, Least>);

impl Default for Thresholds {
    fn default() -> Thresholds {
        /// A tenth of a large disk is plenty.
        const DISK_MAX: u64 = 2 << 30;
        Thresholds(BTreeMap::from([
            (Signal::Memory, Least::Bytes(100 << 20)),
            (Signal::NodeDisk, Least::Percent(10, DISK_MAX)),
            (Signal::NodeInodes, Least::Percent(5, u64::MAX)),
            (Signal::ImageDisk, Least::Percent(15, DISK_MAX)),
        ]))
    }
}

impl std::str::FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Thresholds, String> {
        let mut all = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let (name, least) =
                part.split_once('<').ok_or_else(|| format!("{part:?} is not SIGNAL<QUANTITY"))?;
            let signal = match name {
                "memory.available" => Signal::Memory,
                "nodefs.available" => Signal::NodeDisk,
                "nodefs.inodesFree" => Signal::NodeInodes,
                "imagefs.available" => Signal::ImageDisk,
                other => return Err(format!("unsupported eviction signal {other:?}")),
            };
            let least = match least.strip_suffix('%') {
                Some(percent) => {
                    let percent: u64 = percent
                        .parse()
                        .ok()
                        .filter(|it| *it <= 100)
                        .ok_or_else(|| format!("{least:?} is no percentage"))?;
                    Least::Percent(percent, u64::MAX)
                }
                None => {
                    let bytes =
                        Exact::parse(least).ok_or_else(|| format!("{least:?} is no quantity"))?;
                    Least::Bytes(u64::try_from(bytes.units()).unwrap_or(0))
                }
            };
            if all.insert(signal, least).is_some() {
                return Err(format!("{name} is named twice"));
            }
        }
        Ok(Thresholds(all))
    }
}

impl Least {
    fn of(self, capacity: u64) -> u64 {
        match self {
            Least::Bytes(bytes) => bytes,
            Least::Percent(percent, most) => (capacity / 100 * percent).min(most),
        }
    }
}

impl Signal {
    /// The resource that is short.
    fn resource(self) -> &'static str {
        match self {
            Signal::Memory => "memory",
            Signal::NodeDisk | Signal::ImageDisk => "ephemeral-storage",
            Signal::NodeInodes => "inodes",
        }
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
}

/// Pods that take more of the disk than they may.
pub fn over_their_limits(pods: &[Candidate]) -> Vec<Eviction> {
    let evict = |pod: &Candidate| {
        let message = limit_passed(pod)?;
        Some(Eviction { uid: pod.uid.clone(), message, starved: None })
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

/// What the node is short of, memory first.
pub fn starved(thresholds: &Thresholds, seen: &BTreeMap<Signal, Observed>) -> Vec<Signal> {
    let short = |(signal, least): (&Signal, &Least)| {
        let seen = seen.get(signal).filter(|it| it.capacity > 0)?;
        (seen.available < least.of(seen.capacity)).then_some(*signal)
    };
    thresholds.0.iter().filter_map(short).collect()
}

/// The one pod that goes for the sake of the others.
pub fn to_reclaim(
    signal: Signal,
    thresholds: &Thresholds,
    seen: &BTreeMap<Signal, Observed>,
    pods: &[Candidate],
) -> Option<Eviction> {
    let pod = pods.iter().filter(|it| it.priority < CRITICAL).min_by_key(|it| rank(signal, it))?;
    let mut message = format!("The node was low on resource: {}. ", signal.resource());
    if let (Some(least), Some(seen)) = (thresholds.0.get(&signal), seen.get(&signal)) {
        message += &format!(
            "Threshold quantity: {}, available: {}. ",
            bytes(least.of(seen.capacity)),
            kibi(seen.available)
        );
    }
    for it in &pod.containers {
        let (used, request) = match signal {
            Signal::Memory => (it.memory.unwrap_or(0), it.memory_request),
            Signal::NodeDisk | Signal::ImageDisk => (it.disk, it.disk_request),
            Signal::NodeInodes => continue,
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
    Some(Eviction { uid: pod.uid.clone(), message, starved: Some(signal) })
}

/// The smallest goes first: of unknown use, above its request, of low priority, the greediest.
fn rank(signal: Signal, pod: &Candidate) -> (bool, bool, i32, Reverse<u64>) {
    let (used, request) = match signal {
        Signal::Memory => (pod.memory, pod.memory_request),
        Signal::NodeDisk | Signal::ImageDisk => (Some(pod.disk), pod.disk_request),
        Signal::NodeInodes => (Some(pod.inodes), 0),
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
        let thresholds: Thresholds = "memory.available<100Mi".parse().unwrap();
        let seen =
            BTreeMap::from([(Signal::Memory, Observed { available: 50 << 20, capacity: 1 << 30 })]);
        assert_eq!(starved(&thresholds, &seen), [Signal::Memory]);
        let mi = 1 << 20;
        let mut pods = vec![
            pod("modest", 0, 10 * mi, 20 * mi),
            pod("greedy", 100, 40 * mi, 20 * mi),
            pod("greedier", 100, 50 * mi, 20 * mi),
            pod("lowly", 10, 21 * mi, 20 * mi),
            pod("system", CRITICAL, 500 * mi, 0),
        ];
        let mut order = Vec::new();
        while let Some(next) = to_reclaim(Signal::Memory, &thresholds, &seen, &pods) {
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
    fn thresholds_are_read_as_upstream_writes_them() {
        let read: Thresholds = "memory.available<1Gi, nodefs.available<10%".parse().unwrap();
        assert_eq!(read.0[&Signal::Memory], Least::Bytes(1 << 30));
        assert_eq!(read.0[&Signal::NodeDisk], Least::Percent(10, u64::MAX));
        for bad in ["memory", "memory.available<x", "pid.available<1", "nodefs.available<101%"] {
            assert!(bad.parse::<Thresholds>().is_err(), "{bad}");
        }
        let large = Observed { available: 20 << 30, capacity: 252 << 30 };
        let seen = BTreeMap::from([(Signal::NodeDisk, large)]);
        assert_eq!(starved(&Thresholds::default(), &seen), [], "a tenth of a large disk is plenty");
        assert_eq!(starved(&read, &seen), [Signal::NodeDisk], "unless somebody says so");
    }
}
