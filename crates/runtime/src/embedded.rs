//! The runtime itself: its sandboxes and containers, and what is done to them.

use crate::{
    cgroup::Cgroups,
    container::{Container, State, limits, security, unseen_exit},
    error::{Attempt, Error, Result},
    events::Events,
    image::{ImageStore, Images},
    link::{Link, Notice, Program},
    network::{PodAttachment, PodNetwork},
    processes::Own,
    record::{self, ContainerRecord, ReadyRecord, SandboxRecord},
    sandbox::{Hold, Sandbox},
    seccomp::Seccomp,
    spec, stop_signal,
    streaming::Streaming,
};
use prost::Message;
use rpc::cri::{
    ContainerConfig, ContainerEventResponse, ContainerEventType, LinuxContainerResources,
    PodSandboxConfig, image_service_server::ImageServiceServer,
    runtime_service_server::RuntimeServiceServer,
};
use rustix::mount::MountPropagationFlags;
use shim::protocol::{Exit, Named, Nothing, Reply, Request, Signal};
use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
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
        embedded.take_back(&id).await?;
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
                .find(|container| container.record.image_id == image)
                .map(|user| user.id.clone())
        };
        let config = &self.inner.config;
        ImageServiceServer::new(Images::new(config.images.clone(), Arc::clone(&config.clock), user))
    }

    /// Both services as one, for a client in this process that wants a single tower service.
    pub fn services(&self) -> Routes {
        Routes::new(self.runtime_service()).add_service(self.image_service())
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

    // ---- sandboxes

    pub(crate) async fn run_sandbox(
        &self,
        config: PodSandboxConfig,
        handler: String,
    ) -> Result<String> {
        spec::check_sandbox(&config)?;
        let id = self.new_id();
        let directory = record::sandboxes(&self.inner.config.data_dir).join(&id);
        fs::create_dir_all(&directory).attempt(|| format!("make {}", directory.display()))?;
        let created_at = self.now();
        let stored =
            SandboxRecord { config: config.encode_to_vec(), handler: handler.clone(), created_at };
        record::write(&directory, "config", &stored)?;
        let parent = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
        let group = self.inner.cgroups.pod(parent)?;
        let sandbox = Arc::new(Sandbox {
            id: id.clone(),
            directory,
            config,
            handler,
            created_at,
            group,
            hold: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        });
        let _turn = sandbox.turn.lock().await;
        self.inner.sandboxes().insert(id.clone(), Arc::clone(&sandbox));
        match self.make_sandbox(&sandbox).await {
            Ok(()) => {
                self.tell(&id, ContainerEventType::ContainerCreatedEvent, &sandbox);
                self.tell(&id, ContainerEventType::ContainerStartedEvent, &sandbox);
                Ok(id)
            }
            Err(error) => {
                if let Err(left) =
                    self.dismantle(&sandbox).await.and_then(|()| record::remove(&sandbox.directory))
                {
                    tracing::warn!(
                        sandbox = id,
                        error = stdx::one_line(&left),
                        "take back an unfinished sandbox"
                    );
                } else {
                    self.inner.sandboxes().remove(&id);
                }
                Err(error)
            }
        }
    }

    async fn make_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        let cgroups = &self.inner.cgroups;
        let shims = cgroups.shims();
        cgroups.create(&shims)?;
        cgroups.create(&sandbox.group)?;
        let limits = sandbox.config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
        if let Some(limits) = limits {
            cgroups.limit(&sandbox.group, limits)?;
        }
        let socket = self.inner.program.start(&sandbox.id)?;
        let link = self.link(&sandbox.id, socket)?;
        sandbox.hold().link = Some(link.clone());
        let setup = spec::setup(sandbox, cgroups.describe(&shims).procs);
        let reply =
            ask(&link, Request::Setup(setup), || format!("set up sandbox {}", sandbox.id)).await?;
        let shim = reply.state.map_or(0, |state| state.pid);
        sandbox.hold().shim = shim;
        if !sandbox.host_network() {
            let addresses = self.attach_network(sandbox, shim).await?;
            sandbox.hold().addresses = addresses.iter().map(IpAddr::to_string).collect();
        }
        spec::write_files(sandbox)?;
        let addresses = sandbox.hold().addresses.clone();
        record::write(&sandbox.directory, "ready", &ReadyRecord { addresses, shim })?;
        sandbox.hold().ready = true;
        Ok(())
    }

    async fn attach_network(&self, sandbox: &Sandbox, shim: i32) -> Result<Vec<IpAddr>> {
        let metadata = sandbox.config.metadata.clone().unwrap_or_default();
        let pod = PodAttachment {
            sandbox: sandbox.id.clone(),
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            pid: shim,
            ports: sandbox.config.port_mappings.clone(),
        };
        let attached = self.inner.config.network.attach(&pod).await;
        attached.map_err(|source| Error::Network { sandbox: sandbox.id.clone(), source })
    }

    fn link(&self, sandbox: &str, socket: std::os::unix::net::UnixStream) -> Result<Link> {
        let (weak, id) = (Arc::downgrade(&self.inner), sandbox.to_owned());
        Link::new(sandbox, socket, move |notice| heard(&weak, &id, notice))
    }

    /// Stops its containers and takes back its network. May be repeated.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _turn = sandbox.turn.lock().await;
        let was_ready = sandbox.hold().ready;
        self.dismantle(&sandbox).await?;
        if was_ready {
            self.tell(&sandbox.id, ContainerEventType::ContainerStoppedEvent, &sandbox);
        }
        Ok(())
    }

    /// Ends the shim with all that it holds, and takes back the network.
    async fn dismantle(&self, sandbox: &Sandbox) -> Result<()> {
        let link = sandbox.hold().link.clone();
        if let Some(link) = link {
            let shutdown = ask(&link, Request::Shutdown(Nothing {}), || {
                format!("stop sandbox {}", sandbox.id)
            });
            match stdx::timeout(KILL_PATIENCE, shutdown).await {
                Some(Ok(_) | Err(Error::SandboxGone(_))) => {}
                Some(Err(error)) => return Err(error),
                None => {
                    let id = &sandbox.id;
                    return Err(Error::DeadlineExceeded(format!(
                        "sandbox {id}: its processes do not end"
                    )));
                }
            }
        }
        for container in self.containers_of(&sandbox.id) {
            if matches!(container.state(), State::Running(_)) {
                let exit = record::read(&container.directory, "exit")
                    .unwrap_or_else(|| unseen_exit(self.now()));
                self.ended(&container, exit);
            }
        }
        {
            let mut hold = sandbox.hold();
            hold.link = None;
            hold.ready = false;
        }
        if !sandbox.host_network() && !sandbox.hold().detached {
            let detached = self.inner.config.network.detach(&sandbox.id).await;
            detached.map_err(|source| Error::Network { sandbox: sandbox.id.clone(), source })?;
            sandbox.hold().detached = true;
        }
        Ok(())
    }

    /// Removes it with its containers. May be repeated.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _turn = sandbox.turn.lock().await;
        self.dismantle(&sandbox).await?;
        for container in self.containers_of(&sandbox.id) {
            self.discard(&container).await?;
        }
        record::remove(&sandbox.directory)?;
        self.inner.cgroups.remove_if_unused(&sandbox.group);
        self.inner.sandboxes().remove(&sandbox.id);
        self.tell(&sandbox.id, ContainerEventType::ContainerDeletedEvent, &sandbox);
        Ok(())
    }

    // ---- containers

    pub(crate) fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
    ) -> Result<String> {
        let sandbox = self.sandbox(sandbox)?;
        sandbox.link()?;
        spec::check_container(&config)?;
        let wanted = config.image.clone().unwrap_or_default();
        let name = if wanted.image_ref.is_empty() { &wanted.image } else { &wanted.image_ref };
        let images = &self.inner.config.images;
        let image = images.resolve(name).or_else(|| images.resolve(&wanted.image));
        let image =
            image.ok_or_else(|| crate::image::ImageError::NotFound(wanted.image.clone()))?;
        let from_image = stop_signal::parse(&image.config.stop_signal);
        let record = ContainerRecord {
            config: config.encode_to_vec(),
            created_at: self.now(),
            image_id: image.id.clone(),
            image_ref: image.digests.first().unwrap_or(&image.id).clone(),
            layers: image.layers.iter().map(|layer| layer.to_string_lossy().into_owned()).collect(),
            environment: spec::environment(&config, &image.config.env, &sandbox),
            arguments: spec::arguments(&config, &image.config)?,
            directory: [&config.working_dir, &image.config.working_dir]
                .into_iter()
                .find(|directory| !directory.is_empty())
                .map_or_else(|| "/".to_owned(), Clone::clone),
            user: image.config.user.clone(),
            stop_signal: stop_signal::of_interface(config.stop_signal)
                .or(from_image)
                .unwrap_or(stop_signal::DEFAULT),
        };
        let id = self.new_id();
        let directory = sandbox.directory.join("containers").join(&id);
        let group = self.inner.cgroups.container(&sandbox.group, &id, &limits(&config));
        let container =
            Container::new(id.clone(), sandbox, directory, record, config, group, State::Created)
                .map(Arc::new)?;
        if let Err(error) = self.make_container(&container) {
            // What was made of it is found by its directory and removed with the sandbox, if not now.
            let _kept_for_the_sandbox = record::remove(&container.directory);
            self.inner.cgroups.remove_if_unused(&container.group);
            return Err(error);
        }
        self.inner.containers().insert(id.clone(), Arc::clone(&container));
        self.tell(&id, ContainerEventType::ContainerCreatedEvent, &container.sandbox);
        Ok(id)
    }

    fn make_container(&self, container: &Container) -> Result<()> {
        for part in ["upper", "work", "rootfs"] {
            let directory = container.directory.join(part);
            fs::create_dir_all(&directory).attempt(|| format!("make {}", directory.display()))?;
        }
        let cgroups = &self.inner.cgroups;
        cgroups.create(&container.group)?;
        cgroups.limit(&container.group, &container.resources())?;
        if !security(&container.config).privileged {
            cgroups.limit_devices(&container.group, &spec::device_rules(&container.config)?)?;
        }
        let log = PathBuf::from(container.log_path());
        if let Some(parent) = log.parent() {
            fs::create_dir_all(parent)
                .attempt(|| format!("make the log directory {}", parent.display()))?;
        }
        record::write(&container.directory, "config", &container.record)
    }

    pub(crate) fn seccomp(&self, container: &Container) -> Result<Vec<Vec<u8>>> {
        let security = security(&container.config);
        if security.privileged {
            return Ok(Vec::new());
        }
        self.inner.seccomp.programs(security.seccomp.as_ref(), container.capabilities)
    }

    /// Returns when the program runs. One that cannot be started has exited with code 128 and the reason.
    pub(crate) async fn start_container(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        match container.state() {
            State::Created => {}
            State::Running(_) => return Ok(()),
            State::Exited { .. } => return Err(Error::State(format!("container {id} has exited"))),
        }
        let link = container.sandbox.link()?;
        let cgroup = self.inner.cgroups.describe(&container.group);
        let (start, sources) = spec::start(&container, cgroup, self.seccomp(&container)?)?;
        let (reply, _) = link.request(Request::Start(start), sources).await?;
        match reply.started {
            Some(started) if reply.error.is_empty() => {
                if container.started(started) {
                    self.tell(id, ContainerEventType::ContainerStartedEvent, &container.sandbox);
                }
                Ok(())
            }
            _ => {
                let failed: Option<Exit> = record::read(&container.directory, "exit");
                if let Some(exit) = failed {
                    self.ended(&container, exit);
                }
                let attempted = format!("start container {id}");
                Err(Error::Shim { attempted, why: reply.error })
            }
        }
    }

    /// Asks it to end, kills it when the grace is over, and returns when it has ended.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        if !matches!(container.state(), State::Running(_)) {
            return Ok(());
        }
        let link = container.sandbox.link()?;
        if !grace.is_zero() {
            self.signal(&link, &container, container.record.stop_signal, false).await?;
            if stdx::timeout(grace, container.wait_for_exit()).await.is_some() {
                return Ok(());
            }
        }
        self.signal(&link, &container, libc::SIGKILL, true).await?;
        match stdx::timeout(KILL_PATIENCE, container.wait_for_exit()).await {
            Some(_) => Ok(()),
            None => {
                Err(Error::DeadlineExceeded(format!("container {id} was killed and does not end")))
            }
        }
    }

    async fn signal(
        &self,
        link: &Link,
        container: &Container,
        signal: i32,
        all: bool,
    ) -> Result<()> {
        let request = Request::Signal(Signal { container: container.id.clone(), signal, all });
        match ask(link, request, || format!("signal container {}", container.id)).await {
            // Its end is told by another way.
            Ok(_) | Err(Error::SandboxGone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes it, running or not. May be repeated.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.stop_container(id, Duration::ZERO).await?;
        if let Ok(link) = container.sandbox.link() {
            let request = Request::Forget(Named { container: id.to_owned() });
            match ask(&link, request, || format!("forget container {id}")).await {
                Ok(_) | Err(Error::SandboxGone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.discard(&container).await
    }

    async fn discard(&self, container: &Container) -> Result<()> {
        self.inner.cgroups.remove(&container.group).await?;
        record::remove(&container.directory)?;
        self.inner.containers().remove(&container.id);
        self.tell(&container.id, ContainerEventType::ContainerDeletedEvent, &container.sandbox);
        Ok(())
    }

    pub(crate) fn update_resources(
        &self,
        id: &str,
        wanted: &LinuxContainerResources,
    ) -> Result<()> {
        let container = self.container(id)?;
        self.inner.cgroups.limit(&container.group, wanted)?;
        container.set_resources(merged(container.resources(), wanted));
        Ok(())
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        container.running()?;
        let request = Request::Reopen(Named { container: id.to_owned() });
        ask(&container.sandbox.link()?, request, || format!("reopen the log of container {id}"))
            .await
            .map(drop)
    }

    fn ended(&self, container: &Container, exit: Exit) {
        if container.exited(exit) {
            self.tell(&container.id, ContainerEventType::ContainerStoppedEvent, &container.sandbox);
        }
    }

    fn tell(&self, id: &str, kind: ContainerEventType, sandbox: &Sandbox) {
        if !self.inner.events.listened_to() {
            return;
        }
        let containers = self.containers_of(&sandbox.id);
        self.inner.events.tell(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: self.now(),
            pod_sandbox_status: Some(sandbox.status()),
            containers_statuses: containers.iter().map(|container| container.status()).collect(),
        });
    }

    // ---- after a restart

    async fn take_back(&self, id: &str) -> Result<()> {
        let directory = record::sandboxes(&self.inner.config.data_dir).join(id);
        let stored: Option<SandboxRecord> = record::read(&directory, "config");
        let Some((stored, config)) = stored.and_then(|stored| {
            Some((stored.clone(), PodSandboxConfig::decode(stored.config.as_slice()).ok()?))
        }) else {
            tracing::warn!(sandbox = id, "its record is torn; nothing of it can run");
            return record::remove(&directory);
        };
        let parent = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
        let group = self.inner.cgroups.pod(parent)?;
        let ready: Option<ReadyRecord> = record::read(&directory, "ready");
        let link = match Link::connect(&directory) {
            Ok(socket) => Some(self.link(id, socket)?),
            Err(_) => None,
        };
        let mut states = BTreeMap::new();
        let mut living = None;
        if let Some(link) = link {
            let state =
                ask(&link, Request::State(Nothing {}), || format!("ask sandbox {id} how it is"));
            match stdx::timeout(SHIM_PATIENCE, state).await {
                Some(Ok(reply)) => {
                    let state = reply.state.unwrap_or_default();
                    states.extend(
                        state.containers.into_iter().map(|state| (state.container.clone(), state)),
                    );
                    living = Some((link, state.pid));
                }
                Some(Err(error)) => {
                    tracing::warn!(sandbox = id, error = stdx::one_line(&error), "its shim is gone")
                }
                None => tracing::warn!(sandbox = id, "its shim does not answer"),
            }
        }
        let hold = Hold {
            shim: living.as_ref().map_or(0, |(_, pid)| *pid),
            ready: living.is_some() && ready.is_some(),
            link: living.map(|(link, _)| link),
            addresses: ready.map(|ready| ready.addresses).unwrap_or_default(),
            detached: false,
        };
        let sandbox = Arc::new(Sandbox {
            id: id.to_owned(),
            directory,
            config,
            handler: stored.handler,
            created_at: stored.created_at,
            group,
            hold: Mutex::new(hold),
            turn: tokio::sync::Mutex::default(),
        });
        self.inner.sandboxes().insert(id.to_owned(), Arc::clone(&sandbox));
        for name in record::names(&sandbox.directory.join("containers")) {
            self.take_back_container(&sandbox, &name, states.remove(&name))?;
        }
        Ok(())
    }

    fn take_back_container(
        &self,
        sandbox: &Arc<Sandbox>,
        id: &str,
        known: Option<shim::protocol::ContainerState>,
    ) -> Result<()> {
        let directory = sandbox.directory.join("containers").join(id);
        let stored: Option<ContainerRecord> = record::read(&directory, "config");
        let Some((stored, config)) = stored.and_then(|stored| {
            Some((stored.clone(), ContainerConfig::decode(stored.config.as_slice()).ok()?))
        }) else {
            let everywhere =
                LinuxContainerResources { cpuset_cpus: "0".into(), ..Default::default() };
            let group = self.inner.cgroups.container(&sandbox.group, id, &everywhere);
            self.inner.cgroups.remove_if_unused(&group);
            return record::remove(&directory);
        };
        let group = self.inner.cgroups.container(&sandbox.group, id, &limits(&config));
        let started = record::read(&directory, "started");
        let state = match (known, record::read(&directory, "exit")) {
            (Some(known), _) => match known.exit {
                Some(exit) => {
                    State::Exited { started: started.filter(|_| exit.start_error.is_empty()), exit }
                }
                None => State::Running(known.started),
            },
            (None, Some(exit)) => State::Exited { started, exit },
            (None, None) if started.is_some() => {
                State::Exited { started, exit: unseen_exit(self.now()) }
            }
            (None, None) => State::Created,
        };
        let container = Container::new(
            id.to_owned(),
            Arc::clone(sandbox),
            directory,
            stored,
            config,
            group,
            state,
        )?;
        self.inner.containers().insert(id.to_owned(), Arc::new(container));
        Ok(())
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

/// A shim has spoken unasked.
fn heard(inner: &Weak<Inner>, sandbox: &str, notice: Notice) {
    let Some(inner) = inner.upgrade() else { return };
    let embedded = Embedded { inner };
    match notice {
        Notice::Exited { container, exit } => {
            if let Ok(container) = embedded.container(&container) {
                embedded.ended(&container, exit);
            }
        }
        Notice::Closed => embedded.shim_gone(sandbox),
    }
}

impl Embedded {
    /// The kernel kills what a shim leaves behind. How it ended is in files, or unseen.
    fn shim_gone(&self, id: &str) {
        let Ok(sandbox) = self.sandbox(id) else { return };
        let was_ready = {
            let mut hold = sandbox.hold();
            hold.link = None;
            std::mem::take(&mut hold.ready)
        };
        for container in self.containers_of(id) {
            if matches!(container.state(), State::Running(_)) {
                let exit = record::read(&container.directory, "exit")
                    .unwrap_or_else(|| unseen_exit(self.now()));
                self.ended(&container, exit);
            }
        }
        if was_ready {
            self.tell(id, ContainerEventType::ContainerStoppedEvent, &sandbox);
        }
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

/// An update names only what changes.
fn merged(
    mut now: LinuxContainerResources,
    wanted: &LinuxContainerResources,
) -> LinuxContainerResources {
    let numbers = [
        (&mut now.cpu_period, wanted.cpu_period),
        (&mut now.cpu_quota, wanted.cpu_quota),
        (&mut now.cpu_shares, wanted.cpu_shares),
        (&mut now.memory_limit_in_bytes, wanted.memory_limit_in_bytes),
        (&mut now.memory_swap_limit_in_bytes, wanted.memory_swap_limit_in_bytes),
    ];
    for (own, new) in numbers {
        if new != 0 {
            *own = new;
        }
    }
    for (own, new) in
        [(&mut now.cpuset_cpus, &wanted.cpuset_cpus), (&mut now.cpuset_mems, &wanted.cpuset_mems)]
    {
        if !new.is_empty() {
            own.clone_from(new);
        }
    }
    now.unified.extend(wanted.unified.clone());
    now
}
