//! Routes to peers' ranges. Ours bear a number of their own in place of a program's, and the instance in their metric,
//! so that each run finds those of the last one and no others.

use super::nodes::Peer;
use crate::{
    Error, Ipv4Cidr,
    error::Attempted,
    interface::{open, unless},
    netlink::Netlink,
};
use rtnetlink::{
    RouteMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol},
    },
};
use sha2::{Digest, Sha256};
use std::{io, net::Ipv4Addr};
use stdx::one_line;

/// Who made a route: a number that no program of rt_protos has.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(83);

/// One of ours, as the kernel has it or should have it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    network: Ipv4Addr,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
    /// Through the tunnel; otherwise the kernel knows by which interface the gateway is reached.
    interface: Option<u32>,
}

/// Makes the instance's routes those to `peers`, and no others. `tunnel`: the interface of this node's end of it.
pub(super) fn bring(instance: &str, peers: &[Peer], tunnel: Option<u32>) -> Result<(), Error> {
    let mut netlink = open()?;
    let metric = metric(instance);
    let present = present(&mut netlink, metric)
        .attempted(|| "listing the routes to other nodes".to_owned())?;
    let wanted: Vec<(&Peer, Route)> = peers.iter().map(|it| (it, wanted(it, tunnel))).collect();
    let mut failures = Vec::new();
    for (peer, route) in &wanted {
        let same = |it: &&Route| match route.interface {
            Some(_) => **it == *route,
            None => Route { interface: None, ..(*it).clone() } == *route,
        };
        if present.iter().any(|it| same(&it)) {
            continue;
        }
        let message = RouteNetlinkMessage::NewRoute(message(route, metric));
        let routed = netlink.change(message, NLM_F_CREATE | NLM_F_REPLACE).attempted(|| {
            format!("routing {} to node {} at {}", peer.range, peer.node, peer.address)
        });
        if let Err(error) = routed {
            failures.push(one_line(&error));
        }
    }
    for route in &present {
        let is_wanted = |it: &Route| (it.network, it.prefix) == (route.network, route.prefix);
        if !wanted.iter().any(|(_, it)| is_wanted(it)) {
            let message = RouteNetlinkMessage::DelRoute(message(route, metric));
            let removed = netlink.change(message, 0);
            let (network, prefix) = (route.network, route.prefix);
            unless(removed, libc::ESRCH)
                .attempted(|| format!("removing the route to {network}/{prefix}"))?;
        }
    }
    match failures.first() {
        None => Ok(()),
        Some(first) => Err(Error::Unreachable(failures.len(), first.clone())),
    }
}

fn wanted(peer: &Peer, tunnel: Option<u32>) -> Route {
    let gateway = match tunnel {
        // Its end of the tunnel has the first address of its range.
        Some(_) => peer.range.network(),
        None => peer.address,
    };
    let (network, prefix) = (peer.range.network(), peer.range.prefix());
    Route { network, prefix, gateway: Some(gateway), interface: tunnel }
}

fn present(netlink: &mut Netlink, metric: u32) -> io::Result<Vec<Route>> {
    let ours = |it: &RouteMessage| {
        it.header.protocol == PROTOCOL && it.attributes.contains(&RouteAttribute::Priority(metric))
    };
    let routes = netlink.routes()?;
    Ok(routes.iter().filter(|it| ours(it)).filter_map(described).collect())
}

fn described(message: &RouteMessage) -> Option<Route> {
    let mut route = Route {
        network: Ipv4Addr::UNSPECIFIED,
        prefix: message.header.destination_prefix_length,
        gateway: None,
        interface: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(network)) => route.network = *network,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => route.gateway = Some(*gateway),
            RouteAttribute::Oif(index) => route.interface = Some(*index),
            _ => {}
        }
    }
    Some(route).filter(|it| !it.network.is_unspecified())
}

fn message(route: &Route, metric: u32) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.network, route.prefix)
        .protocol(PROTOCOL)
        .priority(metric);
    if let Some(gateway) = route.gateway {
        builder = builder.gateway(gateway);
    }
    match route.interface {
        // No address of the tunnel says that the gateway is there.
        Some(index) => builder.output_interface(index).onlink().build(),
        None => builder.build(),
    }
}

/// 31 bits of the instance. Any metric will do: nobody else routes these ranges.
fn metric(instance: &str) -> u32 {
    let hash = Sha256::digest(instance.as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> 1 | 1
}

impl Ipv4Cidr {
    /// The hardware address of the end of the tunnel of the node that has this range. 0a is locally administered; 59 is
    /// no more than a mark, and not that of pods.
    pub(super) fn tunnel_hardware(self) -> Vec<u8> {
        [&[0x0a, 0x59], &self.network().octets()[..]].concat()
    }
}
