//! Times of the runtime on this machine, from the request to what a user sees. Needs root.
//!
//! `cargo run --release -p runtime --example bench -- [ROUNDS]`, default 40. Pods have no network here: its time is the network's.

use rpc::cri::{
    self, runtime_service_client::RuntimeServiceClient,
    runtime_service_server::RuntimeServiceServer,
};
use runtime::{
    Config, Embedded, NetworkError, PodAttachment, PodNetwork,
    image::{ImageStore, TOOLBOX_REFERENCE},
};
use std::{
    error::Error,
    fs,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use stdx::{BoxFuture, Entropy, Shutdown, SystemClock, SystemEntropy};

type Client = RuntimeServiceClient<RuntimeServiceServer<Embedded>>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct NoNetwork;

impl PodNetwork for NoNetwork {
    fn attach<'a>(
        &'a self,
        _pod: &'a PodAttachment,
    ) -> BoxFuture<'a, std::result::Result<Vec<IpAddr>, NetworkError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn detach<'a>(
        &'a self,
        _sandbox: &'a str,
    ) -> BoxFuture<'a, std::result::Result<(), NetworkError>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(40), |text| text.parse())?;
    let directory = std::env::temp_dir().join(format!("runtime-bench-{}", std::process::id()));
    let images = ImageStore::open(directory.join("images"))?;
    images.import_builtin()?;
    let (_running, shutdown) = Shutdown::new();
    let embedded = runtime::open(Config {
        data_dir: directory.clone(),
        instance: SystemEntropy::default().uuid()[..8].to_owned(),
        images,
        registries: Default::default(),
        network: Arc::new(NoNetwork),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::default()),
        shutdown,
    })
    .await?;
    let client = RuntimeServiceClient::new(embedded.runtime_service());
    let measured = measure(client, &directory, rounds).await;
    embedded.stop_all().await?;
    fs::remove_dir_all(&directory)?;
    measured
}

async fn measure(mut client: Client, directory: &Path, rounds: usize) -> Result<()> {
    let mut times = [const { Vec::new() }; 5];
    for round in 0..rounds {
        let begin = Instant::now();
        let config = sandbox(directory, round);
        let request =
            cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        let sandbox = client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        times[0].push(begin.elapsed());

        let begin = Instant::now();
        let config = container(&format!("echo{round}"), &["/bin/echo", "hello"]);
        let log = directory.join("log").join(&config.log_path);
        start(&mut client, &sandbox, config).await?;
        while fs::metadata(&log).map_or(0, |metadata| metadata.len()) == 0 {
            tokio::task::yield_now().await;
        }
        times[1].push(begin.elapsed());

        let id = start(
            &mut client,
            &sandbox,
            container(&format!("sleep{round}"), &["/bin/sleep", "1000"]),
        )
        .await?;
        let begin = Instant::now();
        let cmd = vec!["/bin/echo".to_owned(), "hello".to_owned()];
        client
            .exec_sync(cri::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 10 })
            .await?;
        times[2].push(begin.elapsed());

        let begin = Instant::now();
        client
            .stop_container(cri::StopContainerRequest { container_id: id.clone(), timeout: 0 })
            .await?;
        client.remove_container(cri::RemoveContainerRequest { container_id: id }).await?;
        times[3].push(begin.elapsed());

        let begin = Instant::now();
        client
            .stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() })
            .await?;
        client.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox }).await?;
        times[4].push(begin.elapsed());
    }
    let names = [
        "sandbox: request to ready, without network",
        "container: request to first output in its log",
        "exec echo: request to exit",
        "container: kill and remove",
        "sandbox: stop and remove",
    ];
    println!("{rounds} rounds, milliseconds          p50     p90     max");
    for (name, mut times) in names.into_iter().zip(times) {
        times.sort();
        let at = |part: usize| milliseconds(times[(times.len() - 1) * part / 100]);
        println!("{name:46} {:6.2}  {:6.2}  {:6.2}", at(50), at(90), at(100));
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn start(client: &mut Client, sandbox: &str, config: cri::ContainerConfig) -> Result<String> {
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: sandbox.to_owned(),
        config: Some(config),
        sandbox_config: None,
    };
    let container_id = client.create_container(request).await?.into_inner().container_id;
    client
        .start_container(cri::StartContainerRequest { container_id: container_id.clone() })
        .await?;
    Ok(container_id)
}

fn sandbox(directory: &Path, round: usize) -> cri::PodSandboxConfig {
    let linux = cri::LinuxPodSandboxConfig {
        cgroup_parent: format!("/kubepods/pod{round}"),
        ..Default::default()
    };
    cri::PodSandboxConfig {
        hostname: "bench".to_owned(),
        log_directory: directory.join("log").to_string_lossy().into_owned(),
        linux: Some(linux),
        ..Default::default()
    }
}

fn container(name: &str, command: &[&str]) -> cri::ContainerConfig {
    let security = cri::LinuxContainerSecurityContext {
        namespace_options: Some(cri::NamespaceOption {
            pid: cri::NamespaceMode::Container as i32,
            ..Default::default()
        }),
        seccomp: Some(cri::SecurityProfile::default()),
        ..Default::default()
    };
    cri::ContainerConfig {
        image: Some(cri::ImageSpec { image: TOOLBOX_REFERENCE.to_owned(), ..Default::default() }),
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources {
                memory_limit_in_bytes: 64 << 20,
                cpu_shares: 102,
                ..Default::default()
            }),
            security_context: Some(security),
        }),
        ..Default::default()
    }
}
