//! The node's side of the pod network: one bridge per instance, and a pair of virtual Ethernet ends
//! per sandbox, one of them `eth0` in the pod.
//!
//! Every interface says in its alias whose it is (`stanchion <instance> <address> <sandbox>`), so
//! that what the kernel has can be compared with what should be there, whatever a crash left behind.
//! All calls block and are idempotent.

use crate::{
    Error, Ipv4Cidr,
    error::Attempted,
    namespace,
    netlink::{Link, Netlink},
    peers::vtep,
};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoVeth, LinkMessage},
        route::RouteScope,
    },
};
use sha2::{Digest, Sha256};
use std::{fs, io, net::Ipv4Addr, os::fd::AsRawFd};

/// The pod's end.
const POD_INTERFACE: &str = "eth0";

/// How the host's ends begin; the rest is a hash.
const HOST_END: &str = "stv";

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// One instance's bridge, as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub(crate) instance: String,
    pub(crate) name: String,
    pub(crate) range: Ipv4Cidr,
    /// The cluster's DNS address: on the bridge, so that pods and host reach it without translation.
    pub(crate) dns: Ipv4Addr,
    pub(crate) mtu: u32,
}

/// A sandbox that has its pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) index: u32,
    pub(crate) sandbox: String,
    /// None: a crash came between making the pair and naming its owner.
    pub(crate) address: Option<Ipv4Addr>,
}

/// Makes the bridge or brings it to what it should be, and lets the kernel forward.
///
/// # Errors
/// [`Error::Taken`] when another interface has an address of the pod range or the DNS address.
pub(crate) fn ensure_bridge(bridge: &Bridge) -> Result<u32, Error> {
    let mut netlink = open()?;
    refuse_taken(&mut netlink, bridge)?;
    let name = &bridge.name;
    let making = || format!("making the bridge {name}");
    if netlink.link(name).attempted(making)?.is_none() {
        // A bridge without an address of its own takes its ports', and changes it under the pods.
        let link = LinkBridge::new(name).address(bridge_hardware_address(bridge)).build();
        let made = netlink.change(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL);
        unless(made, libc::EEXIST).attempted(making)?;
    }
    let found = netlink.link(name).attempted(making)?;
    let link = found.ok_or_else(|| io::ErrorKind::NotFound.into()).attempted(making)?;
    if link.kind != "bridge" {
        return Err(Error::NotOurs { name: name.clone() });
    }
    let up = LinkUnspec::new_with_index(link.index)
        .alias(format!("{}bridge", alias_prefix(&bridge.instance)))
        .mtu(bridge.mtu)
        .up()
        .build();
    netlink.change(RouteNetlinkMessage::NewLink(up), 0).attempted(making)?;
    let wanted = [(bridge.range.gateway(), bridge.range.prefix()), (bridge.dns, 32)];
    let present = netlink.addresses().attempted(making)?;
    for (index, address, prefix) in present {
        // The range of an earlier run.
        if index == link.index && !wanted.contains(&(address, prefix)) {
            let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index);
            let message = message.address(address, prefix).build();
            netlink
                .change(RouteNetlinkMessage::DelAddress(message), 0)
                .attempted(|| format!("removing {address}/{prefix} from the bridge {name}"))?;
        }
    }
    for (address, prefix) in wanted {
        add_address(&mut netlink, link.index, address, prefix)
            .attempted(|| format!("adding {address}/{prefix} to the bridge {name}"))?;
    }
    allow_forwarding()?;
    Ok(link.index)
}

/// Lets packets for the service range begin on the bridge, so that they have a way, and an address of the pods' range
/// to come from, on a machine without a default route too. They are translated before they get there.
pub(crate) fn route_services(bridge: &str, range: Ipv4Cidr) -> Result<(), Error> {
    let mut netlink = open()?;
    let routing = || format!("routing {range} to the bridge {bridge}");
    let found = netlink.link(bridge).attempted(routing)?;
    let link = found.ok_or_else(|| io::ErrorKind::NotFound.into()).attempted(routing)?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.network(), range.prefix())
        .output_interface(link.index)
        .scope(RouteScope::Link)
        .build();
    let routed = netlink.change(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL);
    // Whoever has routed the range before knows where to.
    unless(routed, libc::EEXIST).attempted(routing)
}

/// Lets a pod's answers to who asked by a loopback address in by the bridge. Where this is not allowed, host ports do
/// not answer on loopback addresses, and all else does.
pub(crate) fn answer_loopback(bridge: &str) {
    let path = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
    if let Err(error) = fs::write(&path, "1") {
        tracing::warn!(%error, "host ports do not answer on loopback addresses: writing {path}");
    }
}

/// Gives the sandbox its pair, its address and its default route.
pub(crate) fn attach(
    bridge: &Bridge,
    sandbox: &str,
    pid: u32,
    address: Ipv4Addr,
) -> Result<(), Error> {
    let pod = namespace::of_process(pid)?;
    let mut host = open()?;
    let name = host_end(&bridge.instance, sandbox);
    let making = || format!("making {name} for sandbox {sandbox}");
    let port_of = match host.link(&bridge.name).attempted(making)? {
        Some(link) => link.index,
        None => ensure_bridge(bridge)?,
    };
    let mut known = host.link(&name).attempted(making)?.is_some();
    if known && !has_pod_interface(&pod)? {
        // The pair of a namespace that is gone, or about to go.
        remove(&mut host, &name)?;
        known = false;
    }
    if !known {
        let pair = pair(bridge, &name, port_of, address, &pod);
        host.change(RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL)
            .attempted(making)?;
    }
    // A pod that calls its own service comes back through the port it left by: hairpin.
    let mut port = LinkBridgePort::new(0).hairpin(true).name(name.as_str());
    port = port.alias(format!("{}{address} {sandbox}", alias_prefix(&bridge.instance)));
    host.change(RouteNetlinkMessage::NewLink(port.build()), 0).attempted(making)?;

    namespace::within(&pod, || configure_pod(bridge, address))
}

/// Both ends in one message, the pod's made where it belongs: it never is on the host.
fn pair(
    bridge: &Bridge,
    name: &str,
    port_of: u32,
    address: Ipv4Addr,
    pod: &fs::File,
) -> LinkMessage {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(POD_INTERFACE)
        .mtu(bridge.mtu)
        .address(pod_hardware_address(address))
        .setns_by_fd(pod.as_raw_fd())
        .build();
    LinkVeth::new(name, POD_INTERFACE)
        .mtu(bridge.mtu)
        .controller(port_of)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .up()
        .build()
}

/// Takes the pair away; nothing happens where there is none.
pub(crate) fn detach(instance: &str, sandbox: &str) -> Result<(), Error> {
    remove(&mut open()?, &host_end(instance, sandbox))
}

/// Every pair of this instance.
pub(crate) fn attached(bridge: &Bridge) -> Result<Vec<Attached>, Error> {
    let links = open()?.links().attempted(|| "listing interfaces".to_owned())?;
    let port_of = links.iter().find(|it| it.name == bridge.name).map(|it| it.index);
    Ok(links.iter().filter_map(|link| ours(link, &bridge.instance, port_of)).collect())
}

/// Removes one pair found by [`attached`].
pub(crate) fn remove_attached(it: &Attached) -> Result<(), Error> {
    let message = LinkUnspec::new_with_index(it.index).build();
    let removed = open()?.change(RouteNetlinkMessage::DelLink(message), 0);
    unless(removed, libc::ENODEV).attempted(|| format!("removing interface {}", it.index))
}

/// Removes every pair of the instance, then its bridge. Says how many interfaces went.
pub(crate) fn remove_all(instance: &str, bridge: &str) -> Result<usize, Error> {
    crate::service::remove(instance)?;
    let mut removed = crate::peers::remove(instance)?;
    let mut netlink = open()?;
    let links = netlink.links().attempted(|| "listing interfaces".to_owned())?;
    let found = links.iter().find(|it| it.name == bridge && it.kind == "bridge");
    for pair in links.iter().filter_map(|it| ours(it, instance, found.map(|it| it.index))) {
        remove_attached(&pair)?;
        removed += 1;
    }
    if found.is_some() {
        remove(&mut netlink, bridge)?;
        removed += 1;
    }
    Ok(removed)
}

fn ours(link: &Link, instance: &str, bridge: Option<u32>) -> Option<Attached> {
    if !link.name.starts_with(HOST_END) {
        return None;
    }
    if let Some(words) = link.alias.strip_prefix(&alias_prefix(instance)) {
        let (address, sandbox) = words.split_once(' ')?;
        let address = address.parse().ok();
        return Some(Attached { index: link.index, sandbox: sandbox.to_owned(), address });
    }
    let port = link.alias.is_empty() && bridge.is_some() && link.controller == bridge;
    port.then(|| Attached { index: link.index, sandbox: String::new(), address: None })
}

fn configure_pod(bridge: &Bridge, address: Ipv4Addr) -> Result<(), Error> {
    let configuring = || format!("giving {address} to {POD_INTERFACE} of a pod");
    let mut netlink = open()?;
    let found = netlink.link(POD_INTERFACE).attempted(configuring)?;
    let link = found.ok_or_else(|| io::ErrorKind::NotFound.into()).attempted(configuring)?;
    add_address(&mut netlink, link.index, address, bridge.range.prefix()).attempted(configuring)?;
    // Not at creation: an end comes up only once both ends are there.
    let up = LinkUnspec::new_with_index(link.index).up().build();
    netlink.change(RouteNetlinkMessage::NewLink(up), 0).attempted(configuring)?;
    let gateway = bridge.range.gateway();
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
    netlink
        .change(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE)
        .attempted(|| format!("adding the default route through {gateway} in a pod"))
}

fn has_pod_interface(pod: &fs::File) -> Result<bool, Error> {
    namespace::within(pod, || {
        let found = open()?.link(POD_INTERFACE);
        Ok(found.attempted(|| "looking for a pod's interface".to_owned())?.is_some())
    })
}

pub(crate) fn add_address(
    netlink: &mut Netlink,
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
) -> io::Result<()> {
    let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix);
    let message = RouteNetlinkMessage::NewAddress(message.build());
    netlink.change(message, NLM_F_CREATE | NLM_F_REPLACE)
}

fn refuse_taken(netlink: &mut Netlink, bridge: &Bridge) -> Result<(), Error> {
    let listing = || "listing the host's addresses".to_owned();
    let links = netlink.links().attempted(listing)?;
    for (index, address, _) in netlink.addresses().attempted(listing)? {
        let interface = links.iter().find(|it| it.index == index);
        let interface = interface.map(|it| it.name.clone()).unwrap_or_default();
        let ours = [&bridge.name, &vtep::name(&bridge.instance)].contains(&&interface);
        if !ours && (bridge.range.contains(address) || address == bridge.dns) {
            return Err(Error::Taken { address, interface });
        }
    }
    Ok(())
}

fn allow_forwarding() -> Result<(), Error> {
    let allowing = || format!("letting the kernel forward packets ({FORWARDING})");
    // Read first: where it is already on, the file may well be read-only.
    if fs::read_to_string(FORWARDING).attempted(allowing)?.trim() != "1" {
        fs::write(FORWARDING, "1").attempted(allowing)?;
    }
    Ok(())
}

pub(crate) fn remove(netlink: &mut Netlink, name: &str) -> Result<(), Error> {
    let message = LinkUnspec::new_with_name(name).build();
    let removed = netlink.change(RouteNetlinkMessage::DelLink(message), 0);
    unless(removed, libc::ENODEV).attempted(|| format!("removing interface {name}"))
}

pub(crate) fn open() -> Result<Netlink, Error> {
    Netlink::open().attempted(|| "opening a netlink socket".to_owned())
}

fn is(result: &io::Result<()>, code: i32) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(code))
}

/// The error `code` says that it is already so.
pub(crate) fn unless(result: io::Result<()>, code: i32) -> io::Result<()> {
    if is(&result, code) { Ok(()) } else { result }
}

pub(crate) fn alias_prefix(instance: &str) -> String {
    format!("stanchion {instance} ")
}

/// 15 characters, the most an interface may have: 12 of them are 48 bits of a hash.
pub(crate) fn host_end(instance: &str, sandbox: &str) -> String {
    let hash = Sha256::new().chain_update(instance).chain_update([0]).chain_update(sandbox);
    let hex: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{HOST_END}{hex}")
}

fn bridge_hardware_address(bridge: &Bridge) -> Vec<u8> {
    let hash = Sha256::new().chain_update("bridge").chain_update(&bridge.instance).finalize();
    // The first byte says: one station, locally administered.
    [&[0x02], &hash[..5]].concat()
}

/// Follows from the address, so that a neighbour's memory of it is never wrong. 0a is locally
/// administered; 58 is no more than a mark.
fn pod_hardware_address(address: Ipv4Addr) -> Vec<u8> {
    [&[0x0a, 0x58], &address.octets()[..]].concat()
}
