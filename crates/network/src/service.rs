//! Services' addresses and node ports: packets that are for them go to one of their endpoints.
//!
//! What should be is computed from the World and compared with what is; a difference becomes one transaction, so no
//! packet ever meets half a change. Connections that are open are the kernel's and stay, whatever becomes of this
//! process. Rules stay, too, when the server stops: containers go on, and so do their Services.
//! Upstream: `pkg/proxy/nftables/proxier.go` (1.36).

mod host_ports;
mod ports;
mod rules;

use crate::{
    Error, Ipv4Cidr,
    error::Attempted,
    follow::{self, Follows},
    interface, namespace,
    netfilter::connections,
};
use client::Client;
use ports::{Port, UDP};
use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};
use stdx::ShutdownSignal;
use world::{Touched, World};

/// What a node's translation is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// Tells this instance's table from those of another one on the machine.
    pub instance: String,
    pub bridge: String,
    /// Endpoints on this node are its own.
    pub node_name: String,
    /// The pods of all nodes: what leaves this range bears the node's address.
    pub cluster_cidr: Ipv4Cidr,
    pub service_cidr: Ipv4Cidr,
    /// Of the service range, and served by the node itself.
    pub dns_address: Ipv4Addr,
}

/// Keeps the kernel's rules as the World says.
#[derive(Debug)]
pub struct Translation {
    config: Config,
    /// What the kernel has; `None`: unknown.
    known: Option<Vec<Port>>,
}

impl Translation {
    pub fn new(config: Config) -> Translation {
        Translation { config, known: None }
    }

    /// Follows the World until shutdown begins or the feed ends.
    pub async fn serve(self, client: Arc<dyn Client>, shutdown: ShutdownSignal) {
        follow::serve(self, client, shutdown).await;
    }

    /// Brings the kernel to what this world says, in one transaction. After an error the next one starts from nothing.
    pub async fn bring(&mut self, world: &World) -> Result<(), Error> {
        let wanted = ports::of_world(world, &self.config.node_name);
        if self.known.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let (config, known, next) = (self.config.clone(), self.known.take(), wanted.clone());
        namespace::on_thread(move || {
            let started = known.is_some();
            if !started {
                interface::route_services(&config.bridge, config.service_cidr)?;
            }
            let table = rules::table(&config.instance);
            rules::change(&config, known.as_deref(), &next)
                .commit()
                .attempted(|| format!("changing the table {table} of nf_tables"))?;
            if !started {
                // Not before the rules: they keep what comes by the bridge off the machine's loopback addresses.
                interface::answer_loopback(&config.bridge);
            }
            forget(known.as_deref().unwrap_or_default(), &next)
        })
        .await?;
        self.known = Some(wanted);
        Ok(())
    }
}

impl Follows for Translation {
    const WHAT: &'static str = "Services' addresses";

    fn concerns(touched: &Touched) -> bool {
        ports::concerns(touched)
    }

    async fn bring(&mut self, world: &World) -> Result<(), Error> {
        Translation::bring(self, world).await
    }
}

/// A client that goes on sending datagrams would go on reaching an endpoint that is gone, or nobody, for as long as it
/// does: each of its packets keeps the translation of the first. So would one whose first packet nobody answered: it
/// sends the same again, for two minutes.
fn forget(before: &[Port], now: &[Port]) -> Result<(), Error> {
    let changed = |it: &&Port| !now.contains(it);
    let new = |it: &&Port| it.protocol == UDP && !before.contains(it);
    let concerned: Vec<&Port> =
        before.iter().filter(changed).chain(now.iter().filter(new)).collect();
    if concerned.is_empty() {
        return Ok(());
    }
    let places = |it: &&Port| it.places().map(|place| (it.protocol, place)).collect::<Vec<_>>();
    let asked: BTreeSet<(u8, connections::End)> = concerned.iter().flat_map(places).collect();
    let node_ports: BTreeSet<(u8, u16)> =
        concerned.iter().filter_map(|it| Some((it.protocol, it.node_port?))).collect();
    let of = |it: &Port| it.endpoints().map(|end| (it.protocol, end)).collect::<Vec<_>>();
    let endpoints: BTreeSet<(u8, connections::End)> = now.iter().flat_map(of).collect();
    let stale = |it: &connections::Connection| {
        let by_node_port =
            node_ports.contains(&(it.protocol, it.asked.1)) && it.answers != it.asked;
        (it.protocol == UDP || !it.answered)
            && (asked.contains(&(it.protocol, it.asked)) || by_node_port)
            && !endpoints.contains(&(it.protocol, it.answers))
    };
    let forgotten = connections::forget(stale)
        .attempted(|| "forgetting connections of endpoints that are gone".to_owned())?;
    if forgotten > 0 {
        tracing::debug!("forgot {forgotten} flows of endpoints that are gone");
    }
    Ok(())
}

/// Removes the instance's table; nothing happens where there is none.
pub(crate) fn remove(instance: &str) -> Result<(), Error> {
    let table = rules::table(instance);
    let removed = rules::remove(instance).commit();
    let absent = |it: &std::io::Error| {
        // A kernel without nf_tables has no table of ours.
        matches!(it.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EINVAL))
    };
    match removed {
        Err(error) if absent(&error) => Ok(()),
        removed => removed.attempted(|| format!("removing the table {table} of nf_tables")),
    }
}
