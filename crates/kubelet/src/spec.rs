//! From a pod to the messages that CRI wants, as pure functions: sandbox, containers, environment, files.
//!
//! Upstream: `pkg/kubelet/kuberuntime/kuberuntime_{sandbox,container,container_linux}.go`, `kubelet_pods.go` (1.36).

pub mod container;
pub mod dns;
pub mod downward;
pub mod env_files;
pub mod environment;
pub mod expansion;
pub mod hosts;
pub mod resources;
pub mod sandbox;
pub mod security;

use crate::runtime::message;
use api::{Object, core::v1::Pod};
use std::path::{Path, PathBuf};

/// What a node knows of itself and puts into its pods.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub node_name: String,
    /// InternalIP.
    pub node_address: String,
    pub kubelet_dir: PathBuf,
    /// `DATA/log/pods`
    pub log_dir: PathBuf,
    /// Processes and threads of one pod; none: no limit.
    pub pod_processes_max: Option<u32>,
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub cluster_dns: String,
    pub cluster_domain: String,
    /// The node's own resolv.conf.
    pub host_dns: message::DnsConfig,
    /// Below it, pods have their cgroups by quality of service: `/stanchion-1a2b`.
    pub cgroup_root: String,
    /// The kernel enforces AppArmor profiles.
    pub app_armor: bool,
    /// The node's own /etc/hosts.
    pub host_hosts: String,
    /// What the kernel of this machine shows of thermal throttling: masked in containers.
    pub masked_paths: Vec<String>,
}

impl Facts {
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.kubelet_dir.join("pods").join(uid)
    }

    pub fn hosts_file(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("etc-hosts")
    }

    /// What a container writes before it ends, one file for each run.
    pub fn termination_log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod_dir(uid).join("containers").join(container).join(attempt.to_string())
    }

    /// `DATA/log/pods/default_web-0_7c9e…`
    pub fn log_dir_of(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.log_dir.join(format!("{namespace}_{name}_{uid}"))
    }

    pub fn pod_log_dir(&self, pod: &Pod) -> PathBuf {
        self.log_dir_of(pod.namespace(), pod.name(), pod.uid())
    }
}

/// Below a pod's log directory.
pub fn log_file(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The host name of the pod and, if it has a subdomain, its domain.
/// Upstream: `kubelet_pods.go` (GeneratePodHostNameAndDomain).
pub fn host_name(pod: &Pod, facts: &Facts) -> (String, String) {
    let spec = pod.spec.as_ref();
    let own = spec.and_then(|it| it.hostname.as_deref()).filter(|it| !it.is_empty());
    let instead = spec.and_then(|it| it.hostname_override.as_deref());
    let mut name = instead.or(own).unwrap_or(pod.name());
    // A host name has at most 63 bytes, and does not end with '-' or '.'.
    if name.len() > 63 {
        name = name[..63].trim_end_matches(['-', '.']);
    }
    let subdomain = spec.and_then(|it| it.subdomain.as_deref());
    let subdomain = subdomain.filter(|it| !it.is_empty() && instead.is_none());
    let domain =
        subdomain.map(|it| format!("{it}.{}.svc.{}", pod.namespace(), facts.cluster_domain));
    (name.to_owned(), domain.unwrap_or_default())
}

/// What `hostname` says in the pod. The kernel refuses more than 64 bytes.
pub fn kernel_name(pod: &Pod, facts: &Facts) -> String {
    let (name, domain) = host_name(pod, facts);
    let whole = pod.spec.as_ref().is_some_and(|it| it.set_hostname_as_fqdn == Some(true));
    if whole && !domain.is_empty() { format!("{name}.{domain}") } else { name }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
