//! When a node is short of something, as flags say it: `memory.available<100Mi`, `nodefs.available=1m30s`.
//!
//! Upstream: `pkg/kubelet/eviction/helpers.go` (ParseThresholdConfig), 1.36.

use super::Signal;
use api::meta::Exact;
use std::{collections::BTreeMap, str::FromStr, time::Duration};

/// When pods go for the sake of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// At once.
    pub hard: Thresholds,
    /// Once they were passed for so long …
    pub soft: Thresholds,
    pub soft_graces: Graces,
    /// … and then their pods have so many seconds at most.
    pub pod_grace_seconds_max: i64,
    /// So much is freed beyond a threshold before it counts as kept.
    pub minimum_reclaim: Reclaims,
}

impl Policy {
    /// Hard thresholds as upstream has them, and nothing else.
    pub fn usual() -> Policy {
        Policy { hard: Thresholds::usual(), ..Policy::default() }
    }

    /// What is missing: a soft threshold means nothing without the time for which it may be passed.
    pub fn check(&self) -> Result<(), String> {
        match self.soft.0.keys().find(|it| !self.soft_graces.0.contains_key(it)) {
            Some(signal) => Err(format!(
                "grace period must be specified for the soft eviction threshold {}",
                name(*signal)
            )),
            None => Ok(()),
        }
    }
}

/// How little may be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    Bytes(u64),
    /// Of the capacity; never more than so many bytes.
    Percent(u64, u64),
}

/// `memory.available<100Mi,nodefs.available<10%`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thresholds(pub BTreeMap<Signal, Least>);

impl Thresholds {
    pub fn usual() -> Thresholds {
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

impl FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Thresholds, String> {
        let mut all = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let (name, least) =
                part.split_once('<').ok_or_else(|| format!("{part:?} is not SIGNAL<QUANTITY"))?;
            if all.insert(signal(name)?, least.parse()?).is_some() {
                return Err(format!("{name} is named twice"));
            }
        }
        Ok(Thresholds(all))
    }
}

impl FromStr for Least {
    type Err = String;

    fn from_str(text: &str) -> Result<Least, String> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|it: &u64| *it <= 100);
            let percent = percent.ok_or_else(|| format!("{text:?} is no percentage"))?;
            return Ok(Least::Percent(percent, u64::MAX));
        }
        let amount = Exact::parse(text).ok_or_else(|| format!("{text:?} is no quantity"))?;
        if amount < Exact::ZERO {
            return Err(format!("{text:?} is negative"));
        }
        Ok(Least::Bytes(amount.units().unsigned_abs()))
    }
}

/// For how long soft thresholds may be passed: `memory.available=1m30s`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graces(pub BTreeMap<Signal, Duration>);

impl FromStr for Graces {
    type Err = String;

    fn from_str(text: &str) -> Result<Graces, String> {
        pairs(text, |it| duration(it).ok_or_else(|| format!("{it:?} is no duration"))).map(Graces)
    }
}

/// How much is freed beyond a threshold: `nodefs.available=500Mi`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaims(pub BTreeMap<Signal, Least>);

impl FromStr for Reclaims {
    type Err = String;

    fn from_str(text: &str) -> Result<Reclaims, String> {
        pairs(text, str::parse).map(Reclaims)
    }
}

/// `SIGNAL=VALUE,…`
fn pairs<T>(
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<BTreeMap<Signal, T>, String> {
    let mut all = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (name, value) =
            part.split_once('=').ok_or_else(|| format!("{part:?} is not SIGNAL=VALUE"))?;
        if all.insert(signal(name)?, read(value)?).is_some() {
            return Err(format!("{name} is named twice"));
        }
    }
    Ok(all)
}

const NAMES: [(&str, Signal); 6] = [
    ("memory.available", Signal::Memory),
    ("nodefs.available", Signal::NodeDisk),
    ("nodefs.inodesFree", Signal::NodeInodes),
    ("imagefs.available", Signal::ImageDisk),
    ("imagefs.inodesFree", Signal::ImageInodes),
    ("pid.available", Signal::Processes),
];

fn signal(name: &str) -> Result<Signal, String> {
    let found = NAMES.iter().find(|(it, _)| *it == name).map(|(_, signal)| *signal);
    found.ok_or_else(|| format!("unsupported eviction signal {name:?}"))
}

fn name(signal: Signal) -> &'static str {
    NAMES.iter().find(|(_, it)| *it == signal).map_or("", |(name, _)| name)
}

/// `1h2m3s`, `90s`, `500ms`
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let unit = &unit[..unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len())];
        let millis = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        whole = whole.checked_add(Duration::from_millis(count.checked_mul(millis)?))?;
        rest = &rest[digits + unit.len()..];
    }
    (!text.is_empty()).then_some(whole)
}

impl Least {
    /// The amount, of so much in all.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Least::Bytes(bytes) => bytes,
            Least::Percent(percent, most) => (capacity / 100 * percent).min(most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::eviction::{Observed, Past, look};
    use stdx::Timestamp;

    #[test]
    fn thresholds_are_read_as_upstream_writes_them() {
        let read: Thresholds = "memory.available<1Gi, nodefs.available<10%".parse().unwrap();
        assert_eq!(read.0[&Signal::Memory], Least::Bytes(1 << 30));
        assert_eq!(read.0[&Signal::NodeDisk], Least::Percent(10, u64::MAX));
        for bad in [
            "memory",
            "memory.available<x",
            "cpu.available<1",
            "nodefs.available<101%",
            "memory.available<-100m",
        ] {
            assert!(bad.parse::<Thresholds>().is_err(), "{bad}");
        }
        let graces: Graces = "memory.available=1m30s,nodefs.available=500ms".parse().unwrap();
        assert_eq!(graces.0[&Signal::Memory], Duration::from_secs(90));
        for bad in ["memory.available=90", "memory.available=s", "memory.available=", "x=1s"] {
            assert!(bad.parse::<Graces>().is_err(), "{bad}");
        }
        let soft = Policy { soft: read, soft_graces: graces, ..Policy::default() };
        assert_eq!(soft.check(), Ok(()));
        let none = Policy { soft_graces: Graces::default(), ..soft };
        let why = "grace period must be specified for the soft eviction threshold memory.available";
        assert_eq!(none.check().unwrap_err(), why);
    }

    #[test]
    fn a_tenth_of_a_large_disk_is_plenty_unless_somebody_says_so() {
        let large = Observed { available: 20 << 30, capacity: 252 << 30 };
        let seen = BTreeMap::from([(Signal::NodeDisk, large)]);
        let short = |policy: &Policy| look(policy, &mut Past::default(), &seen, Timestamp(0)).short;
        assert!(short(&Policy::usual()).is_empty());
        let hard = "nodefs.available<10%".parse().unwrap();
        assert!(short(&Policy { hard, ..Policy::default() }).contains(&Signal::NodeDisk));
    }
}
