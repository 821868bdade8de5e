//! `stanchion up`: opens the rooms in order, says when every loop runs, and waits to be stopped.

use crate::{
    access, apply, backup, cluster_map,
    config::{Cidr, Flags, Settings},
    defaults,
    hands::{Clients, Node, Served, VERSION, Wires},
    lead::Loops,
    ledger::{self, Ledger},
    node,
    pki::{self, Authority, Renewing},
    places::Places,
    restore,
};
use ::network::dns::Known;
use anyhow::{Context, Result, anyhow};
use api::core::v1::Node as NodeObject;
use apiserver::{Server, Tls, TlsNodeProxy};
use controllers::node_ipam;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use stdx::{Shutdown, SystemClock, SystemEntropy};
use tokio::net::TcpListener;
use world::World;

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
    // Neither a node of a server elsewhere nor `down` is to take the data dir for its own.
    let _held = node::hold(&settings.data_dir)?;
    if !flags.no_node && !rustix::process::geteuid().is_root() {
        return Err(anyhow!(
            "start a node: it needs root for namespaces and mounts; `up --no-node` runs without"
        ));
    }
    let (shutdown, signal) = Shutdown::new();
    restore::finish(&settings.data_dir)?;
    let authority = Arc::new(Authority::open(&settings.data_dir)?);
    let plane = Plane::open(&flags, &settings, &authority).await?;
    settings.remember(&flags)?;
    // Before anything is made on this machine that would have to be taken down again.
    let mut listeners = vec![bind(flags.listen).await?];
    let client = plane.server.client("system:stanchion");
    let cluster = flags.cluster();
    defaults::create(&*client).await?;
    cluster_map::publish(&*client, &cluster).await?;
    let outside = outside(&flags)?;
    let (wires, hands) = match flags.no_node {
        true => (None, None),
        false => {
            let pods = own_share(&client.world(), &settings.node_name, cluster.pods)?;
            let clients = plane.clients(&settings.node_name);
            let wires = Wires::open(&settings, &cluster, pods, outside, &clients, signal.clone());
            let wires = wires.await?;
            // Where no other machine comes, the bridge will do.
            let address = outside.unwrap_or_else(|| wires.network.host_gateway());
            let hosts = vec![settings.node_name.clone(), address.to_string()];
            let name = format!("system:node:{}", settings.node_name);
            let own = Renewing::server(&authority, &name, hosts)?;
            let served = Served {
                wires: &wires,
                cluster: &cluster,
                pods,
                address,
                tls: pki::mutual(authority.certificate(), Arc::new(own))?,
            };
            let kubelet = clients.kubelet.clone();
            let node = Node::open(&flags.node, &settings, Some(served), kubelet, signal.clone());
            let node = node.await?;
            (Some(wires), Some(node))
        }
    };

    let port = listeners[0].local_addr().context("read the API's address")?.port();
    let listen = SocketAddr::new(flags.listen.ip(), port);
    let gateway = wires.as_ref().map(|it| it.network.host_gateway());
    if let Some(gateway) = gateway.filter(|_| !flags.listen.ip().is_unspecified()) {
        listeners.push(bind(SocketAddr::new(gateway, port)).await?);
    }
    let presence = match (outside.or(gateway), flags.store.is_shared()) {
        (None, _) => None,
        (Some(address), false) => {
            plane.server.advertise(address, port).await.context("publish the API's address")?;
            None
        }
        (Some(address), true) => {
            Some(plane.server.appear(address, port).await.context("publish the API's address")?)
        }
    };
    let hosts = hosts(&flags, &settings, gateway.into_iter().chain(outside));
    let tls = Tls {
        certificate: Arc::new(Renewing::server(&authority, "kube-apiserver", hosts)?),
        client_ca: pki::certificates(authority.certificate())?,
    };
    let serve = plane.server.clone().serve(listeners, tls, signal.clone());
    let mut tasks = tokio::task::JoinSet::new();
    let backups = backup::Listener::bind(&settings.data_dir)?;
    let backups = backups.serve(plane.ledger.store.clone(), signal.clone());
    tasks.spawn(async move {
        backups.await;
        Ok(())
    });
    tasks.spawn(async move { serve.await.context("serve the API") });
    if let Some(presence) = presence {
        let signal = signal.clone();
        tasks.spawn(async move {
            presence.keep(signal).await;
            Ok(())
        });
    }

    let volumes = Arc::new(Places {
        node: settings.node_name.clone(),
        kubelet: hands.as_ref().map(|it| it.kubelet.clone()),
        server: plane.server.clone(),
        client: client.clone(),
    });
    let (server, authority_of) = (plane.server.clone(), authority.certificate().to_owned());
    let ended_most = flags.terminated_pod_gc_threshold;
    let loops = Loops { server, volumes, authority: authority_of, pods: cluster.pods, ended_most };
    let (host, ending) = (settings.node_name.clone(), signal.clone());
    match flags.store.is_shared() {
        false => tasks.spawn(loops.alone(ending)),
        true => tasks.spawn(async move { loops.by_turns(&host, ending).await }),
    };
    if let Some(node) = &hands {
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

/// A part that ends before it was asked to takes the process with it: half a cluster helps nobody.
fn early(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match ended {
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(error).context("a part of the server ended"),
        Some(Ok(Ok(()))) | None => Err(anyhow!("a part of the server ended by itself")),
    }
}

pub(crate) async fn stop_requested() -> Result<()> {
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

/// Where other machines reach this one, if they do.
fn outside(flags: &Flags) -> Result<Option<IpAddr>> {
    let listen = flags.listen.ip();
    match flags.advertise_address {
        Some(address) => Ok(Some(address)),
        None if listen.is_loopback() => Ok(None),
        None if !listen.is_unspecified() => Ok(Some(listen)),
        // An address that is kept for documents: nothing is sent, the kernel only looks up its default route.
        None => node::towards("192.0.2.1:9").map(Some),
    }
}

/// What this node has of the cluster's addresses: always the same.
fn own_share(world: &World, name: &str, pods: Cidr) -> Result<Cidr> {
    let known = world.cluster::<NodeObject>(name);
    let known = known.as_ref().and_then(|it| node_ipam::share_of(it)).map(str::to_owned);
    let range = node_ipam::Range { base: pods.base, bits: pods.bits };
    let share = known.or_else(|| node_ipam::free(world, range));
    let share = share.ok_or_else(|| anyhow!("start a node: no part of {pods} is free"))?;
    share.parse().map_err(|why| anyhow!("read range {share}: {why}"))
}

/// The ledger and its door.
pub(crate) struct Plane {
    pub(crate) server: Arc<Server>,
    ledger: Ledger,
}

impl Plane {
    pub(crate) async fn open(
        flags: &Flags,
        settings: &Settings,
        authority: &Arc<Authority>,
    ) -> Result<Plane> {
        let clock = Arc::new(SystemClock);
        let ledger = ledger::open(&flags.store, &settings.data_dir)?;
        if flags.store.is_shared() {
            let (store, data_dir) = (&*ledger.store, &settings.data_dir);
            ledger::check_cluster(store, &flags.store, authority, data_dir).await?;
        }
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
            // Addresses that are found later are told of in the Endpoints of the API.
            access: access::open(
                flags,
                authority,
                hosts(flags, settings, flags.advertise_address),
            )?,
            patience: Default::default(),
        };
        let server = apiserver::open(ledger.store.clone(), config).await.context("open the API")?;
        Ok(Plane { server, ledger })
    }

    /// The ways of one node of this process.
    pub(crate) fn clients(&self, node: &str) -> Clients {
        Clients {
            kubelet: self.server.client(&format!("system:node:{node}")),
            proxy: self.server.client("system:kube-proxy"),
            dns: self.server.client("system:dns"),
            known: Known::Everything,
        }
    }
}

/// Every name under which the API is called.
fn hosts(
    flags: &Flags,
    settings: &Settings,
    others: impl IntoIterator<Item = IpAddr>,
) -> Vec<String> {
    let service = "kubernetes.default.svc";
    let mut hosts: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", service].map(str::to_owned).into();
    hosts.push(format!("{service}.{}", flags.cluster_domain));
    hosts.push("127.0.0.1".to_owned());
    hosts.push(flags.service_cidr.address(1).to_string());
    hosts.push(reachable(flags.listen).ip().to_string());
    hosts.extend(others.into_iter().map(|it| it.to_string()));
    // Machines nearby call this one by its name.
    hosts.push(settings.node_name.clone());
    hosts.sort();
    hosts.dedup();
    hosts
}
