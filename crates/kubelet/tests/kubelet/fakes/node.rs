//! A kubelet between a ledger, a runtime and volumes in memory.

use super::{FakeClient, FakePlugin, FakeRuntime, PATIENCE};
use api::{Object, core::v1::Pod};
use client::Client;
use kubelet::{Config, Kubelet};
use std::sync::Arc;
use stdx::{Shutdown, SystemClock, SystemEntropy};
use volumes::VolumePlugin;
use world::{Change, ObjectKey};

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
            limits: Default::default(),
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
