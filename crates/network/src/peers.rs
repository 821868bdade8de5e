//! Pods of other nodes: packets for them are carried to their node, in envelopes (vxlan) or by routes.
//!
//! Each node is told of in the World with an address and a range of pods; that is all a peer is. The hardware address of
//! its end of the tunnel follows from its range, so nodes have nothing to tell each other and nothing is learned.
//! What the kernel has is compared with what should be: a restart changes nothing, and nothing stays of a node that is
//! gone. Upstream has no such part: it leaves this to network plugins; entries are as flannel makes them.

mod nodes;
mod routes;
pub(crate) mod vtep;

use crate::{
    Error, Ipv4Cidr, PodNetwork, Reach,
    follow::{self, Follows},
    namespace,
};
use client::Client;
use nodes::Peer;
use std::sync::Arc;
use stdx::ShutdownSignal;
use world::{Touched, World};

/// What the way to other nodes is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// Tells this instance's routes and interface from those of another one on the machine.
    pub instance: String,
    pub node_name: String,
    /// This node's own range.
    pub pod_cidr: Ipv4Cidr,
    /// Ranges of peers lie in it.
    pub cluster_cidr: Ipv4Cidr,
    pub reach: Reach,
}

/// Keeps the kernel's ways to other nodes' pods as the World says.
#[derive(Debug)]
pub struct Peers {
    config: Config,
    /// Whom the kernel knows; `None`: unknown.
    known: Option<Vec<Peer>>,
}

impl Peers {
    pub fn new(config: Config) -> Peers {
        Peers { config, known: None }
    }

    /// Follows the World until shutdown begins or the feed ends. Ways stay when the server stops: containers go on.
    pub async fn serve(self, client: Arc<dyn Client>, shutdown: ShutdownSignal) {
        follow::serve(self, client, shutdown).await;
    }

    /// Brings the kernel to what this world says. After an error it is compared anew; what can be done is done.
    ///
    /// # Errors
    /// [`Error::VniTaken`] when another instance of this network namespace has the number;
    /// [`Error::Unreachable`] when there is no route to a node, or, with host routes, when it is on another segment.
    pub async fn bring(&mut self, world: &World) -> Result<(), Error> {
        // Nothing is known before the ledger is read: what an earlier run left is still true.
        if world.revision == 0 {
            return Ok(());
        }
        let config = &self.config;
        let wanted =
            nodes::of_world(world, &config.node_name, config.cluster_cidr, config.pod_cidr);
        if self.known.as_ref() == Some(&wanted) {
            return Ok(());
        }
        self.known = None;
        let (config, next) = (self.config.clone(), wanted.clone());
        namespace::on_thread(move || carry(&config, &next)).await?;
        self.known = Some(wanted);
        Ok(())
    }
}

impl Follows for Peers {
    const WHAT: &'static str = "the way to other nodes";

    fn concerns(touched: &Touched) -> bool {
        nodes::concerns(touched)
    }

    async fn bring(&mut self, world: &World) -> Result<(), Error> {
        Peers::bring(self, world).await
    }
}

fn carry(config: &Config, peers: &[Peer]) -> Result<(), Error> {
    match config.reach.by {
        PodNetwork::Vxlan { vni, port } if !peers.is_empty() => {
            let wanted = vtep::Vtep {
                instance: config.instance.clone(),
                range: config.pod_cidr,
                local: config.reach.address,
                vni,
                port,
            };
            let interface = vtep::ensure(&wanted)?;
            vtep::know(interface, peers)?;
            routes::bring(&config.instance, peers, Some(interface))
        }
        // Without a peer there is nothing to carry, and the number is left to others.
        PodNetwork::Vxlan { .. } => remove(&config.instance).map(drop),
        PodNetwork::HostRoutes => {
            routes::bring(&config.instance, peers, None)?;
            vtep::remove(&config.instance).map(drop)
        }
    }
}

/// Removes the instance's routes and its end of the tunnel, and says how many interfaces went.
pub(crate) fn remove(instance: &str) -> Result<usize, Error> {
    routes::bring(instance, &[], None)?;
    vtep::remove(instance)
}
