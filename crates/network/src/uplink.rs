//! How large a packet of a pod may be: what leaves the node has to fit, with its envelope.

use crate::{Error, Reach, error::Attempted, interface};
use std::fs;

/// Ethernet's, where no route says otherwise.
const MTU: u32 = 1500;

/// For pods and their bridge: as the interface that has the node's address, or the one that the default route leaves
/// by, without what [`crate::PodNetwork`] takes for itself. The bridge itself is no way out.
pub(crate) fn pods_mtu(bridge: &str, reach: Option<Reach>) -> Result<u32, Error> {
    let looking = || "looking for the interface to other nodes".to_owned();
    let mut netlink = interface::open()?;
    let links = netlink.links().attempted(looking)?;
    let addresses = netlink.addresses().attempted(looking)?;
    let has_address = |index: u32| {
        reach
            .is_some_and(|it| addresses.iter().any(|(on, at, _)| *on == index && *at == it.address))
    };
    let default = default_interface();
    let by_address = links.iter().find(|it| it.name != bridge && has_address(it.index));
    let uplink = by_address.or_else(|| links.iter().find(|it| Some(&it.name) == default.as_ref()));
    // 68 is IPv4's least, 65535 its most.
    let mtu = uplink.map(|it| it.mtu).filter(|it| (68..=65535).contains(it)).unwrap_or(MTU);
    let overhead = reach.map_or(0, |it| it.by.overhead());
    Ok(mtu.saturating_sub(overhead).max(68))
}

fn default_interface() -> Option<String> {
    let routes = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    routes.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        let (interface, destination) = (columns.next()?, columns.next()?);
        (destination == "00000000").then(|| interface.to_owned())
    })
}
