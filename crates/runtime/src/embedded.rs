//! The runtime itself: its sandboxes and containers, and what is done to them.

mod containers;
mod notices;
mod sandboxes;
mod take_back;

use crate::{
    cgroup::Cgroups,
    container::Container,
    error::{Attempt, Error, Result},
    events::Events,
    image::{ImageStore, Images, Registries},
    link::{Link, Program},
    network::PodNetwork,
    processes::Own,
    record,
    sandbox::Sandbox,
    seccomp::Seccomp,
    streaming::Streaming,
};
use rpc::cri::{
    image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer,
};
use rustix::mount::MountPropagationFlags;
use shim::protocol::{Reply, Request};
use std::{
    collections::BTreeMap,
    fs,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use stdx::{Clock, Entropy, ShutdownSignal};
use tonic::service::Routes;

/// What a runtime is made from.
#[derive(Clone)]
pub struct Config {
    /// Sandboxes are kept below `sandboxes/` in it.
    pub data_dir: PathBuf,
    /// 6 to 8 hex digits that tell this instance from others on the machine; names its control groups.
    pub instance: String,
    pub images: ImageStore,
    /// Where images come from that are not there.
    pub registries: Registries,
    pub network: Arc<dyn PodNetwork>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// Ends the streams of exec and attach. Containers go on.
    pub shutdown: ShutdownSignal,
}

/// The runtime. Cheap to clone.
#[derive(Clone)]
pub struct Embedded {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: Config,
    pub(crate) cgroups: Cgroups,
    program: Program,
    pub(crate) seccomp: Seccomp,
    pub(crate) events: Events,
    pub(crate) streaming: Streaming,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
}

/// How long a shim may take to answer what takes it a moment.
const SHIM_PATIENCE: Duration = Duration::from_secs(10);

/// How long killed processes may take to end. Longer means that the kernel does not let go of them.
const KILL_PATIENCE: Duration = Duration::from_secs(60);

/// The exit code of what could not be started, as containerd has it.
const START_ERROR: i32 = 128;

/// Starts the runtime, and takes back the sandboxes that an earlier process left running.
/// Needs root, and a tokio runtime around it.
pub async fn open(config: Config) -> Result<Embedded> {
    let sandboxes = record::sandboxes(&config.data_dir);
    fs::create_dir_all(&sandboxes).attempt(|| format!("make {}", sandboxes.display()))?;
    share_root_mount()?;
    let cgroups = Cgroups::detect(&config.instance)?;
    let missing = cgroups.missing();
    if !missing.is_empty() {
        tracing::warn!(
            controllers = missing.join(", "),
            "limits of these kinds cannot be enforced on this machine"
        );
    }
    let program = Program::load()?;
    let inner = Arc::new_cyclic(|inner| Inner {
        cgroups,
        program,
        seccomp: Seccomp::default(),
        events: Events::new(),
        streaming: Streaming::new(
            config.data_dir.join("streaming.sock"),
            Arc::new(Own(Weak::clone(inner))),
            Arc::clone(&config.clock),
            Arc::clone(&config.entropy),
        ),
        sandboxes: Mutex::default(),
        containers: Mutex::default(),
        config,
    });
    let embedded = Embedded { inner };
    for id in record::names(&sandboxes) {
        if let Err(error) = embedded.take_back(&id).await {
            // One bad record must not keep the others from being served.
            tracing::error!(sandbox = id, error = stdx::one_line(&error), "take back a sandbox");
        }
    }
    let streaming = embedded.inner.streaming.clone();
    let listener =
        streaming.bind().attempt(|| "listen on the socket for exec and attach".to_owned())?;
    let shutdown = embedded.inner.config.shutdown.clone();
    tokio::spawn(async move { streaming.serve(listener, shutdown).await });
    Ok(embedded)
}

/// Mounts that the node makes later reach the shims, and what containers mount on shared volumes reaches the node,
/// only if the root is a shared mount. Container hosts have it so; others get it here.
fn share_root_mount() -> Result<()> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").attempt(|| "read the mounts".to_owned())?;
    let is_shared_root =
        |line: &str| line.split(' ').nth(4) == Some("/") && line.contains(" shared:");
    if mounts.lines().any(is_shared_root) {
        return Ok(());
    }
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).attempt(|| "make / a shared mount".to_owned())
}

impl Embedded {
    /// The server half of CRI's RuntimeService.
    pub fn runtime_service(&self) -> RuntimeServiceServer<Embedded> {
        RuntimeServiceServer::new(self.clone())
    }

    /// The server half of CRI's ImageService. An image that a container uses is not removed.
    pub fn image_service(&self) -> ImageServiceServer<Images> {
        let inner = Arc::clone(&self.inner);
        let user = move |image: &str| {
            let containers = inner.containers();
            containers
                .values()
                .find(|container| container.record.images().any(|it| it == image))
                .map(|user| user.id.clone())
        };
        let config = &self.inner.config;
        ImageServiceServer::new(Images::new(
            config.images.clone(),
            config.registries.clone(),
            Arc::clone(&config.clock),
            user,
        ))
    }

    /// Both services as one, for a client in this process that wants a single tower service.
    pub fn services(&self) -> Routes {
        Routes::new(self.runtime_service()).add_service(self.image_service())
    }

    /// The ids of the sandboxes that are there.
    pub fn sandbox_ids(&self) -> Vec<String> {
        self.inner.sandboxes().keys().cloned().collect()
    }

    /// Stops and removes every sandbox of this instance, and its control groups. Afterwards nothing of it runs or is
    /// mounted; images stay.
    pub async fn stop_all(&self) -> Result<()> {
        let ids: Vec<String> = self.inner.sandboxes().keys().cloned().collect();
        for id in ids {
            self.remove_sandbox(&id).await?;
        }
        self.inner.cgroups.remove_all().await
    }

    pub(crate) fn now(&self) -> i64 {
        // Nanoseconds, from a clock of microseconds.
        self.inner.config.clock.now().0.saturating_mul(1_000)
    }

    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        let found = find(&self.inner.sandboxes(), id);
        found.ok_or_else(|| Error::NotFound { kind: "sandbox", id: id.to_owned() })
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        let found = find(&self.inner.containers(), id);
        found.ok_or_else(|| Error::NotFound { kind: "container", id: id.to_owned() })
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.inner.sandboxes().values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.inner.containers().values().cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let containers = self.inner.containers();
        containers.values().filter(|container| container.sandbox.id == sandbox).cloned().collect()
    }

    fn new_id(&self) -> String {
        let mut bytes = [0u8; 32];
        self.inner.config.entropy.fill(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Inner {
    fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Sandbox>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By id, or by a beginning that only one has.
fn find<T>(known: &BTreeMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(exact) = known.get(id) {
        return Some(Arc::clone(exact));
    }
    if id.is_empty() {
        return None;
    }
    let mut matching = known.range(id.to_owned()..).take_while(|(known, _)| known.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, only)), None) => Some(Arc::clone(only)),
        _ => None,
    }
}

/// One request whose reply says only that it was done.
pub(crate) async fn ask(
    link: &Link,
    request: Request,
    attempted: impl Fn() -> String,
) -> Result<Reply> {
    let (reply, _none): (Reply, Vec<OwnedFd>) = link.request(request, Vec::new()).await?;
    if reply.error.is_empty() {
        Ok(reply)
    } else {
        Err(Error::Shim { attempted: attempted(), why: reply.error })
    }
}
