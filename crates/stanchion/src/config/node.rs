//! Flags of a node, whether it lives in the server's process or on a machine of its own.

use super::{DataDir, Settings, host_name, instance, kubelet_dir};
use anyhow::{Result, bail};
use clap::Args;
use std::path::PathBuf;

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
    /// Free so much, or evict pods: `memory.available<100Mi,nodefs.available<10%`
    /// [default: upstream's, for disks below 2Gi only]
    #[arg(long, value_name = "LIST")]
    pub(crate) eviction_hard: Option<kubelet::plan::eviction::Thresholds>,
    /// Percent of the disk above which images go that nobody uses
    #[arg(long, default_value_t = 85)]
    pub(crate) image_gc_high_threshold: u64,
    /// Percent of the disk at which that ends
    #[arg(long, default_value_t = 80)]
    pub(crate) image_gc_low_threshold: u64,
    /// A larger log of a container is rotated
    #[arg(long, default_value = "10Mi")]
    pub(crate) container_log_max_size: Bytes,
    /// Files that are kept of a container's log
    #[arg(long, default_value_t = 5)]
    pub(crate) container_log_max_files: usize,
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
                ..kubelet::ImageLimits::default()
            },
            eviction: self.eviction_hard.clone().unwrap_or_default(),
        }
    }
}
