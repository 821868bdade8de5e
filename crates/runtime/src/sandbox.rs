//! One sandbox: a pod's namespaces, held by a shim.

use crate::{
    cgroup::Group,
    error::{Error, Result},
    link::Link,
};
use rpc::cri::{self, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxState};
use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) directory: PathBuf,
    pub(crate) config: PodSandboxConfig,
    pub(crate) handler: String,
    pub(crate) created_at: i64,
    pub(crate) group: Group,
    pub(crate) hold: Mutex<Hold>,
    /// Taken while the sandbox is made, stopped or removed.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

/// What keeps the sandbox alive.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    pub(crate) link: Option<Link>,
    pub(crate) shim: i32,
    pub(crate) addresses: Vec<String>,
    /// Its network was taken back.
    pub(crate) detached: bool,
    pub(crate) ready: bool,
}

impl Sandbox {
    pub(crate) fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to its shim, while it lives.
    pub(crate) fn link(&self) -> Result<Link> {
        self.hold().link.clone().ok_or_else(|| Error::SandboxGone(self.id.clone()))
    }

    pub(crate) fn namespaces(&self) -> NamespaceOption {
        let linux = self.config.linux.as_ref();
        let security = linux.and_then(|linux| linux.security_context.as_ref());
        security.and_then(|security| security.namespace_options.clone()).unwrap_or_default()
    }

    pub(crate) fn host_network(&self) -> bool {
        self.namespaces().network() == NamespaceMode::Node
    }

    pub(crate) fn host_ipc(&self) -> bool {
        self.namespaces().ipc() == NamespaceMode::Node
    }

    fn state(&self) -> PodSandboxState {
        let hold = self.hold();
        if hold.ready && hold.link.is_some() {
            PodSandboxState::SandboxReady
        } else {
            PodSandboxState::SandboxNotready
        }
    }

    pub(crate) fn summary(&self) -> cri::PodSandbox {
        cri::PodSandbox {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state() as i32,
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.handler.clone(),
        }
    }

    pub(crate) fn status(&self) -> cri::PodSandboxStatus {
        let addresses = self.hold().addresses.clone();
        let mut addresses = addresses.into_iter();
        let network = cri::PodSandboxNetworkStatus {
            ip: addresses.next().unwrap_or_default(),
            additional_ips: addresses.map(|ip| cri::PodIp { ip }).collect(),
        };
        let namespaces = cri::Namespace { options: Some(self.namespaces()) };
        cri::PodSandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state() as i32,
            created_at: self.created_at,
            network: Some(network),
            linux: Some(cri::LinuxPodSandboxStatus { namespaces: Some(namespaces) }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.handler.clone(),
        }
    }
}
