//! Who the peers are: decided from the World, touching nothing.

use crate::Ipv4Cidr;
use api::{
    Object,
    core::v1::{Node, NodeAddress},
};
use std::{collections::BTreeMap, net::Ipv4Addr};
use world::{Touched, World};

/// Nodes that one node has a way to: upstream's tested limit of a cluster. Later ones by name have none.
const PEERS_MAX: usize = 5000;

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) node: String,
    /// Where it is reached: its InternalIP.
    pub(super) address: Ipv4Addr,
    /// Of its pods.
    pub(super) range: Ipv4Cidr,
}

pub(super) fn concerns(touched: &Touched) -> bool {
    let facts = |row: &Option<Arc>| row.as_ref().and_then(|it| peer(&*it.typed::<Node>()?));
    touched.kind.kind == "Node"
        && touched.kind.group.is_empty()
        && (touched.old.is_none()
            || touched.new.is_none()
            || facts(&touched.old) != facts(&touched.new))
}

type Arc = std::sync::Arc<world::Row>;

/// Every other node that has an address and a range, in the order of names. A range that is not the cluster's, or meets
/// this node's own, is nobody's: a route to it would lead packets astray.
pub(super) fn of_world(world: &World, own: &str, cluster: Ipv4Cidr, range: Ipv4Cidr) -> Vec<Peer> {
    let mut by_range: BTreeMap<Ipv4Addr, Peer> = BTreeMap::new();
    let others = world.all::<Node>().filter(|it| it.name() != own);
    for peer in others.filter_map(|it| peer(&it)) {
        let inside =
            cluster.contains(peer.range.network()) && cluster.prefix() <= peer.range.prefix();
        let apart = !peer.range.contains(range.network()) && !range.contains(peer.range.network());
        if inside && apart {
            // Of two with one range the first by name has it.
            by_range.entry(peer.range.network()).or_insert(peer);
        }
    }
    let mut peers: Vec<Peer> = by_range.into_values().collect();
    peers.sort_by(|one, other| one.node.cmp(&other.node));
    peers.truncate(PEERS_MAX);
    peers
}

fn peer(node: &Node) -> Option<Peer> {
    let range = node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()?;
    let internal = |it: &&NodeAddress| it.type_ == "InternalIP";
    let mut addresses = node.status.as_ref()?.addresses.iter().flatten().filter(internal);
    let address = addresses.find_map(|it| it.address.parse().ok())?;
    Some(Peer { node: node.name().to_owned(), address, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(nodes: &[(&str, &str, &str)]) -> World {
        let mut world = World::default();
        for (revision, (name, range, address)) in (1..).zip(nodes) {
            let node = format!(
                r#"{{"kind":"Node","apiVersion":"v1","metadata":{{"name":"{name}"}},"spec":{{"podCIDR":"{range}"}},
                "status":{{"addresses":[{{"type":"Hostname","address":"{name}"}},{{"type":"InternalIP","address":"{address}"}}]}}}}"#
            );
            world.put(api::kind_of::<Node>(), node.into(), revision).unwrap();
        }
        world
    }

    fn names(nodes: &[(&str, &str, &str)]) -> Vec<String> {
        let (cluster, own) = ("10.0.0.0/16".parse().unwrap(), "10.0.0.0/24".parse().unwrap());
        let peers = of_world(&world(nodes), "n1", cluster, own);
        peers.into_iter().map(|it| format!("{} {} {}", it.node, it.range, it.address)).collect()
    }

    #[test]
    fn every_other_node_with_a_range_and_an_address_is_a_peer() {
        let own = ("n1", "10.0.0.0/24", "192.0.2.1");
        let all = [own, ("n3", "10.0.2.0/24", "192.0.2.3"), ("n2", "10.0.1.0/24", "192.0.2.2")];
        assert_eq!(names(&all), ["n2 10.0.1.0/24 192.0.2.2", "n3 10.0.2.0/24 192.0.2.3"]);
        assert_eq!(names(&[own, ("n2", "", "192.0.2.2"), ("n3", "10.0.2.0/24", "")]).len(), 0);
    }

    #[test]
    fn a_range_that_is_elsewhere_or_taken_is_nobodys() {
        let all = [
            ("n2", "10.1.1.0/24", "192.0.2.2"),
            ("n3", "10.0.0.0/25", "192.0.2.3"),
            ("n4", "10.0.0.0/16", "192.0.2.4"),
            ("n5", "10.0.5.0/24", "192.0.2.5"),
            ("n6", "10.0.5.0/24", "192.0.2.6"),
        ];
        assert_eq!(names(&all), ["n5 10.0.5.0/24 192.0.2.5"]);
    }
}
