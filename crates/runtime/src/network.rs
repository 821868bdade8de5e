//! What the runtime needs of a pod network; the binary brings the two together.

use rpc::cri::PortMapping;
use std::net::IpAddr;
use stdx::BoxFuture;

pub type NetworkError = Box<dyn std::error::Error + Send + Sync>;

/// A sandbox that wants an interface.
#[derive(Clone, Debug)]
pub struct PodAttachment {
    /// The sandbox's id, which names everything that is made for it.
    pub sandbox: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// A process in the pod's network namespace (`/proc/<pid>/ns/net`).
    pub pid: i32,
    pub ports: Vec<PortMapping>,
}

/// Connects sandboxes. Both verbs may be repeated.
pub trait PodNetwork: Send + Sync {
    /// Gives the pod an interface; returns its addresses, the primary one first.
    fn attach<'a>(
        &'a self,
        pod: &'a PodAttachment,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>>;

    /// Takes back what `attach` gave. A sandbox that is not attached is no error.
    fn detach<'a>(&'a self, sandbox: &'a str) -> BoxFuture<'a, Result<(), NetworkError>>;
}
