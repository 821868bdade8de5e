//! Names of the cluster, answered from the World: what a pod's name says is what the ledger says at
//! that moment, with no copy in between. Every other name goes to the host's own resolvers.
//!
//! [`answer()`] decides and does nothing else; [`Server`] carries bytes. Facts: the Kubernetes DNS
//! specification 1.1.0, and CoreDNS's kubernetes plugin where the specification leaves a choice.

mod answer;
mod forward;
mod message;
mod names;
mod resolv_conf;
mod reverse;
mod server;
mod service;
mod short;
mod zone;

pub use answer::{Answer, answer};
pub use server::{Config, Server};
pub use zone::{Known, Zone};

use std::{io, net::SocketAddr};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is not a name for a cluster domain, such as cluster.local")]
    Domain(String),
    #[error("listening for DNS on {protocol} {address}")]
    Listen {
        address: SocketAddr,
        protocol: &'static str,
        #[source]
        source: io::Error,
    },
}
