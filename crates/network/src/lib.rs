//! The node's network: pod interfaces and addresses, and names.
//!
//! [`Network`] does what a sandbox needs (an `eth0` with an address of the node's pod range);
//! [`dns`] answers names from the World; [`service`] carries packets for Services to their endpoints; [`peers`] carries
//! those for pods of other nodes there. None of them knows the runtime: the binary brings them together.

mod address;
mod cidr;
pub mod dns;
mod error;
mod follow;
mod interface;
mod namespace;
mod netfilter;
mod netlink;
pub mod peers;
pub mod service;
mod uplink;

pub use cidr::Ipv4Cidr;
pub use error::Error;

use address::Addresses;
use interface::Bridge;
use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use stdx::one_line;
use tokio::sync::Semaphore;

/// Threads at work on interfaces at once. The kernel lets one change interfaces at a time anyway.
const THREADS_MAX: usize = 8;

/// The longest name that the kernel gives an interface.
const NAME_LENGTH_MAX: usize = 15;

/// What one node's network is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// Tells this instance's interfaces from those of another one on the machine.
    pub instance: String,
    /// The bridge's name, usually [`bridge_name`] of the instance.
    pub bridge: String,
    /// The node's pod range; its first address is the gateway.
    pub pod_cidr: Ipv4Cidr,
    /// Put on the bridge, so that pods and host reach the DNS server there without translation.
    pub dns_address: Ipv4Addr,
    /// Keeps the addresses given, below `network/`.
    pub data_dir: PathBuf,
    /// How other nodes reach this one; `None`: none does.
    pub reach: Option<Reach>,
}

/// How nodes reach each other, and each other's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// This node's, for the others: its InternalIP.
    pub address: Ipv4Addr,
    pub by: PodNetwork,
}

/// What carries packets between pods of different nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNetwork {
    /// In UDP datagrams between nodes, wherever these are: 50 bytes of each packet are the envelope's.
    Vxlan {
        /// Tells this cluster's packets from those of others, in 24 bits.
        vni: u32,
        port: u16,
    },
    /// As they are, by routes: nodes have to be on one segment.
    HostRoutes,
}

impl PodNetwork {
    /// Bytes of each packet that pods cannot use. Of an envelope's 50 are 14 of Ethernet, 8 of vxlan, 8 of UDP, 20 of IP.
    fn overhead(self) -> u32 {
        match self {
            PodNetwork::Vxlan { .. } => 50,
            PodNetwork::HostRoutes => 0,
        }
    }
}

/// The node's side of the pod network, up and running. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bridge: Bridge,
    addresses: Mutex<Addresses>,
    threads: Semaphore,
}

impl Network {
    /// Makes the bridge, or takes over the one of an earlier run with the pods that it still has.
    ///
    /// # Errors
    /// [`Error::Taken`] when another interface of the host has an address of the range.
    pub async fn start(config: Config) -> Result<Network, Error> {
        check_name(&config.bridge)?;
        let shared = namespace::on_thread(move || {
            let bridge = Bridge {
                mtu: uplink::pods_mtu(&config.bridge, config.reach)?,
                instance: config.instance,
                name: config.bridge,
                range: config.pod_cidr,
                dns: config.dns_address,
            };
            interface::ensure_bridge(&bridge)?;
            let directory = config.data_dir.join("network");
            let mut addresses = Addresses::open(bridge.range, &directory)?;
            for attached in interface::attached(&bridge)? {
                if let Some(address) = attached.address {
                    addresses.adopt(&attached.sandbox, address)?;
                }
            }
            let threads = Semaphore::new(THREADS_MAX);
            Ok(Shared { bridge, addresses: Mutex::new(addresses), threads })
        });
        Ok(Network { shared: Arc::new(shared.await?) })
    }

    /// Gives the network namespace of process `netns_pid` an `eth0` with an address and a default
    /// route. Repeating it for the same sandbox gives the same address.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when every address of the range is held; [`Error::HostNamespace`] when
    /// the process shares the host's namespace. After an error the sandbox holds nothing.
    pub async fn attach(&self, sandbox_id: &str, netns_pid: u32) -> Result<IpAddr, Error> {
        let sandbox = sandbox_id.to_owned();
        self.on_thread(move |shared| {
            let address = shared.addresses().allocate(&sandbox)?;
            let attached = interface::attach(&shared.bridge, &sandbox, netns_pid, address);
            if let Err(error) = attached {
                // The caller hears of the failure itself, not of the cleaning up after it: what that
                // leaves behind is for the next detach or sweep.
                let name = &shared.bridge.instance;
                let cleaned = interface::detach(name, &sandbox);
                if let Err(why) = cleaned.and_then(|()| shared.addresses().release(&sandbox)) {
                    tracing::warn!("cleaning up after sandbox {sandbox}: {}", one_line(&why));
                }
                return Err(error);
            }
            Ok(IpAddr::V4(address))
        })
        .await
    }

    /// Takes the sandbox's interface and address away. Nothing happens where there are none, or where
    /// they went with the namespace.
    pub async fn detach(&self, sandbox_id: &str) -> Result<(), Error> {
        let sandbox = sandbox_id.to_owned();
        self.on_thread(move |shared| {
            interface::detach(&shared.bridge.instance, &sandbox)?;
            shared.addresses().release(&sandbox)
        })
        .await
    }

    /// Removes interfaces and addresses of sandboxes that are not among `living`, and says how many
    /// interfaces went.
    pub async fn sweep(&self, living: Vec<String>) -> Result<usize, Error> {
        self.on_thread(move |shared| {
            let lives = |sandbox: &str| living.iter().any(|it| it == sandbox);
            let mut removed = 0;
            for attached in interface::attached(&shared.bridge)? {
                if !lives(&attached.sandbox) {
                    interface::remove_attached(&attached)?;
                    removed += 1;
                }
            }
            shared.addresses().retain(lives)?;
            Ok(removed)
        })
        .await
    }

    /// The node's address on the bridge: the pods' gateway.
    pub fn host_gateway(&self) -> IpAddr {
        IpAddr::V4(self.shared.bridge.range.gateway())
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.shared.clone();
        let _place = self.shared.threads.acquire().await.map_err(|_| Error::Thread(None))?;
        namespace::on_thread(move || work(&shared)).await
    }
}

impl Shared {
    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        // Each change is whole before the next begins, so a panic elsewhere spoils nothing here.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bridge of an instance: `stn<instance>`, cut to what the kernel takes.
pub fn bridge_name(instance: &str) -> String {
    let mut name = format!("stn{instance}");
    name.retain(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_');
    name.truncate(NAME_LENGTH_MAX);
    name
}

/// Removes the rules of the instance and every interface, its bridge last, and says how many there were. For
/// `stanchion down`: no pod of the instance may be running.
pub async fn remove_all(instance: &str, bridge: &str) -> Result<usize, Error> {
    let (instance, bridge) = (instance.to_owned(), bridge.to_owned());
    namespace::on_thread(move || interface::remove_all(&instance, &bridge)).await
}

fn check_name(bridge: &str) -> Result<(), Error> {
    let letter = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
    let good = (1..=NAME_LENGTH_MAX).contains(&bridge.len()) && bridge.chars().all(letter);
    if good { Ok(()) } else { Err(Error::BridgeName(bridge.to_owned())) }
}
