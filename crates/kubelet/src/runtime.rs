//! What the kubelet asks of a container runtime: CRI's verbs, and what it sees of a pod in plain values.
//!
//! Requests are CRI messages as they are; answers are reduced to what deciding needs.

pub mod cri;

use std::{cmp::Reverse, pin::Pin, sync::Arc};
use stdx::{BoxFuture, Timestamp};

pub use rpc::cri as message;

pub type Result<T> = std::result::Result<T, RuntimeError>;

/// A call that the runtime refused or could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    pub operation: &'static str,
    pub message: String,
    pub not_found: bool,
    /// It took longer than it was given.
    pub is_late: bool,
}

impl RuntimeError {
    pub fn new(operation: &'static str, message: impl Into<String>) -> RuntimeError {
        RuntimeError { operation, message: message.into(), not_found: false, is_late: false }
    }
}

/// Uids of pods in which something happened. It ends when the runtime is lost; what happened meanwhile is not told.
pub type Changes = Pin<Box<dyn futures_util::Stream<Item = Arc<str>> + Send>>;

/// CRI's verbs.
pub trait Runtime: Send + Sync {
    /// Why containers cannot run now, and the runtime's own version; asked for the node's readiness.
    fn condition(&self) -> BoxFuture<'_, Result<Condition>>;

    /// Every pod that the runtime has a sandbox of.
    fn pods(&self) -> BoxFuture<'_, Result<Vec<RunningPod>>>;

    /// Everything that exists of one pod, the newest first.
    fn observe<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Observed>>;

    /// From now on.
    fn changes(&self) -> BoxFuture<'_, Result<Changes>>;

    /// `handler`: as a RuntimeClass names it; empty for the runtime's own choice.
    fn run_sandbox(
        &self,
        config: message::PodSandboxConfig,
        handler: String,
    ) -> BoxFuture<'_, Result<String>>;
    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// `None`: the image is not on this machine.
    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>>>;
    fn pull_image(&self, request: message::PullImageRequest) -> BoxFuture<'_, Result<PulledImage>>;
    fn remove_image<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    fn images(&self) -> BoxFuture<'_, Result<Vec<message::Image>>>;

    fn create_container(
        &self,
        request: message::CreateContainerRequest,
    ) -> BoxFuture<'_, Result<String>>;
    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Returns once the container has ended: by itself, or killed after `grace_seconds`.
    fn stop_container<'a>(&'a self, id: &'a str, grace_seconds: i64) -> BoxFuture<'a, Result<()>>;
    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// What one container may use from now on; zero: as before.
    fn limit_container<'a>(
        &'a self,
        id: &'a str,
        resources: message::LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>>;
    /// What the pod as a whole may use from now on.
    fn limit_sandbox<'a>(
        &'a self,
        id: &'a str,
        resources: message::LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>>;
    /// The container's log was renamed: it is written on under its own name.
    fn reopen_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Runs a command to its end: exit code and output.
    fn execute<'a>(
        &'a self,
        id: &'a str,
        command: Vec<String>,
        timeout_seconds: i64,
    ) -> BoxFuture<'a, Result<(i32, Vec<u8>)>>;
    /// Answers where the streams of a command can be had.
    fn exec(&self, request: message::ExecRequest) -> BoxFuture<'_, Result<String>>;
    fn attach(&self, request: message::AttachRequest) -> BoxFuture<'_, Result<String>>;
    fn port_forward(&self, request: message::PortForwardRequest) -> BoxFuture<'_, Result<String>>;

    fn stats(&self) -> BoxFuture<'_, Result<Vec<message::PodSandboxStats>>>;
}

/// Whether containers can run now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// `stanchion://0.1.0`
    pub version: String,
    /// Empty: everything answers.
    pub problems: Vec<String>,
    /// What its handlers can do, the default one without a name.
    pub handlers: Vec<message::RuntimeHandler>,
    pub features: Option<message::RuntimeFeatures>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningPod {
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

/// What exists of one pod, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created: Timestamp,
    /// Empty with the host's network, and when the network is gone.
    pub ip: String,
    pub host_network: bool,
    /// Remembered for a pod whose object is gone.
    pub grace_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub sandbox: String,
    pub name: String,
    pub attempt: u32,
    pub state: State,
    /// As the pod names it.
    pub image: String,
    /// As the pod named it when it was made; empty if the runtime has not kept it.
    pub spec_image: String,
    /// What it is, by digest.
    pub image_ref: String,
    pub created: Timestamp,
    pub started: Timestamp,
    pub finished: Timestamp,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    /// Absolute.
    pub log_path: String,
    /// uid, gid and supplemental groups of the first process.
    pub user: Option<(i64, i64, Vec<i64>)>,
    /// What it may use, if the runtime tells.
    pub limits: Option<Limits>,
}

/// What the kernel lets a container use: those figures that can change while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: i64,
    /// Microseconds of each 100 ms; zero: as much as there is.
    pub cpu_quota: i64,
    /// Bytes; zero: as much as there is.
    pub memory: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Made, and never started.
    #[default]
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    pub bytes: u64,
    /// The user that the image asks for, when it is a number.
    pub uid: Option<i64>,
    /// The user that the image asks for, when it is a name.
    pub username: String,
}

/// What a pull came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledImage {
    /// What the runtime calls it.
    pub reference: String,
    /// Nothing was pulled: the image is the one that somebody imported, and why it is.
    pub imported_instead: Option<String>,
}

impl Observed {
    /// The newest container of this name.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|it| it.name == name)
    }

    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// Puts the newest first.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by_key(|it| Reverse((it.attempt, it.created)));
        self.containers.sort_by_cached_key(|it| Reverse((it.created, it.attempt, it.id.clone())));
    }
}
