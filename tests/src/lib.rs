//! What stories need: a cluster of one's own, kubectl, and waiting for a condition.
//!
//! [`Cluster::start`] runs the real binary with a data dir, ports and address ranges that nobody else has,
//! so that stories run side by side. When a story fails, its cluster says all it knows before it goes.
#![forbid(unsafe_code)]

mod chance;
mod cluster;
mod etcd;
mod hosts;
mod kubectl;
mod machine;
mod nfs_server;
mod program;
mod python;
pub mod registry;
mod until;
mod watch;

pub use chance::Chance;
pub use cluster::{Cluster, Options};
pub use etcd::Etcd;
pub use hosts::{Host, Hosts, Running, in_network_of};
pub use kubectl::{Kubectl, Said, is_ready};
pub use machine::{leftovers, process_of};
pub use nfs_server::NfsServer;
pub use program::{Images, images, stanchion};
pub use python::python;
pub use until::{PATIENCE, until};
pub use watch::Watch;
