//! A ledger, a runtime and volumes in memory. The runtime watches over what must never happen.

use api::{Failure, Kind, Object, codec::from_value, core::v1::Pod};
use client::{Client, Feed, Follower, Written, feed};
use futures_util::StreamExt;
use kubelet::{
    Config, Kubelet,
    runtime::{
        Changes, Condition, Container, Image, Limits, Observed, PulledImage, Result, RunningPod,
        Runtime, RuntimeError, Sandbox, State, message,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use stdx::{BoxFuture, Clock, Shutdown, SystemClock, SystemEntropy};
use tokio::sync::{Notify, broadcast};
use volumes::{Capabilities, PublishVolume, Published, StageVolume, VolumeError, VolumePlugin};
use world::{Change, Event, Expected, ObjectKey, Touched, Verb, World};

/// Long enough for a loaded machine; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn yaml<T: Kind>(text: &str) -> T {
    let value: serde_json::Value = serde_saphyr::from_str(text).expect("YAML");
    from_value(&value).expect("an object of the API")
}

// ---- the ledger

pub(crate) struct FakeClient {
    world: Mutex<World>,
    feed: Feed,
    pub(crate) events: Mutex<Vec<Event>>,
}

impl FakeClient {
    pub(crate) fn new() -> Arc<FakeClient> {
        let world = World::default();
        let feed = feed(1024, world.clone());
        Arc::new(FakeClient { world: Mutex::new(world), feed, events: Mutex::default() })
    }

    pub(crate) fn apply(&self, change: &Change) -> std::result::Result<Written, Failure> {
        let mut world = self.world.lock().unwrap();
        let resource = change.kind.resource();
        let old = world.row(&resource, &change.key).cloned();
        let name = &*change.key.name;
        let fits = match &change.expected {
            Expected::Absent => old.is_none(),
            Expected::Revision(revision) => old.as_ref().is_some_and(|it| it.revision == *revision),
            Expected::Uid(uid) => old.as_ref().is_some_and(|it| it.meta.uid == *uid),
            Expected::Anything => true,
        };
        if !fits {
            return Err(match (&old, change.verb) {
                (Some(_), Verb::Create) => Failure::already_exists(&change.kind, name),
                (Some(_), _) => Failure::modified(&change.kind, name),
                (None, _) => Failure::not_found(&change.kind, name),
            });
        }
        world.apply(change, SystemClock.now());
        let new = world.row(&resource, &change.key).cloned();
        let touched =
            Touched { kind: change.kind.clone(), key: change.key.clone(), old, new: new.clone() };
        let revision = world.revision;
        self.feed.publish(world.clone(), Arc::from([touched]));
        Ok(Written { revision, rows: vec![new] })
    }

    pub(crate) fn put<T: Kind>(&self, object: T) {
        self.apply(&Change::create(object)).expect("a new object");
    }

    /// The first world in which `found` finds something.
    pub(crate) async fn until<T>(&self, what: &str, found: impl FnMut(&World) -> Option<T>) -> T {
        let mut follower = self.feed.follow();
        let found = stdx::timeout(PATIENCE, follower.until(found)).await;
        let pods: Vec<_> = self.world().all::<Pod>().map(|it| it.to_owned()).collect();
        found.flatten().unwrap_or_else(|| panic!("never: {what}\n{pods:#?}"))
    }

    pub(crate) fn said(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        events.iter().map(|it| format!("{} {}", it.reason, it.message)).collect()
    }
}

impl Client for FakeClient {
    fn world(&self) -> World {
        self.world.lock().unwrap().clone()
    }

    fn follow(&self) -> Follower {
        self.feed.follow()
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, std::result::Result<Written, Failure>> {
        Box::pin(async move {
            let [change] = changes.as_slice() else { panic!("one change at a time") };
            self.apply(change)
        })
    }

    fn record(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

// ---- the runtime

#[derive(Default)]
struct Machine {
    next: u32,
    /// Pod uid → what exists of it.
    pods: BTreeMap<String, Observed>,
    names: BTreeMap<String, (String, String)>,
    images: BTreeSet<String>,
    log: Vec<String>,
    /// Mutating calls so far.
    calls: usize,
}

/// Where the next crash is: at this call, before or after its effect.
#[derive(Clone, Copy)]
pub(crate) struct CrashAt {
    pub(crate) call: usize,
    pub(crate) after_effect: bool,
}

pub(crate) struct FakeRuntime {
    machine: Mutex<Machine>,
    changes: broadcast::Sender<Arc<str>>,
    /// Events get lost.
    pub(crate) deaf: bool,
    pub(crate) crash: Mutex<Option<CrashAt>>,
    pub(crate) crashed: Notify,
    /// Where streams are.
    pub(crate) streams: Mutex<Option<String>>,
}

impl FakeRuntime {
    pub(crate) fn new(deaf: bool) -> Arc<FakeRuntime> {
        let machine = Machine { images: ["app:1".to_owned()].into(), ..Machine::default() };
        Arc::new(FakeRuntime {
            machine: Mutex::new(machine),
            changes: broadcast::channel(1024).0,
            deaf,
            crash: Mutex::default(),
            crashed: Notify::new(),
            streams: Mutex::default(),
        })
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.machine().log.clone()
    }

    pub(crate) fn observed(&self, uid: &str) -> Observed {
        self.machine().pods.get(uid).cloned().unwrap_or_default()
    }

    /// A process ends by itself.
    pub(crate) fn exit(&self, uid: &str, container: &str, code: i32) {
        {
            let mut machine = self.machine();
            let pod = machine.pods.get_mut(uid).expect("a pod");
            let running = |it: &&mut Container| it.name == container && it.state == State::Running;
            let it = pod.containers.iter_mut().find(running).expect("a running container");
            it.state = State::Exited;
            it.exit_code = code;
            it.finished = SystemClock.now();
        }
        self.changed(uid);
    }

    fn changed(&self, uid: &str) {
        if !self.deaf {
            let _nobody_listens = self.changes.send(uid.into());
        }
    }

    /// One call that changes something; here the process may "crash": the call never returns.
    async fn call<T>(
        &self,
        line: String,
        effect: impl FnOnce(&mut Machine) -> Result<T>,
    ) -> Result<T> {
        // A runtime takes a moment: others go on meanwhile.
        tokio::task::yield_now().await;
        let (crash, result) = {
            let mut machine = self.machine();
            machine.calls += 1;
            let crash = self.crash.lock().unwrap().filter(|it| it.call == machine.calls);
            let lost = crash.is_some_and(|it| !it.after_effect);
            let result = if lost {
                None
            } else {
                machine.log.push(line);
                let result = effect(&mut machine);
                machine.check();
                Some(result)
            };
            (crash.is_some(), result)
        };
        if crash {
            self.crashed.notify_one();
            return std::future::pending().await;
        }
        result.expect("an effect without a crash")
    }
}

impl Machine {
    /// What must never be.
    fn check(&self) {
        for (uid, pod) in &self.pods {
            let ready = pod.sandboxes.iter().filter(|it| it.ready).count();
            assert!(ready <= 1, "pod {uid} has {ready} sandboxes: {pod:#?}");
            let mut living = BTreeSet::new();
            for it in pod.containers.iter().filter(|it| it.state == State::Running) {
                assert!(
                    living.insert(&it.name),
                    "container {} of {uid} runs twice: {pod:#?}",
                    it.name
                );
                let sandbox = pod.sandboxes.iter().find(|sandbox| sandbox.id == it.sandbox);
                assert!(sandbox.is_some_and(|it| it.ready), "{} runs without a sandbox", it.name);
            }
        }
    }

    fn id(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{}", self.next)
    }

    fn of_sandbox(&mut self, id: &str) -> Result<(String, &mut Observed)> {
        let has = |it: &Observed| it.sandboxes.iter().any(|it| it.id == id);
        let found = self.pods.iter_mut().find(|(_, it)| has(it));
        found.map(|(uid, it)| (uid.clone(), it)).ok_or_else(|| missing("sandbox"))
    }

    fn of_container(&mut self, id: &str) -> Result<(String, &mut Container)> {
        let all = self
            .pods
            .iter_mut()
            .flat_map(|(uid, pod)| pod.containers.iter_mut().map(move |it| (uid.clone(), it)));
        let found = all.into_iter().find(|(_, it)| it.id == id);
        found.ok_or_else(|| missing("container"))
    }
}

fn limits(it: &message::LinuxContainerResources) -> Limits {
    Limits { cpu_shares: it.cpu_shares, cpu_quota: it.cpu_quota, memory: it.memory_limit_in_bytes }
}

fn missing(what: &'static str) -> RuntimeError {
    RuntimeError {
        operation: what,
        message: "not found".to_owned(),
        not_found: true,
        is_late: false,
    }
}

fn refused(message: &str) -> RuntimeError {
    RuntimeError::new("fake", message)
}

impl Runtime for FakeRuntime {
    fn condition(&self) -> BoxFuture<'_, Result<Condition>> {
        let condition = Condition { version: "fake://1".to_owned(), ..Condition::default() };
        Box::pin(async { Ok(condition) })
    }

    fn pods(&self) -> BoxFuture<'_, Result<Vec<RunningPod>>> {
        Box::pin(async {
            let machine = self.machine();
            let living = machine.pods.iter().filter(|(_, it)| !it.sandboxes.is_empty());
            let pod = |uid: &String| {
                let (namespace, name) = machine.names[uid].clone();
                RunningPod { uid: uid.clone(), namespace, name }
            };
            Ok(living.map(|(uid, _)| pod(uid)).collect())
        })
    }

    fn observe<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Observed>> {
        Box::pin(async move {
            let mut observed = self.observed(uid);
            observed.sort();
            Ok(observed)
        })
    }

    fn changes(&self) -> BoxFuture<'_, Result<Changes>> {
        let receiver = self.changes.subscribe();
        Box::pin(async {
            let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
                loop {
                    match receiver.recv().await {
                        Ok(uid) => return Some((uid, receiver)),
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return None,
                    }
                }
            });
            Ok(stream.boxed() as Changes)
        })
    }

    fn run_sandbox(
        &self,
        config: message::PodSandboxConfig,
        _handler: String,
    ) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let metadata = config.metadata.expect("metadata");
            let uid = metadata.uid.clone();
            let line = format!("run sandbox {} #{}", metadata.name, metadata.attempt);
            let id = self.call(line, |machine| {
                let id = machine.id("s");
                machine.names.insert(metadata.uid.clone(), (metadata.namespace, metadata.name));
                let sandbox = Sandbox {
                    id: id.clone(),
                    attempt: metadata.attempt,
                    ready: true,
                    created: SystemClock.now(),
                    ip: format!("10.0.0.{}", machine.next),
                    host_network: false,
                    grace_seconds: None,
                };
                machine.pods.entry(metadata.uid).or_default().sandboxes.push(sandbox);
                Ok(id)
            });
            let id = id.await?;
            self.changed(&uid);
            Ok(id)
        })
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let uid = self.call(format!("stop sandbox {id}"), |machine| {
                let Ok((uid, pod)) = machine.of_sandbox(id) else { return Ok(None) };
                for it in pod.containers.iter_mut() {
                    if it.sandbox == id && it.state == State::Running {
                        it.state = State::Exited;
                        it.exit_code = 137;
                    }
                }
                let sandbox = pod.sandboxes.iter_mut().find(|it| it.id == id);
                sandbox.expect("found").ready = false;
                Ok(Some(uid))
            });
            if let Some(uid) = uid.await? {
                self.changed(&uid);
            }
            Ok(())
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.call(format!("remove sandbox {id}"), |machine| {
                if let Ok((_, pod)) = machine.of_sandbox(id) {
                    pod.sandboxes.retain(|it| it.id != id);
                    pod.containers.retain(|it| it.sandbox != id);
                }
                Ok(())
            })
            .await
        })
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let here = self.machine().images.contains(reference);
            let image =
                Image { id: reference.to_owned(), bytes: 1, uid: None, username: String::new() };
            Ok(here.then_some(image))
        })
    }

    fn pull_image(&self, _: message::PullImageRequest) -> BoxFuture<'_, Result<PulledImage>> {
        Box::pin(async { Err(refused("no registry answers")) })
    }

    fn remove_image<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<message::Image>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn create_container(
        &self,
        request: message::CreateContainerRequest,
    ) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let config = request.config.expect("a config");
            for mount in &config.mounts {
                assert!(Path::new(&mount.host_path).exists(), "{} is mounted", mount.host_path);
            }
            let logs = request.sandbox_config.expect("a sandbox").log_directory;
            let log = Path::new(&logs).join(&config.log_path);
            std::fs::write(&log, "").expect("the directory of the log is there");
            let metadata = config.metadata.expect("metadata");
            let line = format!("create {} #{}", metadata.name, metadata.attempt);
            self.call(line, |machine| {
                let id = machine.id("c");
                let (_, pod) = machine.of_sandbox(&request.pod_sandbox_id)?;
                let twin = pod
                    .containers
                    .iter()
                    .any(|it| it.name == metadata.name && it.attempt == metadata.attempt);
                assert!(!twin, "{} #{} exists already", metadata.name, metadata.attempt);
                pod.containers.push(Container {
                    id: id.clone(),
                    sandbox: request.pod_sandbox_id.clone(),
                    name: metadata.name,
                    attempt: metadata.attempt,
                    image: "app:1".to_owned(),
                    image_ref: "sha256:1".to_owned(),
                    log_path: log.display().to_string(),
                    created: SystemClock.now(),
                    limits: config.linux.and_then(|it| it.resources).map(|it| limits(&it)),
                    ..Container::default()
                });
                Ok(id)
            })
            .await
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let uid = self.call(format!("start {id}"), |machine| {
                let (uid, it) = machine.of_container(id)?;
                assert_eq!(it.state, State::Created, "{id} is started once");
                it.state = State::Running;
                it.started = SystemClock.now();
                Ok(uid)
            });
            let uid = uid.await?;
            self.changed(&uid);
            Ok(())
        })
    }

    fn stop_container<'a>(&'a self, id: &'a str, _: i64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let uid = self.call(format!("stop {id}"), |machine| {
                let (uid, it) = machine.of_container(id)?;
                if it.state == State::Running {
                    it.state = State::Exited;
                    it.exit_code = 0;
                    it.finished = SystemClock.now();
                }
                Ok(uid)
            });
            let uid = uid.await?;
            self.changed(&uid);
            Ok(())
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.call(format!("remove {id}"), |machine| {
                for pod in machine.pods.values_mut() {
                    pod.containers.retain(|it| it.id != id);
                }
                Ok(())
            })
            .await
        })
    }

    fn limit_container<'a>(
        &'a self,
        id: &'a str,
        resources: message::LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let line = format!("limit container {id}");
            let uid = self.call(line, |machine| {
                let (uid, container) = machine.of_container(id)?;
                container.limits = Some(limits(&resources));
                Ok(uid)
            });
            self.changed(&uid.await?);
            Ok(())
        })
    }

    fn limit_sandbox<'a>(
        &'a self,
        id: &'a str,
        resources: message::LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let memory = resources.memory_limit_in_bytes;
            self.call(format!("limit sandbox {id} to {memory}"), |_| Ok(())).await
        })
    }

    fn reopen_log<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn execute<'a>(
        &'a self,
        _: &'a str,
        command: Vec<String>,
        _: i64,
    ) -> BoxFuture<'a, Result<(i32, Vec<u8>)>> {
        Box::pin(async move { Ok((i32::from(command != ["true"]), b"no".to_vec())) })
    }

    fn exec(&self, _: message::ExecRequest) -> BoxFuture<'_, Result<String>> {
        let url = self.streams.lock().unwrap().clone();
        Box::pin(async { url.ok_or_else(|| refused("no streams here")) })
    }

    fn attach(&self, _: message::AttachRequest) -> BoxFuture<'_, Result<String>> {
        Box::pin(async { Err(refused("no streams here")) })
    }

    fn port_forward(&self, _: message::PortForwardRequest) -> BoxFuture<'_, Result<String>> {
        Box::pin(async { Err(refused("no streams here")) })
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<message::PodSandboxStats>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

// ---- volumes

/// A plugin whose mounts are directories.
pub(crate) struct FakePlugin {
    pub(crate) name: &'static str,
    pub(crate) stages: bool,
    pub(crate) failures: Mutex<u32>,
    pub(crate) staged: Mutex<BTreeSet<String>>,
    pub(crate) published: Mutex<BTreeSet<String>>,
}

impl FakePlugin {
    pub(crate) fn new(name: &'static str, stages: bool) -> Arc<FakePlugin> {
        Arc::new(FakePlugin {
            name,
            stages,
            failures: Mutex::default(),
            staged: Mutex::default(),
            published: Mutex::default(),
        })
    }
}

impl VolumePlugin for FakePlugin {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { stage: self.stages, ..Capabilities::default() }
    }

    fn stage<'a>(&'a self, request: &'a StageVolume) -> BoxFuture<'a, volumes::Result<()>> {
        Box::pin(async move {
            self.staged.lock().unwrap().insert(request.volume.handle.clone());
            Ok(())
        })
    }

    fn unstage<'a>(&'a self, handle: &'a str, _: &'a Path) -> BoxFuture<'a, volumes::Result<()>> {
        Box::pin(async move {
            self.staged.lock().unwrap().remove(handle);
            Ok(())
        })
    }

    fn publish<'a>(
        &'a self,
        request: &'a PublishVolume,
    ) -> BoxFuture<'a, volumes::Result<Published>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            {
                let mut failures = self.failures.lock().unwrap();
                if *failures > 0 {
                    *failures -= 1;
                    return Err(VolumeError::Pending("the disk is asleep".to_owned()));
                }
            }
            let handle = &request.volume.handle;
            let staged = self.staged.lock().unwrap().contains(handle);
            assert!(!self.stages || staged, "{handle} is staged first");
            std::fs::create_dir_all(&request.target).unwrap();
            for (name, file) in request.files.iter().flatten() {
                std::fs::write(request.target.join(name), &file.data).unwrap();
            }
            self.published.lock().unwrap().insert(request.target.display().to_string());
            Ok(Published { host_path: request.target.clone(), read_only: request.read_only })
        })
    }

    fn unpublish<'a>(&'a self, _: &'a str, target: &'a Path) -> BoxFuture<'a, volumes::Result<()>> {
        Box::pin(async move {
            self.published.lock().unwrap().remove(&target.display().to_string());
            match std::fs::remove_dir_all(target) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                Ok(()) | Err(_) => Ok(()),
            }
        })
    }
}

// ---- a node of all that

pub(crate) struct Node {
    pub(crate) client: Arc<FakeClient>,
    pub(crate) runtime: Arc<FakeRuntime>,
    pub(crate) plugins: Vec<Arc<FakePlugin>>,
    pub(crate) directory: tempfile::TempDir,
}

/// A kubelet that turns until it is dropped.
pub(crate) struct Running {
    pub(crate) kubelet: Arc<Kubelet>,
    task: tokio::task::JoinHandle<()>,
    _shutdown: Shutdown,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    pub(crate) fn new() -> Node {
        Node::with(FakeRuntime::new(false))
    }

    pub(crate) fn with(runtime: Arc<FakeRuntime>) -> Node {
        let plugins = vec![
            FakePlugin::new("kubernetes.io/empty-dir", false),
            FakePlugin::new("kubernetes.io/configmap", false),
            FakePlugin::new("local.csi.stanchion.dev", true),
        ];
        let directory = tempfile::tempdir().unwrap();
        Node { client: FakeClient::new(), runtime, plugins, directory }
    }

    pub(crate) async fn start(&self) -> Running {
        self.start_with(None).await
    }

    pub(crate) async fn start_with(&self, tls: Option<Arc<rustls::ServerConfig>>) -> Running {
        let path = self.directory.path();
        let config = Config {
            node_name: "n1".to_owned(),
            node_address: if tls.is_some() { "127.0.0.1" } else { "192.0.2.1" }.to_owned(),
            kubelet_dir: path.join("kubelet"),
            log_dir: path.join("log/pods"),
            data_dir: path.to_path_buf(),
            manifests: path.join("manifests"),
            pod_cidr: "10.0.0.0/24".to_owned(),
            cluster_dns: "10.96.0.10".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            port: 0,
            tls,
            registers: true,
            cgroup_root: "/stanchion-test".to_owned(),
            instance: "test".to_owned(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::default()),
            version: "v1.36.0".to_owned(),
            upkeep: Default::default(),
        };
        let plugins = self.plugins.iter().map(|it| it.clone() as Arc<dyn VolumePlugin>).collect();
        let started = kubelet::start(config, self.client.clone(), self.runtime.clone(), plugins);
        let kubelet = Arc::new(started.await.expect("a kubelet"));
        let (shutdown, signal) = Shutdown::new();
        let turning = kubelet.clone();
        let task = tokio::spawn(async move { turning.run(signal).await });
        Running { kubelet, task, _shutdown: shutdown }
    }

    pub(crate) async fn until_pod<T>(
        &self,
        name: &str,
        what: &str,
        mut found: impl FnMut(&Pod) -> Option<T>,
    ) -> T {
        let key = ObjectKey::new("default", name);
        self.client.until(&format!("{name} {what}"), |world| found(&*world.get::<Pod>(&key)?)).await
    }

    pub(crate) async fn until_ready(&self, name: &str) -> Pod {
        self.until_pod(name, "is Ready", |it| api::core::pod::is_ready(it).then(|| it.clone()))
            .await
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        let key = ObjectKey::new("default", name);
        self.client
            .until(&format!("{name} is gone"), |world| {
                world.get::<Pod>(&key).is_none().then_some(())
            })
            .await;
    }

    /// Nothing is left of the pod on this machine; the last traces go after the object.
    pub(crate) async fn until_clean(&self, uid: &str) {
        let clean = async {
            loop {
                let mounts = self.plugins.iter().any(|it| !it.published.lock().unwrap().is_empty());
                let pod_dir = self.directory.path().join("kubelet/pods").join(uid);
                if self.runtime.observed(uid).is_empty() && !mounts && !pod_dir.exists() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let observed = self.runtime.observed(uid);
        assert!(
            stdx::timeout(PATIENCE, clean).await.is_some(),
            "traces of {uid} are left: {observed:?} {:?}",
            self.runtime.log()
        );
    }

    pub(crate) fn delete(&self, name: &str) {
        let key = ObjectKey::new("default", name);
        let pod = self.client.world().get::<Pod>(&key).expect("a pod");
        self.client.apply(&Change::delete(&*pod)).expect("a deletion");
    }

    pub(crate) fn uid(&self, name: &str) -> String {
        let pod = self.client.world().get::<Pod>(&ObjectKey::new("default", name));
        pod.expect("a pod").uid().to_owned()
    }
}

/// A pod with an emptyDir and a claim, and the claim with its volume.
pub(crate) fn with_volumes(client: &FakeClient) -> Pod {
    client.put::<api::core::v1::PersistentVolume>(yaml(
        "
metadata: {name: pv-1}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  csi: {driver: local.csi.stanchion.dev, volumeHandle: h-1, fsType: ext4}
  claimRef: {namespace: default, name: data, uid: claim-1}
",
    ));
    let claim: api::core::v1::PersistentVolumeClaim = yaml(
        "
metadata: {name: data, namespace: default, uid: claim-1}
spec: {volumeName: pv-1, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
",
    );
    client.put(claim.clone());
    let key = ObjectKey::new("default", "data");
    let world = client.world();
    let mut claim = world.get::<api::core::v1::PersistentVolumeClaim>(&key).unwrap().to_owned();
    claim.status.get_or_insert_default().phase = Some("Bound".to_owned());
    client.apply(&Change::status(claim)).unwrap();
    yaml(
        "
metadata: {name: web-0, namespace: default, uid: uid-of-web-0}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 5
  containers:
  - name: app
    image: app:1
    volumeMounts: [{name: data, mountPath: /data}, {name: scratch, mountPath: /scratch}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
  - {name: scratch, emptyDir: {}}
",
    )
}
