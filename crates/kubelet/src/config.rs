//! What a kubelet is told at its start.

use std::{path::PathBuf, sync::Arc};
use stdx::{Clock, Entropy};

#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// InternalIP of the node, where its server listens and what pods with the host's network have.
    pub node_address: String,
    /// `/var/lib/kubelet`: pods' volumes, plugins. Never a symlink.
    pub kubelet_dir: PathBuf,
    /// `DATA/log/pods`
    pub log_dir: PathBuf,
    pub data_dir: PathBuf,
    /// Pods that this node runs by itself, a file each; it may be missing.
    pub manifests: PathBuf,
    pub pod_cidr: String,
    pub cluster_dns: String,
    pub cluster_domain: String,
    /// 0: any free one; the node's status says which.
    pub port: u16,
    /// Certificate of this node, and the authority of clients that may ask it. None: no server.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether it says that the node is there. Not where it only takes the node's pods down.
    pub registers: bool,
    /// Pods' cgroups lie below it: `/stanchion-1a2b`. Empty with the embedded runtime, which has a place of its own.
    pub cgroup_root: String,
    /// Tells several instances on one machine apart.
    pub instance: String,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// `v1.36.0`, as the node's kubeletVersion.
    pub version: String,
    /// What pods may have of this machine.
    pub limits: crate::Limits,
    /// How much of the node may be used up.
    pub upkeep: crate::Upkeep,
}
