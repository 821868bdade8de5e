//! `stanchion node`: one node of a server elsewhere. It joins with a token, gets certificates of its own, and from
//! then on is what the node of `stanchion up` is; only its world comes over HTTPS.

mod certificate;
mod lock;
mod memory;
mod offline;
mod pods;
mod ticket;

pub(crate) use lock::{Lock, take as hold, take_over};
pub(crate) use memory::Memory;
pub(crate) use offline::Offline;
pub(crate) use pods::read as pods_of;
pub(crate) use ticket::hash_of;

use crate::{
    cluster_map,
    config::{Cidr, Cluster, DataDir, NodeFlags, Settings},
    hands::{Clients, Node, Served, Wires},
    ledger, pki, up,
};
use ::network::dns::Known;
use anyhow::{Context, Result, anyhow, bail};
use api::{
    core::v1::{Node as NodeObject, NodeSpec},
    meta::ObjectMeta,
};
use certificate::{Certificate, Use};
use clap::Args;
use client::{
    Client,
    http::{Connection, Remote, Way},
};
use pods::Pods;
use rustls::{ClientConfig, RootCertStore};
use std::{
    net::{IpAddr, ToSocketAddrs, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use stdx::{Backoff, Shutdown, SystemClock};
use ticket::Ticket;
use world::Change;

/// How long a node waits for its share of the cluster's addresses before it says so.
const SHARE: Duration = Duration::from_secs(30);

/// The flags of `node`.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// URL of the server to join: https://10.0.0.1:6443 [default: the one that was joined before]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// A token of `stanchion token create`; needed until the node has a certificate of its own
    #[arg(long)]
    token: Option<String>,
    /// By what to know the server, for a token that does not say it: sha256:HEX of its authority's key
    #[arg(long, value_name = "HASH")]
    discovery_token_ca_cert_hash: Option<String>,
    /// Join with this kubeconfig instead of a token: its server and authority, and its token or certificate
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "token"])]
    kubeconfig: Option<PathBuf>,
    /// Address under which others reach this machine [default: the one that leads to the server]
    #[arg(long, value_name = "ADDRESS")]
    node_ip: Option<IpAddr>,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
}

pub(crate) fn run(flags: &Flags) -> Result<()> {
    let begun = Instant::now();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start")?;
    let done = runtime.block_on(node(flags, begun));
    runtime.shutdown_background();
    done
}

async fn node(flags: &Flags, begun: Instant) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("start a node: it needs root for namespaces and mounts");
    }
    let settings = flags.as_before()?.settle(&flags.data)?;
    not_a_servers(&settings.data_dir)?;
    flags.node_ip.map_or(Ok(()), check_own)?;
    let _held = lock::take(&settings.data_dir)?;
    let home = Home::find(flags, &settings)?;
    let name = settings.node_name.clone();
    let own = Certificate::open(home.dir.clone(), Use::Client, &name, Vec::new())?;
    let own = Arc::new(own);
    if !own.is_there() {
        let first = home.first_way(flags)?;
        let connection = Connection::new(first).context("join")?;
        own.obtain(&connection).await.with_context(|| format!("join {}", home.url()))?;
    }
    home.remember(&settings)?;
    let way = Way {
        authority: home.authority.clone(),
        tls: Arc::new(home.tls()?.with_client_cert_resolver(own.clone()).over_http2()),
        token: None,
    };
    let connection = Arc::new(Connection::new(way)?);
    let (shutdown, signal) = Shutdown::new();
    let stopped = up::stop_requested();
    tokio::pin!(stopped);
    let joined = tokio::select! {
        asked = &mut stopped => return asked,
        joined = join(&home, &settings, &connection) => joined?,
    };
    let Joined { remote, cluster, pods } = joined;
    let remote: Arc<Remote> = Arc::new(remote);
    let client: Arc<dyn Client> = remote.clone();
    let written = Pods::open(&settings.data_dir, &name)?;
    let clients = Clients {
        kubelet: client.clone(),
        proxy: client.clone(),
        dns: client.clone(),
        known: Known::Slices,
    };
    let address = match flags.node_ip {
        Some(address) => address,
        None => towards(&home.authority)?,
    };
    let wires = Wires::open(&settings, &cluster, pods, Some(address), &clients, signal.clone());
    let wires = wires.await?;
    let hosts = vec![name.clone(), address.to_string()];
    let serving = Certificate::open(home.dir.clone(), Use::Serving, &name, hosts)?;
    let serving = Arc::new(serving);
    let served = Served {
        wires: &wires,
        cluster: &cluster,
        pods,
        address,
        tls: pki::mutual(&home.ca, serving.clone())?,
    };
    let opened = Node::open(&flags.node, &settings, Some(served), client, signal.clone()).await?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(written.keep(remote.clone()));
    let kubelet = opened.kubelet.clone();
    tasks.spawn(async move { kubelet.run(signal).await });
    if !serving.is_there() {
        // Now that the Node object says by which address it is known.
        tokio::select! {
            asked = &mut stopped => asked?,
            asked = first_serving(&serving, &connection) => asked,
        }
    }
    let kept = (connection.clone(), remote.clone());
    tasks.spawn(async move { own.keep(&kept.0, || kept.1.reconnect()).await });
    tasks.spawn(async move { serving.keep(&connection, || {}).await });
    let ready_ms = begun.elapsed().as_millis();
    println!("ready in {ready_ms} ms · node {name} of {}", home.url());
    tokio::select! {
        asked = &mut stopped => asked?,
        _ = tasks.join_next() => bail!("a part of the node ended by itself"),
    }
    shutdown.begin();
    Ok(())
}

/// In the data dir of a server, `down` and `reset` would from then on take what is there for a node's alone, and no
/// ledger would keep them from it.
fn not_a_servers(data_dir: &Path) -> Result<()> {
    let state = data_dir.join(ledger::DIRECTORY);
    if state.try_exists().with_context(|| format!("look for {}", state.display()))? {
        bail!(
            "start a node in {}: it is the data dir of a server; name another one with --data-dir",
            data_dir.display()
        );
    }
    Ok(())
}

impl Flags {
    /// A node that has joined has its name and its directory until others are given.
    fn as_before(&self) -> Result<NodeFlags> {
        let before = Memory::read(&self.data.open()?)?.filter(|it| it.server.is_some());
        let before = before.unwrap_or_default();
        let mut flags = self.node.clone();
        flags.node_name = flags.node_name.or(before.name);
        flags.kubelet_dir = flags.kubelet_dir.or(before.kubelet_dir);
        Ok(flags)
    }
}

/// Others would knock at a door that is not there.
fn check_own(address: IpAddr) -> Result<()> {
    match UdpSocket::bind((address, 0)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            bail!("be reached at {address} (--node-ip): this machine has no such address")
        }
        bound => bound.map(drop).with_context(|| format!("be reached at {address} (--node-ip)")),
    }
}

/// Nobody can ask the node for logs before; its pods run all the same.
async fn first_serving(serving: &Certificate, connection: &Connection) {
    if let Some(Err(error)) = stdx::timeout(SHARE, serving.obtain(connection)).await {
        let error = stdx::one_line(error.as_ref());
        tracing::warn!(error, "get a serving certificate for this node");
    }
}

struct Joined {
    remote: Remote,
    cluster: Cluster,
    pods: Cidr,
}

/// Comes to know the cluster and to be known there. A server that is away is waited for: a node that starts before it
/// has nothing else to do.
async fn join(home: &Home, settings: &Settings, connection: &Arc<Connection>) -> Result<Joined> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let name = &settings.node_name;
    loop {
        let attempt = || format!("join {} as node {name}", home.url());
        let opened = async {
            let map = connection.call("GET", cluster_map::PATH, None).await?;
            let remote = Remote::open(connection.clone(), name, Arc::new(SystemClock)).await?;
            introduce(&remote, name).await?;
            Ok::<_, api::Failure>((map, remote))
        };
        let (map, remote) = match opened.await {
            Ok(opened) => opened,
            Err(failure) if matches!(failure.code, 500..) || failure.code == 429 => {
                if backoff.failures() == 0 {
                    tracing::warn!("{}: {failure}; trying again", attempt());
                }
                stdx::sleep(backoff.failed()).await;
                continue;
            }
            Err(failure) => return Err(failure).with_context(attempt),
        };
        let cluster = cluster_map::read(&map).with_context(attempt)?;
        let share = remote.until(|world| {
            let node = world.cluster::<NodeObject>(name)?;
            controllers::node_ipam::share_of(&node).map(str::to_owned)
        });
        let share = stdx::timeout(SHARE, share).await.flatten().ok_or_else(|| {
            anyhow!(
                "{}: it gets no share of {}; nodes that are gone may hold one each",
                attempt(),
                cluster.pods
            )
        })?;
        let pods = share.parse().map_err(|why| anyhow!("{}: read {share}: {why}", attempt()))?;
        return Ok(Joined { remote, cluster, pods });
    }
}

/// The Node object, so that the server can give it a share of the cluster's addresses. The kubelet fills in the rest.
async fn introduce(remote: &Remote, name: &str) -> Result<(), api::Failure> {
    if remote.world().cluster::<NodeObject>(name).is_some() {
        return Ok(());
    }
    let labels = [("kubernetes.io/hostname", name), ("kubernetes.io/os", "linux")];
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ObjectMeta::default()
    };
    let node = NodeObject { metadata, spec: Some(NodeSpec::default()), status: None };
    match remote.write(vec![Change::create(node)]).await {
        Err(failure) if failure.is_already_exists() => Ok(()),
        written => written.map(drop),
    }
}

/// The address from which this machine reaches the server.
pub(crate) fn towards(authority: &str) -> Result<IpAddr> {
    let attempt = || format!("find this machine's address towards {authority}");
    let server = authority.to_socket_addrs().with_context(attempt)?.next();
    let server = server.ok_or_else(|| anyhow!("it has no address")).with_context(attempt)?;
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    // Nothing is sent: the kernel only looks up its routes.
    let socket = UdpSocket::bind((any, 0)).with_context(attempt)?;
    socket.connect(server).with_context(attempt)?;
    Ok(socket.local_addr().with_context(attempt)?.ip())
}

/// The server of this node, and the authority by which it is known.
struct Home {
    dir: PathBuf,
    authority: String,
    ca: String,
    /// Of a kubeconfig: who asks for the first certificate.
    first: Option<crate::connection::Credentials>,
}

const AUTHORITY: &str = "cluster-ca.crt";

impl Home {
    fn find(flags: &Flags, settings: &Settings) -> Result<Home> {
        let dir = settings.data_dir.join("pki");
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        if let Some(path) = &flags.kubeconfig {
            let read = crate::connection::Credentials::read(path)?;
            pki::write_private_if_changed(&dir.join(AUTHORITY), &read.ca)?;
            let (authority, ca) = (read.authority.clone(), read.ca.clone());
            return Ok(Home { dir, authority, ca, first: Some(read) });
        }
        let before = Memory::read(&settings.data_dir)?;
        let url = flags.server.clone().or_else(|| before.and_then(|it| it.server));
        let url = url.ok_or_else(|| anyhow!("join a server: name it with --server"))?;
        let authority = url.strip_prefix("https://").map(|it| it.trim_end_matches('/'));
        let authority =
            authority.ok_or_else(|| anyhow!("join {url}: its URL begins with https://"))?;
        let authority = match authority.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
            _ => format!("{authority}:6443"),
        };
        let path = dir.join(AUTHORITY);
        let ticket = flags
            .token
            .as_deref()
            .map(|token| Ticket::read(token, flags.discovery_token_ca_cert_hash.as_deref()));
        let ca = match (ticket.transpose()?, read_if_there(&path)?) {
            (None, Some(ca)) => ca,
            // A token that was used before may stay in a unit file.
            (Some(ticket), Some(ca)) if ticket.is_of(&ca)? => ca,
            (Some(ticket), before) => {
                let ca = ticket.discover(&authority)?;
                if before.is_some() {
                    // Another cluster: what that one's authority signed is worth nothing there.
                    Certificate::forget(&dir)?;
                }
                pki::write_private(&path, &ca)?;
                ca
            }
            (None, None) => {
                bail!("join {url}: it needs a --token of `stanchion token create`")
            }
        };
        Ok(Home { dir, authority, ca, first: None })
    }

    fn url(&self) -> String {
        format!("https://{}", self.authority)
    }

    fn remember(&self, settings: &Settings) -> Result<()> {
        let memory = Memory {
            name: Some(settings.node_name.clone()),
            kubelet_dir: Some(settings.kubelet_dir.clone()),
            server: Some(self.url()),
        };
        memory.write(&settings.data_dir)
    }

    fn tls(&self) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
        let attempt = "set up TLS";
        let mut roots = RootCertStore::empty();
        for certificate in pki::certificates(&self.ca)? {
            roots.add(certificate).context(attempt)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().context(attempt)?;
        Ok(builder.with_root_certificates(roots))
    }

    /// How the first certificate is asked for.
    fn first_way(&self, flags: &Flags) -> Result<Way> {
        let (tls, token) = match &self.first {
            Some(it) => match it.identity()? {
                Some((chain, key)) => {
                    let tls = self.tls()?.with_client_auth_cert(chain, key);
                    (tls.context("read the kubeconfig's certificate")?, None)
                }
                None => (self.tls()?.with_no_client_auth(), it.token.clone()),
            },
            None => {
                let token = flags.token.as_deref().ok_or_else(|| {
                    anyhow!("join {}: it needs a --token of `stanchion token create`", self.url())
                })?;
                let hash = flags.discovery_token_ca_cert_hash.as_deref();
                let ticket = Ticket::read(token, hash)?;
                (self.tls()?.with_no_client_auth(), Some(ticket.token))
            }
        };
        Ok(Way { authority: self.authority.clone(), tls: Arc::new(tls.over_http2()), token })
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Offers HTTP/2, which is all that a node speaks.
trait Http2 {
    fn over_http2(self) -> Self;
}

impl Http2 for ClientConfig {
    fn over_http2(mut self) -> ClientConfig {
        self.alpn_protocols = vec![b"h2".to_vec()];
        self
    }
}
