//! Flags of a node, whether it lives in the server's process or on a machine of its own.

use super::{DataDir, Settings, host_name, instance, kubelet_dir};
use anyhow::{Result, bail};
use clap::Args;
use kubelet::plan::eviction::{Graces, Policy, Reclaims, Thresholds, duration};
use std::{path::PathBuf, time::Duration};

/// What concerns the node alone, wherever its world comes from.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct NodeFlags {
    /// Name of this node [default: the host's name]
    #[arg(long)]
    pub(crate) node_name: Option<String>,
    /// Where volumes are mounted and drivers register; must not be a symlink
    /// [default: /var/lib/kubelet with the default data dir, else DATA/kubelet]
    #[arg(long)]
    pub(crate) kubelet_dir: Option<PathBuf>,
    /// Port of the node's own API; 0: any free one
    #[arg(long, default_value_t = 10250)]
    pub(crate) kubelet_port: u16,
    /// Container runtime: embedded
    #[arg(long, default_value = "embedded")]
    pub(crate) runtime_endpoint: String,
    /// Directory of static pods: this node runs what lies there, a file each, and shows it as mirror pods [default: manifests in the data dir]
    #[arg(long, value_name = "DIR")]
    pub(crate) pod_manifest_path: Option<PathBuf>,
    /// Pods on this node at most
    #[arg(long, default_value_t = 110)]
    pub(crate) max_pods: u32,
    /// Processes and threads in one pod at most [default: no limit]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pod_max_pids: Option<u32>,
    /// Not for pods, but for the programs of the cluster: `cpu=100m,memory=200Mi,ephemeral-storage=1Gi`
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    pub(crate) kube_reserved: kubelet::Reserved,
    /// Not for pods, but for the programs of the machine, in the same way
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    pub(crate) system_reserved: kubelet::Reserved,
    /// Free so much, or evict pods at once: `memory.available<100Mi,nodefs.available<10%`; also nodefs.inodesFree,
    /// imagefs.available, imagefs.inodesFree, pid.available [default: upstream's, for disks below 2Gi only]
    #[arg(long, value_name = "LIST")]
    pub(crate) eviction_hard: Option<Thresholds>,
    /// Free so much, or evict pods after a while: `memory.available<1Gi`
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    pub(crate) eviction_soft: Thresholds,
    /// That while, for each of them: `memory.available=1m30s`
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    pub(crate) eviction_soft_grace_period: Graces,
    /// Seconds that pods have at most to end when a soft threshold evicts them
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) eviction_max_pod_grace_period: u32,
    /// Free so much beyond a threshold that was passed: `nodefs.available=500Mi`
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    pub(crate) eviction_minimum_reclaim: Reclaims,
    /// For so long a node still calls itself short of what it was short of
    #[arg(long, value_name = "DURATION", default_value = "5m0s")]
    pub(crate) eviction_pressure_transition_period: Period,
    /// Percent of the disk above which images go that nobody uses
    #[arg(long, default_value_t = 85)]
    pub(crate) image_gc_high_threshold: u64,
    /// Percent of the disk at which that ends
    #[arg(long, default_value_t = 80)]
    pub(crate) image_gc_low_threshold: u64,
    /// Younger images stay: the pod that wants them may be on its way
    #[arg(long, value_name = "DURATION", default_value = "2m0s")]
    pub(crate) minimum_image_ttl_duration: Period,
    /// A larger log of a container is rotated
    #[arg(long, default_value = "10Mi")]
    pub(crate) container_log_max_size: Bytes,
    /// Files that are kept of a container's log
    #[arg(long, default_value_t = 5)]
    pub(crate) container_log_max_files: usize,
}

/// `1m30s`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period(pub(crate) Duration);

impl std::str::FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Period, String> {
        duration(text).map(Period).ok_or_else(|| "not a time such as 1m30s".to_owned())
    }
}

/// `10Mi`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let amount = api::meta::Exact::parse(text).map(api::meta::Exact::units);
        let bytes = amount.and_then(|it| u64::try_from(it).ok()).filter(|it| *it > 0);
        bytes.map(Bytes).ok_or_else(|| "not a size such as 10Mi".to_owned())
    }
}

impl NodeFlags {
    pub(crate) fn settle(&self, data: &DataDir) -> Result<Settings> {
        if self.runtime_endpoint != "embedded" {
            bail!("use runtime {:?}: only \"embedded\" is there", self.runtime_endpoint);
        }
        if let Err(why) = self.eviction().check() {
            bail!("use --eviction-soft: {why}");
        }
        let data_dir = data.open()?;
        let kubelet_dir = kubelet_dir(&data_dir, self.kubelet_dir.as_deref());
        if kubelet_dir.is_symlink() {
            bail!("use kubelet dir {}: it is a symlink", kubelet_dir.display());
        }
        Ok(Settings {
            instance: instance(&data_dir),
            kubeconfig: data_dir.join("admin.kubeconfig"),
            node_name: match &self.node_name {
                Some(name) => name.clone(),
                None => host_name()?,
            },
            kubelet_dir,
            data_dir,
        })
    }

    /// How much of the node may be used up.
    pub(crate) fn upkeep(&self) -> kubelet::Upkeep {
        kubelet::Upkeep {
            logs: kubelet::LogLimits {
                bytes_max: self.container_log_max_size.0,
                files_max: self.container_log_max_files.max(2),
            },
            images: kubelet::ImageLimits {
                high_percent: self.image_gc_high_threshold.min(100),
                low_percent: self.image_gc_low_threshold.min(100),
                age_min: self.minimum_image_ttl_duration.0,
            },
            eviction: self.eviction(),
            pressure_transition: self.eviction_pressure_transition_period.0,
        }
    }

    fn eviction(&self) -> Policy {
        Policy {
            hard: self.eviction_hard.clone().unwrap_or_else(Thresholds::usual),
            soft: self.eviction_soft.clone(),
            soft_graces: self.eviction_soft_grace_period.clone(),
            pod_grace_seconds_max: i64::from(self.eviction_max_pod_grace_period),
            minimum_reclaim: self.eviction_minimum_reclaim.clone(),
        }
    }

    /// What pods may have of this machine.
    pub(crate) fn limits(&self) -> kubelet::Limits {
        kubelet::Limits {
            pods_max: self.max_pods,
            pod_processes_max: self.pod_max_pids,
            kube_reserved: self.kube_reserved.clone(),
            system_reserved: self.system_reserved.clone(),
        }
    }
}
