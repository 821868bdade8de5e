//! What can go wrong on the way to a pod's network, each saying what was attempted on what.

use crate::Ipv4Cidr;
use std::{io, net::Ipv4Addr, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is not an IPv4 range such as 10.244.0.0/24, with a prefix of 8 to 29 bits")]
    Range(String),
    #[error("{0:?} is not a name for a bridge: 1 to 15 characters of a-z, A-Z, 0-9, - and _")]
    BridgeName(String),
    #[error(
        "{address} is already on interface {interface:?}: two networks in one range cannot both be \
         reached; choose another --cluster-cidr or --cluster-dns, or remove that interface"
    )]
    Taken { address: Ipv4Addr, interface: String },
    #[error("{name:?} exists and is not a bridge of ours")]
    NotOurs { name: String },
    #[error(
        "another network of this machine has number {vni} on port {port}: two in one cannot be told \
         apart; choose another --vxlan-vni or --vxlan-port, for all nodes alike"
    )]
    VniTaken { vni: u32, port: u16 },
    #[error("{0} of the other nodes cannot be reached: {1}")]
    Unreachable(usize, String),
    #[error("{range} has no free address: {leased} pods hold all of it")]
    Exhausted { range: Ipv4Cidr, leased: usize },
    #[error(
        "process {pid} is in the network namespace of the host: it gets no interface of its own"
    )]
    HostNamespace { pid: u32 },
    #[error("{attempted}")]
    Interface {
        attempted: String,
        #[source]
        source: io::Error,
    },
    #[error("{attempted} {path}", path = path.display())]
    File {
        attempted: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the thread that works on interfaces ended early")]
    Thread(#[source] Option<io::Error>),
}

/// Adds to an IO error what it interrupted.
pub(crate) trait Attempted<T> {
    fn attempted(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Attempted<T> for io::Result<T> {
    fn attempted(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Interface { attempted: what(), source })
    }
}
