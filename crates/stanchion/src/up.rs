//! `stanchion up`: opens the rooms in order, says when every loop runs, and waits to be stopped.

use crate::{
    access, apply, backup,
    config::{Flags, Settings},
    defaults, image,
    network::{Interfaces, Nothing},
    pki::{self, Authority, Renewing},
    restore,
};
use ::network::{
    Ipv4Cidr, Network, dns,
    service::{self, Translation},
};
use ::runtime::{Embedded, PodNetwork};
use anyhow::{Context, Result, anyhow};
use apiserver::{Server, Tls, TlsNodeProxy};
use client::Client;
use kubelet::{Kubelet, runtime::cri::Cri};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use stdx::{BoxFuture, Shutdown, ShutdownSignal, SystemClock, SystemEntropy};
use store::Store;
use tokio::net::TcpListener;
use world::{CallFailure, Outcome, Place, VolumeCall};

/// The API that is spoken here, and by whom.
pub(crate) const VERSION: &str = concat!("v1.36.0+stanchion.", env!("CARGO_PKG_VERSION"));

pub(crate) fn run(flags: Flags) -> Result<()> {
    let begun = Instant::now();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start")?;
    let done = runtime.block_on(up(flags, begun));
    // Blocking work that is under way (a mount, a sync) ends by itself; nobody waits for it here.
    runtime.shutdown_background();
    done
}

async fn up(flags: Flags, begun: Instant) -> Result<()> {
    let settings = flags.settle()?;
    if !flags.no_node && !rustix::process::geteuid().is_root() {
        return Err(anyhow!(
            "start a node: it needs root for namespaces and mounts; `up --no-node` runs without"
        ));
    }
    let (shutdown, signal) = Shutdown::new();
    restore::finish(&settings.data_dir)?;
    let authority = Arc::new(Authority::open(&settings.data_dir)?);
    let plane = Plane::open(&flags, &settings, &authority).await?;
    // Before anything is made on this machine that would have to be taken down again.
    let mut listeners = vec![bind(flags.listen).await?];
    let client = plane.server.client("system:stanchion");
    defaults::create(&*client).await?;
    let (wires, node) = match flags.no_node {
        true => (None, None),
        false => {
            settings.remember(&flags)?;
            let wires = Wires::open(&flags, &settings, &authority, &plane, signal.clone()).await?;
            let node = Node::open(&flags, &settings, Some(&wires), &plane, signal.clone()).await?;
            (Some(wires), Some(node))
        }
    };

    let port = listeners[0].local_addr().context("read the API's address")?.port();
    let listen = SocketAddr::new(flags.listen.ip(), port);
    let gateway = wires.as_ref().map(|it| it.network.host_gateway());
    if let Some(gateway) = gateway {
        listeners.push(bind(SocketAddr::new(gateway, port)).await?);
        plane.server.advertise(gateway, port).await.context("publish the API's address")?;
    }
    let hosts = plane.hosts(&flags, gateway);
    let tls = Tls {
        certificate: Arc::new(Renewing::server(&authority, "kube-apiserver", hosts)?),
        client_ca: pki::certificates(authority.certificate())?,
    };
    let serve = plane.server.clone().serve(listeners, tls, signal.clone());
    let mut tasks = tokio::task::JoinSet::new();
    let backups = backup::Listener::bind(&settings.data_dir)?;
    let backups = backups.serve(plane.store.clone(), signal.clone());
    tasks.spawn(async move {
        backups.await;
        Ok(())
    });
    tasks.spawn(async move { serve.await.context("serve the API") });

    let mut loops = controllers::controllers(authority.certificate());
    loops.push(Arc::new(scheduler::Scheduler));
    let volumes = Arc::new(Places {
        node: settings.node_name.clone(),
        kubelet: node.as_ref().map(|it| it.kubelet.clone()),
    });
    let connect = |name: &str| plane.server.client(&user_of(name));
    let turning = manager::start(loops, connect, volumes, Arc::new(SystemClock), signal.clone());
    for task in turning {
        tasks.spawn(async move { task.await.context("turn a loop") });
    }
    if let Some(node) = &node {
        let (kubelet, signal) = (node.kubelet.clone(), signal.clone());
        tasks.spawn(async move {
            kubelet.run(signal).await;
            Ok(())
        });
    }

    let url = format!("https://{}", reachable(listen));
    pki::write_private(&settings.kubeconfig, &authority.kubeconfig(&url)?)?;
    tokio::spawn(keep_valid(authority.clone(), settings.kubeconfig.clone(), url.clone()));
    let ready_ms = begun.elapsed().as_millis();
    println!("ready in {ready_ms} ms · {url} · KUBECONFIG={}", settings.kubeconfig.display());

    let applied = async {
        match flags.apply.is_empty() {
            true => Ok(()),
            false => apply::run(client.clone(), &flags.apply).await,
        }
    };
    let stopped = stop_requested();
    tokio::pin!(stopped);
    tokio::select! {
        asked = &mut stopped => asked?,
        applied = applied => {
            applied?;
            tokio::select! {
                asked = &mut stopped => asked?,
                ended = tasks.join_next() => early(ended)?,
            }
        }
        ended = tasks.join_next() => early(ended)?,
    }
    shutdown.begin();
    while let Some(ended) = tasks.join_next().await {
        ended.context("stop")??;
    }
    Ok(())
}

/// Once a day: an admin's certificate that is due is made anew, an authority's that ends is told of.
async fn keep_valid(authority: Arc<Authority>, kubeconfig: PathBuf, url: String) {
    loop {
        let until = authority.validity().until;
        if authority.validity().is_due(authority.now()) {
            tracing::warn!(
                "the cluster's authority ends at {until}: `stanchion doctor` says what to do"
            );
        }
        stdx::sleep(Duration::from_secs(24 * 3600)).await;
        let written = authority
            .kubeconfig(&url)
            .and_then(|text| pki::write_private_if_changed(&kubeconfig, &text));
        if let Err(error) = written {
            tracing::warn!("renew the admin's kubeconfig: {}", stdx::one_line(error.as_ref()));
        }
    }
}

/// Who a loop is to the door. Upstream: each controller has a service account of its name.
fn user_of(controller: &str) -> String {
    match controller {
        scheduler::NAME => "system:kube-scheduler".to_owned(),
        name => format!("system:serviceaccount:kube-system:{name}"),
    }
}

/// A part that ends before it was asked to takes the process with it: half a cluster helps nobody.
fn early(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match ended {
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(error).context("a part of the server ended"),
        Some(Ok(Ok(()))) | None => Err(anyhow!("a part of the server ended by itself")),
    }
}

async fn stop_requested() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let taken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
    match TcpListener::bind(address).await {
        Err(error) if taken(&error) => Err(anyhow!(
            "listen on {address}: another process does; name another port with --listen"
        )),
        bound => bound.with_context(|| format!("listen on {address}")),
    }
}

/// Where a client on this host finds an address that may mean "all of them".
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listen.port()),
        false => listen,
    }
}

/// The ledger and its door.
pub(crate) struct Plane {
    pub(crate) server: Arc<Server>,
    store: Arc<dyn Store>,
    first_service: Ipv4Addr,
}

impl Plane {
    pub(crate) async fn open(
        flags: &Flags,
        settings: &Settings,
        authority: &Arc<Authority>,
    ) -> Result<Plane> {
        let clock = Arc::new(SystemClock);
        let state = settings.data_dir.join("state");
        let store: Arc<dyn Store> = store::backend::open(&flags.store, &state, clock.clone())
            .with_context(|| format!("open the ledger of {}", settings.data_dir.display()))?;
        let own = Renewing::client(authority, "kube-apiserver-kubelet-client", "system:masters")?;
        let roots = pki::certificates(authority.certificate())?;
        let proxy = TlsNodeProxy::new(Arc::new(own), roots)?;
        let config = apiserver::Config {
            service_cidr: flags.service_cidr.to_string(),
            admission_enabled: flags.enable_admission_plugins.iter().cloned().collect(),
            admission_disabled: flags.disable_admission_plugins.iter().cloned().collect(),
            clock,
            entropy: Arc::new(SystemEntropy::default()),
            version: VERSION.to_owned(),
            node_proxy: Some(Arc::new(proxy)),
            access: access::open(flags, authority)?,
        };
        let server = apiserver::open(store.clone(), config).await.context("open the API")?;
        Ok(Plane { server, store, first_service: flags.service_cidr.address(1) })
    }

    /// Every name under which the API is called.
    fn hosts(&self, flags: &Flags, gateway: Option<IpAddr>) -> Vec<String> {
        let service = "kubernetes.default.svc";
        let mut hosts: Vec<String> =
            ["localhost", "kubernetes", "kubernetes.default", service].map(str::to_owned).into();
        hosts.push(format!("{service}.{}", flags.cluster_domain));
        hosts.push("127.0.0.1".to_owned());
        hosts.push(self.first_service.to_string());
        hosts.push(reachable(flags.listen).ip().to_string());
        hosts.extend(gateway.map(|it| it.to_string()));
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

/// The hands of this process.
pub(crate) struct Node {
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) runtime: Embedded,
}

/// The network of this node: interfaces for pods, Services' addresses and the cluster's DNS.
pub(crate) struct Wires<'a> {
    pub(crate) authority: &'a Arc<Authority>,
    pub(crate) network: Network,
}

impl<'a> Wires<'a> {
    pub(crate) async fn open(
        flags: &Flags,
        settings: &Settings,
        authority: &'a Arc<Authority>,
        plane: &Plane,
        signal: ShutdownSignal,
    ) -> Result<Wires<'a>> {
        let cidr = |it: crate::config::Cidr| -> Result<Ipv4Cidr> {
            it.to_string().parse().map_err(|error| anyhow!("read range {it}: {error}"))
        };
        let network = Network::start(::network::Config {
            instance: settings.instance.clone(),
            bridge: ::network::bridge_name(&settings.instance),
            pod_cidr: cidr(settings.pod_cidr)?,
            dns_address: settings.cluster_dns,
            data_dir: settings.data_dir.clone(),
        })
        .await
        .context("start the pod network")?;
        let zone = dns::Zone::new(
            &flags.cluster_domain,
            vec![cidr(flags.cluster_cidr)?, cidr(flags.service_cidr)?],
            vec![IpAddr::V4(settings.cluster_dns)],
        )
        .context("make the cluster's DNS zone")?;
        let names = dns::Server::bind(dns::Config {
            listen: vec![SocketAddr::new(IpAddr::V4(settings.cluster_dns), 53)],
            zone,
            resolv_conf: "/etc/resolv.conf".into(),
        })
        .await
        .context("start the cluster's DNS")?;
        tokio::spawn(names.serve(plane.server.client("system:dns"), signal.clone()));
        let translation = Translation::new(service::Config {
            instance: settings.instance.clone(),
            bridge: ::network::bridge_name(&settings.instance),
            node_name: settings.node_name.clone(),
            cluster_cidr: cidr(flags.cluster_cidr)?,
            service_cidr: cidr(flags.service_cidr)?,
            dns_address: settings.cluster_dns,
        });
        tokio::spawn(translation.serve(plane.server.client("system:kube-proxy"), signal));
        Ok(Wires { authority, network })
    }
}

impl Node {
    /// Takes back what runs on this machine. Without wires no pod can be started and nobody can ask
    /// the node: enough to take it down.
    pub(crate) async fn open(
        flags: &Flags,
        settings: &Settings,
        wires: Option<&Wires<'_>>,
        plane: &Plane,
        signal: ShutdownSignal,
    ) -> Result<Node> {
        let images = image::open(&settings.data_dir)?;
        images.import_builtin().context("import the built-in images")?;
        let registries = image::registries(&settings.data_dir)?;
        let network: Arc<dyn PodNetwork> = match wires {
            Some(wires) => Arc::new(Interfaces(wires.network.clone())),
            None => Arc::new(Nothing),
        };
        let runtime = ::runtime::open(::runtime::Config {
            data_dir: settings.data_dir.join("runtime"),
            instance: settings.instance.clone(),
            images,
            registries,
            network,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::default()),
            shutdown: signal,
        })
        .await
        .context("start the container runtime")?;
        let (address, tls) = match wires {
            None => (Ipv4Addr::LOCALHOST.to_string(), None),
            Some(Wires { authority, network }) => {
                let living = runtime.sandbox_ids();
                network.sweep(living).await.context("sweep interfaces of gone pods")?;
                let address = network.host_gateway().to_string();
                let hosts = vec![settings.node_name.clone(), address.clone()];
                let name = format!("system:node:{}", settings.node_name);
                (address, Some(authority.mutual(Renewing::server(authority, &name, hosts)?)?))
            }
        };
        let config = kubelet::Config {
            node_name: settings.node_name.clone(),
            node_address: address,
            kubelet_dir: settings.kubelet_dir.clone(),
            log_dir: settings.data_dir.join("log/pods"),
            data_dir: settings.data_dir.clone(),
            manifests: match &flags.pod_manifest_path {
                Some(path) => path.clone(),
                None => settings.data_dir.join("manifests"),
            },
            pod_cidr: settings.pod_cidr.to_string(),
            cluster_dns: settings.cluster_dns.to_string(),
            cluster_domain: flags.cluster_domain.clone(),
            port: flags.kubelet_port,
            tls,
            // The embedded runtime has a root of its own, by instance.
            cgroup_root: String::new(),
            instance: settings.instance.clone(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::default()),
            version: VERSION.to_owned(),
            upkeep: flags.upkeep(),
        };
        let plugins = volumes::plugins(&volumes::Config {
            data_dir: settings.data_dir.clone(),
            node_name: settings.node_name.clone(),
            instance: settings.instance.clone(),
        });
        let user = format!("system:node:{}", settings.node_name);
        let client: Arc<dyn Client> = plane.server.client(&user);
        let cri = Arc::new(Cri::new(runtime.services()));
        let kubelet =
            kubelet::start(config, client, cri, plugins).await.context("start the node")?;
        Ok(Node { kubelet: Arc::new(kubelet), runtime })
    }
}

/// Volume calls go to the node that they name; this process knows its own.
struct Places {
    node: String,
    kubelet: Option<Arc<Kubelet>>,
}

impl manager::Volumes for Places {
    fn call<'a>(
        &'a self,
        place: &'a Place,
        call: &'a VolumeCall,
    ) -> BoxFuture<'a, Result<Outcome, CallFailure>> {
        Box::pin(async move {
            let elsewhere = match place {
                Place::Node(name) if *name != self.node => Some(name.as_str()),
                Place::Node(_) | Place::Anywhere => None,
            };
            match (&self.kubelet, elsewhere) {
                (Some(kubelet), None) => kubelet.call(call).await,
                (_, name) => {
                    let name = name.unwrap_or("any node");
                    let message = format!("no way to {name}: it is not part of this process");
                    Err(CallFailure { retry: true, message })
                }
            }
        })
    }
}
