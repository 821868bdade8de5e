//! This node's end of the tunnel: an interface that puts packets into envelopes, and whom it knows.
//!
//! Nothing is learned from packets and nobody is asked by broadcast: every peer's hardware address, and the machine
//! behind it, are written down. The end has the first address of the node's range, which is nobody else's, so that what
//! the node itself sends to other nodes' pods has an address that leads back through the tunnel.

use super::nodes::Peer;
use crate::{
    Error, Ipv4Cidr, NAME_LENGTH_MAX, Reach,
    error::Attempted,
    interface::{self, add_address, alias_prefix, open},
    netlink::{Link, Netlink},
    uplink,
};
use rtnetlink::{
    AddressMessageBuilder, LinkUnspec, LinkVxlan,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::InfoVxlan,
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader,
            NeighbourMessage, NeighbourState,
        },
    },
};
use std::{collections::BTreeMap, io, net::Ipv4Addr};

/// One instance's end, as it should be.
#[derive(Clone, Debug)]
pub(super) struct Vtep {
    pub(super) instance: String,
    /// Of this node's pods.
    pub(super) range: Ipv4Cidr,
    /// Where envelopes come from.
    pub(super) local: Ipv4Addr,
    pub(super) vni: u32,
    pub(super) port: u16,
}

/// `stx<instance>`, cut to what the kernel takes.
pub(crate) fn name(instance: &str) -> String {
    let mut name = format!("stx{instance}");
    name.truncate(NAME_LENGTH_MAX);
    name
}

/// Makes the interface or brings it to what it should be; gives its index.
pub(super) fn ensure(vtep: &Vtep) -> Result<u32, Error> {
    let name = name(&vtep.instance);
    let making = || format!("making the end {name} of the tunnel to other nodes");
    let mut netlink = open()?;
    if let Some(link) = netlink.link(&name).attempted(making)? {
        if link.kind != "vxlan" {
            return Err(Error::NotOurs { name });
        }
        // What it was made with cannot be changed.
        if !is(&link, vtep) {
            interface::remove(&mut netlink, &name)?;
        }
    }
    if netlink.link(&name).attempted(making)?.is_none() {
        let link = LinkVxlan::new(&name, vtep.vni)
            .local(vtep.local)
            .port(vtep.port)
            .learning(false)
            .address(vtep.range.tunnel_hardware())
            .build();
        let made = netlink.change(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL);
        // The name was free: it is the number that another one has.
        if made.as_ref().is_err_and(|it| it.raw_os_error() == Some(libc::EEXIST)) {
            return Err(Error::VniTaken { vni: vtep.vni, port: vtep.port });
        }
        made.attempted(making)?;
    }
    let found = netlink.link(&name).attempted(making)?;
    let link = found.ok_or_else(|| io::ErrorKind::NotFound.into()).attempted(making)?;
    let by = crate::PodNetwork::Vxlan { vni: vtep.vni, port: vtep.port };
    let mtu = uplink::pods_mtu(&name, Some(Reach { address: vtep.local, by }))?;
    let up = LinkUnspec::new_with_index(link.index)
        .alias(format!("{}tunnel", alias_prefix(&vtep.instance)))
        .mtu(mtu)
        .up()
        .build();
    netlink.change(RouteNetlinkMessage::NewLink(up), 0).attempted(making)?;
    let own = vtep.range.network();
    for (index, address, prefix) in netlink.addresses().attempted(making)? {
        // The range of an earlier run.
        if index == link.index && (address, prefix) != (own, 32) {
            let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index);
            let message = message.address(address, prefix).build();
            netlink
                .change(RouteNetlinkMessage::DelAddress(message), 0)
                .attempted(|| format!("removing {address}/{prefix} from {name}"))?;
        }
    }
    add_address(&mut netlink, link.index, own, 32)
        .attempted(|| format!("adding {own}/32 to {name}"))?;
    Ok(link.index)
}

fn is(link: &Link, vtep: &Vtep) -> bool {
    let wanted = [
        InfoVxlan::Id(vtep.vni),
        InfoVxlan::Local(vtep.local),
        InfoVxlan::Port(vtep.port),
        InfoVxlan::Learning(false),
    ];
    wanted.iter().all(|it| link.vxlan.contains(it)) && link.hardware == vtep.range.tunnel_hardware()
}

/// Writes down who is behind the tunnel: `peers`, and nobody else.
pub(super) fn know(interface: u32, peers: &[Peer]) -> Result<(), Error> {
    let mut netlink = open()?;
    // Whose hardware is where; and which hardware an address has.
    let machines = peers.iter().map(|it| (it.range.tunnel_hardware(), it.address)).collect();
    keep(&mut netlink, interface, AddressFamily::Bridge, &machines)?;
    let addresses =
        peers.iter().map(|it| (it.range.tunnel_hardware(), it.range.network())).collect();
    keep(&mut netlink, interface, AddressFamily::Inet, &addresses)
}

fn keep(
    netlink: &mut Netlink,
    interface: u32,
    family: AddressFamily,
    wanted: &BTreeMap<Vec<u8>, Ipv4Addr>,
) -> Result<(), Error> {
    let listing = || "listing who is behind the tunnel".to_owned();
    let present: Vec<(Vec<u8>, Ipv4Addr)> = netlink
        .neighbours(family, interface)
        .attempted(listing)?
        .iter()
        // What the kernel keeps for itself (broadcasts) is not a peer's.
        .filter(|it| it.header.state == NeighbourState::Permanent)
        .filter_map(described)
        .collect();
    for (hardware, address) in wanted {
        if !present.iter().any(|it| (&it.0, &it.1) == (hardware, address)) {
            let entry = entry(interface, family, hardware, *address);
            netlink
                .change(RouteNetlinkMessage::NewNeighbour(entry), NLM_F_CREATE | NLM_F_REPLACE)
                .attempted(|| format!("writing down that {address} is behind the tunnel"))?;
        }
    }
    for (hardware, address) in &present {
        let stale = match family {
            // A machine that moved has been replaced under its hardware's address.
            AddressFamily::Bridge => !wanted.contains_key(hardware),
            _ => !wanted.values().any(|it| it == address),
        };
        if stale {
            let entry = entry(interface, family, hardware, *address);
            let removed = netlink.change(RouteNetlinkMessage::DelNeighbour(entry), 0);
            interface::unless(removed, libc::ENOENT)
                .attempted(|| format!("forgetting that {address} is behind the tunnel"))?;
        }
    }
    Ok(())
}

fn entry(
    interface: u32,
    family: AddressFamily,
    hardware: &[u8],
    address: Ipv4Addr,
) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header = NeighbourHeader {
        family,
        ifindex: interface,
        state: NeighbourState::Permanent,
        // Of the interface's own table, not of a bridge that it may be a port of.
        flags: match family {
            AddressFamily::Bridge => NeighbourFlags::Own,
            _ => NeighbourFlags::empty(),
        },
        ..NeighbourHeader::default()
    };
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(hardware.to_vec()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
    ];
    message
}

fn described(message: &NeighbourMessage) -> Option<(Vec<u8>, Ipv4Addr)> {
    let (mut hardware, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => hardware = Some(bytes.clone()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => address = Some(*it),
            // Of forwarding entries the decoder does not know what their bytes are.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                address = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from);
            }
            _ => {}
        }
    }
    Some((hardware?, address?))
}

/// Removes the instance's interface, with all that it knows; says how many there were.
pub(super) fn remove(instance: &str) -> Result<usize, Error> {
    let name = name(instance);
    let mut netlink = open()?;
    let found = netlink.link(&name).attempted(|| format!("looking for {name}"))?;
    match found {
        Some(link) if link.kind == "vxlan" => interface::remove(&mut netlink, &name).map(|()| 1),
        Some(_) | None => Ok(0),
    }
}
