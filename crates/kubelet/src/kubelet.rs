//! The node as a whole: who has a worker, who is woken, and what is asked of the node from outside.

mod calls;
mod drain;

pub use drain::Drained;

use crate::{
    Config,
    figures::Rates,
    ledger::{Ledger, LedgerError},
    lifecycle::PULLS_AT_ONCE,
    node,
    plan::Verdict,
    pod::{Admitted, Signal, Worker},
    pull_records::PullRecords,
    runtime::{Runtime, RuntimeError},
    server::{self, Server, ServerError},
    spec::{Facts, dns},
    static_pods::{StaticPods, mirrored},
    upkeep::Pressure,
    users::Users,
    volumes::Volumes,
};
use ::volumes::VolumePlugin;
use api::{
    Failure, Object,
    core::{
        pod::node_name,
        v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret},
    },
};
use client::{Client, Tick};
use futures_util::StreamExt;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use stdx::{Backoff, Clock, ShutdownSignal};
use tokio::task::JoinHandle;
use world::{ObjectKey, Touched, World};

/// How often the directory of static pods is looked at. Upstream: `fileCheckFrequency` is 20 s, beside inotify.
const MANIFESTS: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    #[error("open the ledger of mounts")]
    Ledger(#[from] LedgerError),
    #[error("register node {node}")]
    Register {
        node: String,
        #[source]
        source: Failure,
    },
    #[error("start the node's server")]
    Server(#[from] ServerError),
    #[error("ask the container runtime")]
    Runtime(#[from] RuntimeError),
}

/// What every worker of the node uses.
pub(crate) struct Shared {
    pub(crate) facts: Facts,
    pub(crate) client: Arc<dyn Client>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) volumes: Volumes,
    pub(crate) admitted: Admitted,
    pub(crate) static_pods: StaticPods,
    /// Turns at fetching images.
    pub(crate) pulls: tokio::sync::Semaphore,
    /// Who may use images that were pulled with a login.
    pub(crate) pull_records: PullRecords,
    /// Users of pods that do not share the host's.
    pub(crate) users: Users,
    pub(crate) pressure: Pressure,
    pub(crate) rates: Rates,
    pub(crate) scrubs: Arc<calls::Scrubs>,
    pub(crate) data_dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
}

/// One node's hands.
pub struct Kubelet {
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    server: Option<Server>,
    /// Pod uid → its worker. Bounded by the pods of this node, and those that it still cleans up after.
    workers: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    key: ObjectKey,
    signal: Arc<Signal>,
    task: JoinHandle<()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Workers<'a>(&'a Kubelet);

impl Drop for Workers<'_> {
    fn drop(&mut self) {
        self.0.end_workers();
    }
}

/// Opens the ledger, binds the server and registers the node. Nothing runs yet.
pub async fn start(
    config: Config,
    client: Arc<dyn Client>,
    runtime: Arc<dyn Runtime>,
    plugins: Vec<Arc<dyn VolumePlugin>>,
) -> Result<Kubelet, KubeletError> {
    let ledger = Ledger::open(config.data_dir.join("node").join("mounts"))?;
    let facts = facts(&config);
    let shared = Arc::new(Shared {
        facts,
        client,
        runtime,
        volumes: Volumes::new(plugins, ledger),
        admitted: Admitted::default(),
        static_pods: StaticPods::new(config.manifests.clone(), &config.node_name),
        pulls: tokio::sync::Semaphore::new(PULLS_AT_ONCE),
        pull_records: PullRecords::new(&config.kubelet_dir),
        users: Users::default(),
        pressure: Pressure::new(config.upkeep.pressure_transition),
        rates: Rates::default(),
        scrubs: Arc::default(),
        data_dir: config.data_dir.clone(),
        clock: config.clock.clone(),
    });
    for point in shared.volumes.unexplained(&shared.facts) {
        tracing::warn!(mount = %point.display(), "mounted below the kubelet's directory, by nobody we know");
    }
    let server = match &config.tls {
        Some(tls) => Some(Server::bind(&config.node_address, config.port, tls.clone()).await?),
        None => None,
    };
    if config.registers {
        let port = server.as_ref().map_or(config.port, Server::port);
        let registered = node::register(&config, &shared, port).await;
        registered
            .map_err(|source| KubeletError::Register { node: config.node_name.clone(), source })?;
    }
    Ok(Kubelet { config, shared, server, workers: Mutex::default() })
}

impl Kubelet {
    /// Where the node's server listens; none without TLS.
    pub fn port(&self) -> Option<u16> {
        self.server.as_ref().map(Server::port)
    }

    /// Turns until shutdown. Containers stay as they are.
    pub async fn run(self: &Arc<Self>, mut shutdown: ShutdownSignal) {
        // Workers end with this call, however it ends.
        let _workers = Workers(self);
        let mut ticks = self.shared.client.follow();
        let world = self.shared.client.world();
        self.shared.static_pods.read(self.shared.clock.now());
        self.look_at_all(&world);
        self.look_for_traces();
        let follow = async {
            while let Some(tick) = ticks.next().await {
                self.tick(&tick);
            }
        };
        let register = async {
            match self.config.registers {
                true => node::keep(&self.config, &self.shared).await,
                false => std::future::pending().await,
            }
        };
        let serve = async {
            match &self.server {
                Some(server) => server.run(server::Context::new(self.shared.clone())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.wait() => {}
            () = follow => tracing::warn!("the feed of the world has ended"),
            () = self.listen() => {}
            () = self.read_manifests() => {}
            () = register => {}
            () = self.keep_up() => {}
            () = serve => {}
        }
    }

    /// Follows the files of static pods, for ever.
    async fn read_manifests(&self) {
        loop {
            for change in self.shared.static_pods.orphans(&self.shared.client.world()) {
                let name = change.key.clone();
                if let Err(error) = self.shared.client.write(vec![change]).await {
                    tracing::warn!(pod = %name, %error, "delete the mirror of a static pod");
                }
            }
            stdx::sleep(MANIFESTS).await;
            if self.shared.static_pods.read(self.shared.clock.now()) {
                self.look_at_static();
                self.wake_where(|_| true);
            }
        }
    }

    fn look_at_static(&self) {
        for (uid, key) in self.shared.static_pods.keys() {
            self.ensure(&uid, &key);
        }
    }

    fn end_workers(&self) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn tick(&self, tick: &Tick) {
        match &tick.touched {
            None => self.look_at_all(&tick.world),
            Some(touched) => {
                for it in touched.iter() {
                    self.touched(it);
                }
            }
        }
    }

    fn touched(&self, it: &Touched) {
        let is = |kind: &api::KindRef| it.kind == *kind;
        if is(api::kind_of::<Pod>()) {
            let rows = [&it.old, &it.new].into_iter().flatten();
            for row in rows {
                let known = self.wake(&row.meta.uid);
                let pod = if known { None } else { row.typed::<Pod>() };
                if let Some(uid) = pod.as_ref().and_then(|it| mirrored(it)) {
                    self.wake(uid);
                    continue;
                }
                if let Some(pod) = pod.filter(|_| it.new.is_some())
                    && node_name(&pod) == self.config.node_name
                {
                    self.ensure(pod.uid(), &it.key);
                }
            }
        } else if [
            api::kind_of::<ConfigMap>(),
            api::kind_of::<Secret>(),
            api::kind_of::<PersistentVolumeClaim>(),
        ]
        .into_iter()
        .any(is)
        {
            self.wake_where(|key| key.namespace == it.key.namespace);
        } else if is(api::kind_of::<PersistentVolume>()) {
            self.wake_where(|_| true);
        }
    }

    /// Every pod of the node gets a worker and a look.
    fn look_at_all(&self, world: &World) {
        self.look_at_static();
        for pod in world.indexed::<Pod>("node", &self.config.node_name) {
            if mirrored(&pod).is_none() && !self.wake(pod.uid()) {
                self.ensure(pod.uid(), &ObjectKey::of(&*pod));
            }
        }
        for record in self.shared.volumes.ledger().all() {
            if !self.wake(&record.uid) {
                self.ensure(&record.uid, &ObjectKey::parse(&record.pod));
            }
        }
        self.wake_where(|_| true);
    }

    /// Directories of pods whose object, processes and mounts are gone: the server ended just before it removed them.
    fn look_for_traces(&self) {
        let names = |path: &std::path::Path| -> Vec<String> {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.filter_map(|it| it.file_name().into_string().ok()).collect()
        };
        // `default_web-0_7c9e…`: neither part has an underscore.
        for name in names(&self.config.log_dir) {
            if let [namespace, name, uid] = name.split('_').collect::<Vec<_>>()[..] {
                self.ensure(uid, &ObjectKey::new(namespace, name));
            }
        }
        for uid in names(&self.config.kubelet_dir.join("pods")) {
            self.ensure(&uid, &ObjectKey::new("", ""));
        }
    }

    /// True if there is such a worker.
    fn wake(&self, uid: &str) -> bool {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let living = workers.get(uid).filter(|it| !it.task.is_finished());
        living.inspect(|it| it.signal.wake()).is_some()
    }

    /// The pod's worker ends it.
    pub(crate) fn evict(&self, uid: &str, verdict: Verdict) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = workers.get(uid) {
            entry.signal.evict(verdict);
        }
    }

    fn wake_where(&self, concerned: impl Fn(&ObjectKey) -> bool) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in workers.values().filter(|it| concerned(&it.key)) {
            entry.signal.wake();
        }
    }

    fn ensure(&self, uid: &str, key: &ObjectKey) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|_, it| !it.task.is_finished());
        if workers.contains_key(uid) {
            return;
        }
        let signal = Arc::new(Signal::default());
        let (shared, uid) = (self.shared.clone(), uid.to_owned());
        let worker = Worker::new(shared, uid.clone(), key.clone(), signal.clone());
        let task = tokio::spawn(worker.run());
        workers.insert(uid, Entry { key: key.clone(), signal, task });
    }

    /// Follows the runtime's events; whenever they begin anew, looks at everything once.
    async fn listen(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match self.listen_once().await {
                Ok(()) => {
                    backoff.succeeded();
                    tracing::warn!("the container runtime's events have ended");
                }
                Err(error) => {
                    tracing::warn!(operation = error.operation, %error, "container runtime")
                }
            }
            stdx::sleep(backoff.failed()).await;
        }
    }

    async fn listen_once(&self) -> Result<(), RuntimeError> {
        let mut changes = self.shared.runtime.changes().await?;
        for pod in self.shared.runtime.pods().await? {
            self.ensure(&pod.uid, &ObjectKey::new(&pod.namespace, &pod.name));
        }
        {
            let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.values().for_each(|it| it.signal.observe());
        }
        while let Some(uid) = changes.next().await {
            let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = workers.get(&*uid) {
                entry.signal.observe();
            }
        }
        Ok(())
    }
}

fn facts(config: &Config) -> Facts {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = node::machine();
    let throttle = |cpu: i64| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
    let throttles = (0..machine.cpus).map(throttle);
    Facts {
        node_name: config.node_name.clone(),
        node_address: config.node_address.clone(),
        kubelet_dir: config.kubelet_dir.clone(),
        log_dir: config.log_dir.clone(),
        pod_processes_max: config.limits.pod_processes_max,
        cpu_milli: machine.cpus * 1000,
        memory_bytes: machine.memory_bytes,
        cluster_dns: config.cluster_dns.clone(),
        cluster_domain: config.cluster_domain.clone(),
        host_dns: dns::parse(&read("/etc/resolv.conf")),
        cgroup_root: config.cgroup_root.clone(),
        app_armor: read("/sys/module/apparmor/parameters/enabled").trim() == "Y",
        host_hosts: read("/etc/hosts"),
        masked_paths: throttles.filter(|it| std::path::Path::new(it).exists()).collect(),
    }
}
