//! The hands of this process: the network and the kubelet of one node, wherever its world comes from.

use crate::{
    config::{Cidr, Cluster, NodeFlags, Settings},
    image,
    network::{Interfaces, Nothing},
};
use ::network::{
    Ipv4Cidr, Network, Reach, dns,
    peers::{self, Peers},
    service::{self, Translation},
};
use ::runtime::{Embedded, PodNetwork};
use anyhow::{Context, Result, anyhow};
use client::Client;
use kubelet::{Kubelet, runtime::cri::Cri};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};
use stdx::{ShutdownSignal, SystemClock, SystemEntropy};

/// The API that is spoken here, and by whom.
pub(crate) const VERSION: &str = concat!("v1.36.0+stanchion.", env!("CARGO_PKG_VERSION"));

/// How the parts of a node reach the ledger, each as whom it is.
pub(crate) struct Clients {
    pub(crate) kubelet: Arc<dyn Client>,
    pub(crate) proxy: Arc<dyn Client>,
    pub(crate) dns: Arc<dyn Client>,
    /// What their worlds show.
    pub(crate) known: dns::Known,
}

/// What a node needs that is to serve.
pub(crate) struct Served<'a> {
    pub(crate) wires: &'a Wires,
    pub(crate) cluster: &'a Cluster,
    /// This node's share of the cluster's addresses.
    pub(crate) pods: Cidr,
    /// Where others reach this machine.
    pub(crate) address: IpAddr,
    pub(crate) tls: Arc<rustls::ServerConfig>,
}

/// The hands of this process.
pub(crate) struct Node {
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) runtime: Embedded,
}

/// The network of this node: interfaces for pods, Services' addresses and the cluster's DNS.
pub(crate) struct Wires {
    pub(crate) network: Network,
}

impl Wires {
    /// `pods`: this node's share of the cluster's addresses. `outside`: where other nodes reach this one, if they do.
    pub(crate) async fn open(
        settings: &Settings,
        cluster: &Cluster,
        pods: Cidr,
        outside: Option<IpAddr>,
        clients: &Clients,
        signal: ShutdownSignal,
    ) -> Result<Wires> {
        let cidr = |it: Cidr| -> Result<Ipv4Cidr> {
            it.to_string().parse().map_err(|error| anyhow!("read range {it}: {error}"))
        };
        let reach = outside.map(|it| match it {
            IpAddr::V4(address) => Ok(Reach { address, by: cluster.pod_network }),
            IpAddr::V6(address) => {
                Err(anyhow!("reach other nodes from {address}: it has to be IPv4"))
            }
        });
        let reach = reach.transpose()?;
        let network = Network::start(::network::Config {
            instance: settings.instance.clone(),
            bridge: ::network::bridge_name(&settings.instance),
            pod_cidr: cidr(pods)?,
            dns_address: cluster.dns,
            data_dir: settings.data_dir.clone(),
            reach,
        })
        .await
        .context("start the pod network")?;
        let zone = dns::Zone::new(
            &cluster.domain,
            vec![cidr(cluster.pods)?, cidr(cluster.services)?],
            vec![IpAddr::V4(cluster.dns)],
        )
        .context("make the cluster's DNS zone")?
        .knowing(clients.known);
        let names = dns::Server::bind(dns::Config {
            listen: vec![SocketAddr::new(IpAddr::V4(cluster.dns), 53)],
            zone,
            resolv_conf: "/etc/resolv.conf".into(),
        })
        .await
        .context("start the cluster's DNS")?;
        tokio::spawn(names.serve(clients.dns.clone(), signal.clone()));
        let translation = Translation::new(service::Config {
            instance: settings.instance.clone(),
            bridge: ::network::bridge_name(&settings.instance),
            node_name: settings.node_name.clone(),
            cluster_cidr: cidr(cluster.pods)?,
            service_cidr: cidr(cluster.services)?,
            dns_address: cluster.dns,
        });
        tokio::spawn(translation.serve(clients.proxy.clone(), signal.clone()));
        if let Some(reach) = reach {
            let peers = Peers::new(peers::Config {
                instance: settings.instance.clone(),
                node_name: settings.node_name.clone(),
                pod_cidr: cidr(pods)?,
                cluster_cidr: cidr(cluster.pods)?,
                reach,
            });
            tokio::spawn(peers.serve(clients.proxy.clone(), signal));
        }
        Ok(Wires { network })
    }
}

impl Node {
    /// Takes back what runs on this machine. Unserved, no pod can be started, nobody can ask the node, and
    /// it says nothing of itself: enough to take it down.
    pub(crate) async fn open(
        flags: &NodeFlags,
        settings: &Settings,
        served: Option<Served<'_>>,
        client: Arc<dyn Client>,
        signal: ShutdownSignal,
    ) -> Result<Node> {
        let images = image::open(&settings.data_dir)?;
        if served.is_some() {
            images.import_builtin().context("import the built-in images")?;
        }
        let registries = image::registries(&settings.data_dir)?;
        let network: Arc<dyn PodNetwork> = match &served {
            Some(it) => Arc::new(Interfaces(it.wires.network.clone())),
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
        if let Some(it) = &served {
            let living = runtime.sandbox_ids();
            it.wires.network.sweep(living).await.context("sweep interfaces of gone pods")?;
        }
        let told = |it: &dyn Fn(&Served<'_>) -> String| served.as_ref().map(it).unwrap_or_default();
        let config = kubelet::Config {
            node_name: settings.node_name.clone(),
            node_address: match &served {
                Some(it) => it.address.to_string(),
                None => Ipv4Addr::LOCALHOST.to_string(),
            },
            kubelet_dir: settings.kubelet_dir.clone(),
            log_dir: settings.data_dir.join("log/pods"),
            data_dir: settings.data_dir.clone(),
            manifests: match &flags.pod_manifest_path {
                Some(path) => path.clone(),
                None => settings.data_dir.join("manifests"),
            },
            pod_cidr: told(&|it| it.pods.to_string()),
            cluster_dns: told(&|it| it.cluster.dns.to_string()),
            cluster_domain: told(&|it| it.cluster.domain.clone()),
            port: flags.kubelet_port,
            tls: served.as_ref().map(|it| it.tls.clone()),
            registers: served.is_some(),
            // The embedded runtime has a root of its own, by instance.
            cgroup_root: String::new(),
            instance: settings.instance.clone(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::default()),
            version: VERSION.to_owned(),
            limits: flags.limits(),
            upkeep: flags.upkeep(),
        };
        let plugins = volumes::plugins(&volumes::Config {
            data_dir: settings.data_dir.clone(),
            node_name: settings.node_name.clone(),
            instance: settings.instance.clone(),
        });
        let cri = Arc::new(Cri::new(runtime.services()));
        let kubelet =
            kubelet::start(config, client, cri, plugins).await.context("start the node")?;
        Ok(Node { kubelet: Arc::new(kubelet), runtime })
    }
}
