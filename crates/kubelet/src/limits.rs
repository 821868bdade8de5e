//! What of a machine its pods may have: how many they may be, and what is set aside for others.
//!
//! Upstream: `--max-pods`, `--pod-max-pids`, `--kube-reserved`, `--system-reserved`;
//! `pkg/kubelet/cm/node_container_manager_linux.go` (GetNodeAllocatableReservation), 1.36.

use crate::plan::eviction::{Signal, Thresholds};
use api::{
    k8s::apimachinery::pkg::api::resource::Quantity,
    meta::{Exact, quantity},
};
use std::{collections::BTreeMap, str::FromStr};

/// What pods may have of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub pods_max: u32,
    /// Processes and threads of one pod; none: as many as the machine has.
    pub pod_processes_max: Option<u32>,
    /// For the programs of the cluster, and for those of the machine.
    pub kube_reserved: Reserved,
    pub system_reserved: Reserved,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            pods_max: 110,
            pod_processes_max: None,
            kube_reserved: Reserved::default(),
            system_reserved: Reserved::default(),
        }
    }
}

/// `cpu=100m,memory=200Mi,ephemeral-storage=1Gi`; processes are nobody's to set aside: pods are not counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved(BTreeMap<String, Exact>);

impl FromStr for Reserved {
    type Err = String;

    fn from_str(text: &str) -> Result<Reserved, String> {
        let mut all = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let (name, amount) =
                part.split_once('=').ok_or_else(|| format!("{part:?} is not RESOURCE=QUANTITY"))?;
            if !["cpu", "memory", "ephemeral-storage"].contains(&name) {
                return Err(format!("cannot reserve {name:?} resource"));
            }
            let amount =
                Exact::parse(amount).ok_or_else(|| format!("{amount:?} is no quantity"))?;
            if amount < Exact::ZERO {
                return Err(format!("resource quantity for {name:?} cannot be negative"));
            }
            if all.insert(name.to_owned(), amount).is_some() {
                return Err(format!("{name} is named twice"));
            }
        }
        Ok(Reserved(all))
    }
}

impl Limits {
    /// What is left for pods of CPU, memory and disk: neither reserved, nor kept free by eviction.
    pub fn allocatable(
        &self,
        capacity: &BTreeMap<String, Quantity>,
        hard: &Thresholds,
    ) -> BTreeMap<String, Quantity> {
        let kept = |name: &str, whole: Exact| {
            let signal = match name {
                "memory" => Signal::Memory,
                "ephemeral-storage" => Signal::NodeDisk,
                _ => return Exact::ZERO,
            };
            let bytes = hard
                .0
                .get(&signal)
                .map_or(0, |it| it.of(u64::try_from(whole.units()).unwrap_or(0)));
            Exact::from_units(i64::try_from(bytes).unwrap_or(i64::MAX))
        };
        let reserved = |name: &str| {
            let of = |it: &Reserved| it.0.get(name).copied().unwrap_or_default();
            of(&self.kube_reserved) + of(&self.system_reserved)
        };
        let left = |(name, whole): (&String, &Quantity)| {
            let exact = Exact::of(whole);
            let taken = reserved(name) + kept(name, exact);
            let left = match exact - taken {
                _ if taken == Exact::ZERO => return (name.clone(), whole.clone()),
                left if left > Exact::ZERO => left,
                _ => Exact::ZERO,
            };
            let shown = match name.as_str() {
                "cpu" => Quantity(format!("{}m", left.milli())),
                _ => quantity::binary(u64::try_from(left.units()).unwrap_or(0)),
            };
            (name.clone(), shown)
        };
        capacity.iter().map(left).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_or_kept_free_is_not_for_pods() {
        let capacity: BTreeMap<String, Quantity> = [
            ("cpu", "4"),
            ("memory", "8388608Ki"),
            ("ephemeral-storage", "104857600Ki"),
            ("pods", "110"),
        ]
        .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
        .into();
        let limits = Limits {
            kube_reserved: "cpu=100m,memory=1Gi".parse().unwrap(),
            system_reserved: "cpu=400m,ephemeral-storage=10Gi".parse().unwrap(),
            ..Limits::default()
        };
        let hard: Thresholds = "memory.available<1Gi,nodefs.available<10%".parse().unwrap();
        let left = limits.allocatable(&capacity, &hard);
        let shown: Vec<(&str, &str)> =
            left.iter().map(|(name, it)| (name.as_str(), it.0.as_str())).collect();
        let expected =
            [("cpu", "3500m"), ("ephemeral-storage", "80Gi"), ("memory", "6Gi"), ("pods", "110")];
        assert_eq!(shown, expected);
        let all = Limits { kube_reserved: "cpu=8".parse().unwrap(), ..Limits::default() };
        assert_eq!(all.allocatable(&capacity, &Thresholds::default())["cpu"].0, "0m");
        for bad in ["cpu", "gpu=1", "pid=100", "cpu=x", "cpu=-1", "cpu=1,cpu=2"] {
            assert!(bad.parse::<Reserved>().is_err(), "{bad}");
        }
    }
}
