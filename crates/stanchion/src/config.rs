//! What a user may say on the command line, checked and completed.

mod node;
pub(crate) mod pod_network;
mod store;

pub(crate) use node::NodeFlags;
use pod_network::PodNetworkFlags;
pub(crate) use store::{EtcdFlags, StoreFlags};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

const DEFAULT_DATA_DIR: &str = "/var/lib/stanchion";

/// Where everything of one instance lies.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct DataDir {
    /// State, images, volumes and certificates of this instance
    #[arg(long, default_value = DEFAULT_DATA_DIR)]
    pub(crate) data_dir: PathBuf,
}

/// Flags at their defaults.
#[derive(Parser)]
struct Recalled {
    #[command(flatten)]
    flags: Flags,
}

/// The flags of `up` and `server`.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Address and port of the API (HTTPS)
    #[arg(long, default_value = "127.0.0.1:6443")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// Admission plugins to switch on besides the default ones
    #[arg(long, value_delimiter = ',')]
    pub(crate) enable_admission_plugins: Vec<String>,
    /// Admission plugins to switch off
    #[arg(long, value_delimiter = ',')]
    pub(crate) disable_admission_plugins: Vec<String>,
    /// How much of which request is told (audit.k8s.io/v1 Policy); needs --audit-log-path
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_policy_file: Option<PathBuf>,
    /// Where requests are told of, one JSON event a line; rotated at 100 MB
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// Which objects are encrypted in the ledger, and with which keys
    /// (apiserver.config.k8s.io/v1 EncryptionConfiguration; aesgcm and identity)
    #[arg(long, value_name = "FILE")]
    pub(crate) encryption_provider_config: Option<PathBuf>,
    /// Where to write the admin's kubeconfig [default: DATA/admin.kubeconfig]
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreFlags,
    /// Address under which nodes and pods reach the API [default: that of --listen, unless it is a loopback one]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) advertise_address: Option<IpAddr>,
    /// How long certificates hold that were asked for: 90m, 24h, 365d
    #[arg(long, value_name = "DURATION", default_value = "365d")]
    pub(crate) cluster_signing_duration: Life,
    /// How many pods that have ended are kept before the oldest are removed; 0: all
    #[arg(long, value_name = "N", default_value = "12500")]
    pub(crate) terminated_pod_gc_threshold: usize,
    /// Control plane only
    #[arg(long)]
    pub(crate) no_node: bool,
    /// Addresses of pods
    #[arg(long, default_value = "10.244.0.0/16")]
    pub(crate) cluster_cidr: Cidr,
    #[command(flatten)]
    pub(crate) pod_network: PodNetworkFlags,
    /// Addresses of services
    #[arg(long, default_value = "10.96.0.0/12")]
    pub(crate) service_cidr: Cidr,
    /// Address of the cluster's DNS [default: the tenth of the service addresses]
    #[arg(long)]
    pub(crate) cluster_dns: Option<Ipv4Addr>,
    /// Domain of the cluster
    #[arg(long, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Apply these manifests once ready, and show progress until they are Ready (repeatable)
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) apply: Vec<PathBuf>,
}

/// Flags with everything that they leave open filled in. `up` leaves them in the data dir for `down`.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) instance: String,
    pub(crate) kubelet_dir: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) node_name: String,
}

/// Addresses and names that all nodes of a cluster share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) pods: Cidr,
    pub(crate) services: Cidr,
    pub(crate) dns: Ipv4Addr,
    pub(crate) domain: String,
    /// How packets between pods of different nodes are carried.
    pub(crate) pod_network: network::PodNetwork,
}

/// In the data dir: what `down` has to know of the `up` before it.
const NODE_FILE: &str = "node.json";

impl Settings {
    /// Leaves in the data dir what the next `down` needs.
    pub(crate) fn remember(&self, flags: &Flags) -> Result<()> {
        let (name, kubelet_dir) = (&self.node_name, &self.kubelet_dir);
        let keys = flags.encryption_provider_config.as_deref().map(std::path::absolute);
        let keys = keys.transpose().context("find the encryption config")?;
        let etcd = flags.store.tls.absolute().context("find the certificates of etcd")?;
        let text = serde_json::json!({
            "name": name, "kubeletDir": kubelet_dir, "encryptionProviderConfig": keys,
            "store": flags.store.store, "etcdCafile": etcd.etcd_cafile,
            "etcdCertfile": etcd.etcd_certfile, "etcdKeyfile": etcd.etcd_keyfile,
        });
        let text = text.to_string();
        crate::pki::write_private(&self.data_dir.join(NODE_FILE), &text)
    }
}

impl Flags {
    /// The flags of the last `up` on this data dir, as far as `down` needs them.
    pub(crate) fn recall(data: &DataDir) -> Result<Flags> {
        let path = data.existing()?.join(NODE_FILE);
        let flags = Recalled::parse_from(["stanchion"]).flags;
        let flags = Flags { data: data.clone(), ..flags };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(flags),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let value: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        let field = |name: &str| value[name].as_str().map(str::to_owned);
        let node = NodeFlags {
            node_name: field("name"),
            kubelet_dir: field("kubeletDir").map(PathBuf::from),
            ..flags.node
        };
        let store = StoreFlags {
            store: field("store").unwrap_or(flags.store.store),
            tls: EtcdFlags {
                etcd_cafile: field("etcdCafile").map(PathBuf::from),
                etcd_certfile: field("etcdCertfile").map(PathBuf::from),
                etcd_keyfile: field("etcdKeyfile").map(PathBuf::from),
            },
        };
        Ok(Flags {
            node,
            store,
            encryption_provider_config: field("encryptionProviderConfig").map(PathBuf::from),
            ..flags
        })
    }

    pub(crate) fn settle(&self) -> Result<Settings> {
        self.store.check()?;
        self.cluster_cidr.check()?;
        let mut settings = self.node.settle(&self.data)?;
        if let Some(named) = &self.kubeconfig {
            settings.kubeconfig.clone_from(named);
        }
        Ok(settings)
    }

    pub(crate) fn cluster(&self) -> Cluster {
        Cluster {
            pods: self.cluster_cidr,
            services: self.service_cidr,
            dns: self.cluster_dns.unwrap_or_else(|| self.service_cidr.address(10)),
            domain: self.cluster_domain.clone(),
            pod_network: self.pod_network.pod_network(),
        }
    }
}

/// The kubelet dir of a data dir, unless the user names one.
pub(crate) fn kubelet_dir(data_dir: &Path, named: Option<&Path>) -> PathBuf {
    match named {
        Some(dir) => dir.to_owned(),
        None if data_dir == Path::new(DEFAULT_DATA_DIR) => "/var/lib/kubelet".into(),
        None => data_dir.join("kubelet"),
    }
}

/// Flags of `kubeconfig`.
#[derive(Args, Clone, Debug)]
pub(crate) struct KubeconfigFlags {
    #[command(flatten)]
    data: DataDir,
    /// Address of the server
    #[arg(long, default_value = "https://127.0.0.1:6443")]
    server: String,
}

impl KubeconfigFlags {
    pub(crate) fn print(&self) -> Result<()> {
        print!(
            "{}",
            crate::pki::Authority::open(&self.data.existing()?)?.kubeconfig(&self.server)?
        );
        Ok(())
    }
}

impl DataDir {
    /// Makes the directory if it is not there, and says where it really is.
    pub(crate) fn open(&self) -> Result<PathBuf> {
        let attempt = || format!("open data dir {}", self.data_dir.display());
        std::fs::create_dir_all(&self.data_dir).with_context(attempt)?;
        let data_dir = self.data_dir.canonicalize().with_context(attempt)?;
        crate::format::migrate(&data_dir)?;
        Ok(data_dir)
    }

    /// Where the directory really is. Whoever only looks at one, or ends it, makes none.
    pub(crate) fn existing(&self) -> Result<PathBuf> {
        let attempt = || format!("open data dir {}", self.data_dir.display());
        let data_dir = self.data_dir.canonicalize().with_context(attempt)?;
        crate::format::check(&data_dir)?;
        Ok(data_dir)
    }
}

/// Six letters that are this data dir's own: in the names of interfaces, cgroups and sockets, so that
/// several instances live side by side on one host.
pub(crate) fn instance(data_dir: &Path) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let bytes = data_dir.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{:06x}", (hash ^ hash >> 32) & 0xff_ffff)
}

fn host_name() -> Result<String> {
    let text =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("read the host's name")?;
    Ok(text.trim().to_lowercase())
}

/// `90m`, `24h`, `7d`, `30s`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life(pub(crate) Duration);

impl std::str::FromStr for Life {
    type Err = String;

    fn from_str(text: &str) -> Result<Life, String> {
        let wrong = || "expected a number and s, m, h or d".to_owned();
        let (number, seconds) = match text.as_bytes().last() {
            Some(b's') => (&text[..text.len() - 1], 1),
            Some(b'm') => (&text[..text.len() - 1], 60),
            Some(b'h') => (&text[..text.len() - 1], 3600),
            Some(b'd') => (&text[..text.len() - 1], 86400),
            _ if text == "0" => return Ok(Life(Duration::ZERO)),
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        Ok(Life(Duration::from_secs(number.saturating_mul(seconds))))
    }
}

/// A range of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    pub(crate) base: Ipv4Addr,
    pub(crate) bits: u8,
}

impl Cidr {
    /// The address at an offset from the first.
    pub(crate) fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).saturating_add(offset))
    }

    /// Fails where it has no room for pods.
    fn check(self) -> Result<()> {
        if self.bits > 28 {
            bail!("divide cluster CIDR {self}: it has no room for pods, use a /28 or larger");
        }
        Ok(())
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr, String> {
        let (address, bits) = text.split_once('/').ok_or("expected ADDRESS/BITS")?;
        let address: IpAddr = address.parse().map_err(|_| format!("{address:?} is no address"))?;
        let IpAddr::V4(base) = address else { return Err("only IPv4 ranges are there".to_owned()) };
        let bits: u8 = bits.parse().ok().filter(|it| *it <= 32).ok_or("expected 0 to 32 bits")?;
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        if u32::from(base) & !mask != 0 {
            return Err(format!("{base} is not the first address of a /{bits}"));
        }
        Ok(Cidr { base, bits })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_different_data_dirs_have_different_names() {
        assert_ne!(instance(Path::new("/a")), instance(Path::new("/b")));
        assert_eq!(instance(Path::new("/a")).len(), 6);
    }

    #[test]
    fn lives_are_read_exactly() {
        let life = |text: &str| text.parse::<Life>().map(|it| it.0);
        assert_eq!(life("90m").unwrap(), Duration::from_secs(5400));
        assert_eq!(life("0").unwrap(), Duration::ZERO);
        for text in ["", "h", "5", "1y", "-1h", "1.5h"] {
            assert!(life(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_are_read_exactly() {
        let cidr: Cidr = "10.96.0.0/12".parse().unwrap();
        assert_eq!(cidr.address(10), Ipv4Addr::new(10, 96, 0, 10));
        assert!("10.244.0.0/29".parse::<Cidr>().unwrap().check().is_err());
        for text in ["10.96.0.1/12", "10.96.0.0", "x/1", "10.0.0.0/33", "fd00::/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
