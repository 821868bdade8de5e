//! A runtime in a directory of its own, an image made from the machine's busybox, and the verbs as a node calls them.

use rpc::cri::{
    self, runtime_service_client::RuntimeServiceClient,
    runtime_service_server::RuntimeServiceServer,
};
use runtime::{Config, Embedded, NetworkError, PodAttachment, PodNetwork, image::ImageStore};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use stdx::{BoxFuture, Entropy, Shutdown, SystemClock, SystemEntropy};

pub(crate) const IMAGE: &str = "docker.io/library/busybox:test";

const BUSYBOX: &str = "/bin/busybox";

pub(crate) type Client = RuntimeServiceClient<RuntimeServiceServer<Embedded>>;

pub(crate) struct Harness {
    pub(crate) runtime: Embedded,
    pub(crate) client: Client,
    pub(crate) directory: PathBuf,
    pub(crate) instance: String,
    _running: Shutdown,
    _kept: Option<tempfile::TempDir>,
}

/// Pods without a network of their own.
struct NoNetwork;

impl PodNetwork for NoNetwork {
    fn attach<'a>(
        &'a self,
        _pod: &'a PodAttachment,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>> {
        Box::pin(async { Ok(vec![IpAddr::from([10, 244, 0, 7])]) })
    }
    fn detach<'a>(&'a self, _sandbox: &'a str) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async { Ok(()) })
    }
}

/// What is missing on this machine to run containers, if anything.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    // Root of a container that may not mount.
    let may = rustix::thread::capabilities(None).map(|it| it.effective);
    if !may.is_ok_and(|it| it.contains(rustix::thread::CapabilitySet::SYS_ADMIN)) {
        return Some("no CAP_SYS_ADMIN".to_owned());
    }
    if !fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.contains("overlay")) {
        return Some("no overlayfs".to_owned());
    }
    if !Path::new(BUSYBOX).exists() {
        return Some(format!("no {BUSYBOX} (Debian package busybox-static)"));
    }
    None
}

/// Runs a test with a runtime, unless the machine cannot; whatever the test leaves is stopped.
pub(crate) fn with_runtime<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Harness) -> F,
) {
    if let Some(missing) = missing() {
        eprintln!("skipped: {missing}");
        return;
    }
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    threads.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        import_busybox(directory.path());
        let instance = SystemEntropy::default().uuid()[..8].to_owned();
        let mut harness = Harness::open(directory.path(), &instance).await;
        harness._kept = Some(directory);
        let stop = harness.runtime.clone();
        let ended = tokio::spawn(test(harness)).await;
        stop.stop_all().await.unwrap();
        if let Err(failed) = ended {
            std::panic::resume_unwind(failed.into_panic());
        }
    });
}

impl Harness {
    pub(crate) async fn open(directory: &Path, instance: &str) -> Harness {
        let (running, shutdown) = Shutdown::new();
        let config = Config {
            data_dir: directory.to_owned(),
            instance: instance.to_owned(),
            images: ImageStore::open(directory.join("images")).unwrap(),
            registries: Default::default(),
            network: Arc::new(NoNetwork),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::default()),
            shutdown,
        };
        let runtime = runtime::open(config).await.unwrap();
        let client = RuntimeServiceClient::new(runtime.runtime_service());
        let (directory, instance) = (directory.to_owned(), instance.to_owned());
        Harness { runtime, client, directory, instance, _running: running, _kept: None }
    }

    pub(crate) async fn sandbox(&self, change: impl FnOnce(&mut cri::PodSandboxConfig)) -> String {
        let mut config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: "web-0".into(),
                namespace: "default".into(),
                uid: "1234".into(),
                attempt: 0,
            }),
            hostname: "web-0".into(),
            log_directory: self.directory.join("log").to_string_lossy().into_owned(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: "/kubepods/pod1234".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        change(&mut config);
        let request =
            cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        self.client.clone().run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    }

    pub(crate) async fn create(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        Ok(self.client.clone().create_container(request).await?.into_inner().container_id)
    }

    pub(crate) async fn start(&self, container: &str) -> Result<(), tonic::Status> {
        let request = cri::StartContainerRequest { container_id: container.to_owned() };
        self.client.clone().start_container(request).await.map(drop)
    }

    pub(crate) async fn run(&self, sandbox: &str, config: cri::ContainerConfig) -> String {
        let id = self.create(sandbox, config).await.unwrap();
        self.start(&id).await.unwrap();
        id
    }

    /// Runs a container to its end; its status and its output.
    pub(crate) async fn run_to_end(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
    ) -> (cri::ContainerStatus, String) {
        let mut events = self.events().await;
        let id = self.run(sandbox, config).await;
        let status = self.ended(&mut events, &id).await;
        let output = self.output(&id).await;
        (status, output)
    }

    pub(crate) async fn events(&self) -> tonic::Streaming<cri::ContainerEventResponse> {
        self.client
            .clone()
            .get_container_events(cri::GetEventsRequest {})
            .await
            .unwrap()
            .into_inner()
    }

    /// Waits until the container has ended, woken by events.
    pub(crate) async fn ended(
        &self,
        events: &mut tonic::Streaming<cri::ContainerEventResponse>,
        id: &str,
    ) -> cri::ContainerStatus {
        loop {
            let status = self.status(id).await;
            if status.state() == cri::ContainerState::ContainerExited {
                return status;
            }
            events.message().await.unwrap().expect("events go on");
        }
    }

    pub(crate) async fn status(&self, id: &str) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        self.client.clone().container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    pub(crate) async fn pid(&self, id: &str) -> i32 {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let info = self.client.clone().container_status(request).await.unwrap().into_inner().info;
        info["pid"].parse().unwrap()
    }

    pub(crate) async fn stop(&self, id: &str, grace_seconds: i64) {
        let request =
            cri::StopContainerRequest { container_id: id.to_owned(), timeout: grace_seconds };
        self.client.clone().stop_container(request).await.unwrap();
    }

    pub(crate) async fn remove(&self, id: &str) {
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        self.client.clone().remove_container(request).await.unwrap();
    }

    /// The log's text, without times and tags.
    pub(crate) async fn output(&self, id: &str) -> String {
        let log = self.status(id).await.log_path;
        let text = fs::read_to_string(&log).unwrap();
        // `lines` also takes the carriage return that a terminal adds.
        text.lines().map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap())).collect()
    }

    pub(crate) async fn exec(&self, id: &str, command: &[&str]) -> (i32, String) {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|part| (*part).to_owned()).collect(),
            timeout: 20,
        };
        let done = self.client.clone().exec_sync(request).await.unwrap().into_inner();
        let text = [done.stdout, done.stderr].concat();
        (done.exit_code, String::from_utf8(text).unwrap())
    }
}

/// A container of the test image that runs a shell script.
pub(crate) fn script(name: &str, script: &str) -> cri::ContainerConfig {
    command(name, &["/bin/sh", "-c", script])
}

pub(crate) fn command(name: &str, command: &[&str]) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        log_path: format!("{name}/0.log"),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources::default()),
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(cri::NamespaceOption {
                    pid: cri::NamespaceMode::Container as i32,
                    ..Default::default()
                }),
                seccomp: Some(cri::SecurityProfile::default()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

pub(crate) fn security(
    config: &mut cri::ContainerConfig,
) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

pub(crate) fn resources(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    config.linux.as_mut().unwrap().resources.as_mut().unwrap()
}

const APPLETS: [&str; 26] = [
    "sh", "cat", "echo", "id", "ls", "sleep", "grep", "head", "mount", "hostname", "stat", "touch",
    "dd", "kill", "ps", "mkdir", "chroot", "unshare", "mknod", "nc", "tty", "stty", "env", "wc",
    "true", "readlink",
];

/// Imports the test image: busybox, a few users, and a config that names one of them.
pub(crate) fn import_busybox(directory: &Path) {
    import(directory, IMAGE, &[layer()]);
}

/// Imports an image of these layers, lowest first.
pub(crate) fn import(directory: &Path, name: &str, layers: &[Vec<u8>]) {
    let store = ImageStore::open(directory.join("images")).unwrap();
    let diff_ids: Vec<String> = layers.iter().map(|it| format!("sha256:{}", hex(it))).collect();
    let files: Vec<String> = layers.iter().map(|it| format!("{}.tar", hex(it))).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["/bin/sh"], "User": "nginx"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let config_name = format!("{}.json", hex(&config));
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": files}]);
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, "manifest.json", 0o644, &serde_json::to_vec(&manifest).unwrap());
    add(&mut archive, &config_name, 0o644, &config);
    for (file, layer) in files.iter().zip(layers) {
        add(&mut archive, file, 0o644, layer);
    }
    store.import_bytes(archive.into_inner().unwrap()).unwrap();
}

fn layer() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "bin/busybox", 0o4755, &fs::read(BUSYBOX).unwrap());
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    add(
        &mut layer,
        "etc/passwd",
        0o644,
        b"root:x:0:0::/root:/bin/sh\nnginx:x:101:102::/var/nginx:/bin/sh\n",
    );
    add(&mut layer, "etc/group", 0o644, b"root:x:0:\nnginx:x:102:\nshadow:x:42:nginx\n");
    add(&mut layer, "etc/plain", 0o644, b"not a program\n");
    layer.into_inner().unwrap()
}

pub(crate) fn add(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `Name:\tvalue` lines, as in /proc/self/status.
pub(crate) fn fields(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect()
}
