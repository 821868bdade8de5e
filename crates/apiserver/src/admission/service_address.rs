//! Services get addresses and node ports that nobody else has.
//!
//! Each is a key of the ledger, written in the Service's own commit and expected to be absent, so two
//! Services can never get the same one. Addresses are IPAddress objects, of the ranges of ServiceCIDRs that the commit
//! checks: none is given out of a range that goes meanwhile.
//!
//! Upstream: `pkg/registry/core/service/{storage/alloc.go,ipallocator/{cidrallocator,ipallocator}.go,portallocator}`.

use crate::{error::Error, server::Server, view::View};
use api::{
    AnyKind, AnyObject, Erased, Errors, Failure, Object,
    core::v1::{Service, ServiceSpec},
    field::quoted,
    networking::{
        ip_address,
        service_cidr::{self, Prefix},
        v1::{IPAddress, ServiceCIDR},
    },
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
};
use store::{Batch, Change, Check, CommitError, Expect, Key, Revision, Write};
use world::ObjectKey;

pub(crate) const PORTS: &str = "/registry/stanchion/nodeports/";

/// Upstream's `--service-node-port-range`.
const PORT_RANGE: RangeInclusive<u16> = 30000..=32767;

/// Keys of one commit.
const ADOPTED: usize = 100;

/// Draws before looking at every address in turn.
const DRAWS: usize = 16;

/// The network of Service addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServiceRange {
    network: u32,
    bits: u32,
}

impl ServiceRange {
    /// IPv4 ranges of a size that makes sense.
    fn of(prefix: Prefix) -> Option<ServiceRange> {
        let IpAddr::V4(network) = prefix.network().address else { return None };
        let bits = u32::from(prefix.bits);
        (8..=30).contains(&bits).then(|| ServiceRange { network: u32::from(network), bits })
    }

    pub(crate) fn parse(text: &str) -> Result<ServiceRange, Error> {
        let wrong = || Error::ServiceCidr(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().ok().filter(|it| (8..=30).contains(it)).ok_or_else(wrong)?;
        let network = u32::from(address) & (u32::MAX << (32 - bits));
        Ok(ServiceRange { network, bits })
    }

    /// The address of `default/kubernetes`.
    pub(crate) fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }

    /// Addresses that can be given out: neither the network's own nor the last.
    fn size(self) -> u32 {
        (1 << (32 - self.bits)) - 2
    }

    fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1 + n % self.size())
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address).checked_sub(self.network + 1).is_some_and(|it| it < self.size())
    }

    fn prefix(self) -> Prefix {
        let bits = u8::try_from(self.bits).unwrap_or(32);
        Prefix { address: Ipv4Addr::from(self.network).into(), bits }
    }

    fn free(self, server: &Server, view: &View) -> Option<Ipv4Addr> {
        let free = |it: &Ipv4Addr| !is_taken(view, *it);
        // The lower part is left to those who ask for an address by number.
        let band = (self.size() / 16).clamp(16, 256).min(self.size() / 2);
        let draw = || server.config.entropy.below(u64::from(self.size() - band)) as u32 + band;
        let drawn = (0..DRAWS).map(|_| self.nth(draw())).find(free);
        let in_turn = || (0..self.size()).map(|n| self.nth(band + n)).find(free);
        drawn.or_else(in_turn)
    }
}

impl std::fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.bits)
    }
}

/// A range from which addresses are given out now.
struct Open {
    range: ServiceRange,
    /// Its object has to be as it was judged.
    check: Option<Check>,
}

/// The server's own range first, and those of the ServiceCIDRs that are ready.
fn open_ranges(server: &Server, view: &View) -> Vec<Open> {
    let own = server.service_range;
    let mut all = Vec::new();
    let mut is_own_listed = false;
    for cidr in view.world.all::<ServiceCIDR>() {
        let kind = api::kind_of::<ServiceCIDR>();
        let key = ObjectKey::of(&*cidr);
        let Some(row) = view.world.row_of::<ServiceCIDR>(&key) else { continue };
        let check = Check {
            key: kind.key("", &key.name).into(),
            expect: Expect::At(Revision(row.revision)),
        };
        for prefix in service_cidr::prefixes(&cidr) {
            let is_own = prefix == own.prefix();
            is_own_listed |= is_own;
            // The server's own is good before a loop has looked at it.
            let is_open = match is_own {
                true => !cidr.is_deleting(),
                false => service_cidr::is_ready(&cidr),
            };
            let range = ServiceRange::of(prefix).filter(|_| is_open);
            all.extend(range.map(|range| Open { range, check: Some(check.clone()) }));
        }
    }
    if !is_own_listed {
        all.push(Open { range: own, check: None });
    }
    all.sort_by_key(|it| it.range != own);
    all
}

/// What a Service takes and gives back, and what must not have changed.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) writes: Vec<Write>,
    pub(crate) checks: Vec<Check>,
}

/// Gives a new Service what it needs, and says which keys that takes.
pub(crate) fn assign(
    server: &Server,
    view: &View,
    kind: &AnyKind,
    object: &mut AnyObject,
) -> Result<Taken, Failure> {
    let Some(service) = service_mut(object) else { return Ok(Taken::default()) };
    take(server, view, kind, service, &BTreeSet::new())
}

/// What an update leaves out stays as it was given.
pub(crate) fn keep(object: &mut AnyObject, old: &dyn Erased) {
    let old = old.as_any().downcast_ref::<Service>().and_then(|it| it.spec.as_ref());
    let spec = service_mut(object).and_then(|it| it.spec.as_mut());
    let (Some(spec), Some(old)) = (spec, old) else { return };
    if has_address(spec) && has_address(old) && blank(&spec.cluster_ip) {
        spec.cluster_ip.clone_from(&old.cluster_ip);
        spec.cluster_ips.clone_from(&old.cluster_ips);
    }
    if has_ports(spec) && has_ports(old) {
        for port in spec.ports.iter_mut().flatten() {
            let mut before = old.ports.iter().flatten();
            let same = before.find(|it| it.port == port.port && it.protocol == port.protocol);
            if let (None | Some(0), Some(same)) = (port.node_port, same) {
                port.node_port = same.node_port;
            }
        }
    }
}

/// Gives a changed Service what it lacks and takes back what it does not need any more.
pub(crate) fn update(
    server: &Server,
    view: &View,
    kind: &AnyKind,
    object: &mut AnyObject,
    old: &dyn Erased,
) -> Result<Taken, Failure> {
    let Some(service) = service_mut(object) else { return Ok(Taken::default()) };
    let before = keys(old);
    let mut taken = take(server, view, kind, service, &before)?;
    let after = keys(service);
    let gone = before.difference(&after);
    taken.writes.extend(gone.map(|key| delete(key.clone())));
    Ok(taken)
}

/// Services that another kind of server wrote have their addresses and ports like all others: keys that are missing are
/// made up for before anything is given out.
pub(crate) async fn adopt(server: &Server) -> Result<(), CommitError> {
    loop {
        let latest = server.store.latest().await?;
        let view = server.ledger.reached(latest.0).await;
        let mut batch = Batch::new();
        for service in view.world.all::<Service>() {
            let (namespace, name) = (service.namespace(), service.name());
            for key in keys(&*service) {
                let address = address_of(&key);
                let is_there = match address {
                    Some(address) => is_taken(&view, address),
                    None => view.reserved.contains(&key),
                };
                let twice = batch.writes.iter().any(|it| it.key == key);
                if twice || is_there || batch.writes.len() == ADOPTED {
                    continue;
                }
                let value = match address {
                    Some(address) => address_object(server, address, namespace, name),
                    None => port_value(namespace, name),
                };
                batch.writes.push(put(key, value));
            }
        }
        if batch.writes.is_empty() {
            return Ok(());
        }
        match server.store.commit(batch).await {
            // Another server does the same, or has begun to work.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes everything back.
pub(crate) fn release(_kind: &AnyKind, old: &dyn Erased) -> Vec<Write> {
    keys(old).into_iter().map(delete).collect()
}

fn take(
    server: &Server,
    view: &View,
    kind: &AnyKind,
    service: &mut Service,
    own: &BTreeSet<Key>,
) -> Result<Taken, Failure> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    let Some(spec) = service.spec.as_mut() else { return Ok(Taken::default()) };
    let (Taken { mut writes, mut checks }, mut errors) = (Taken::default(), Errors::default());
    if has_address(spec) {
        spec.ip_families.get_or_insert_with(|| vec!["IPv4".to_owned()]);
        spec.ip_family_policy.get_or_insert_with(|| "SingleStack".to_owned());
        if blank(&spec.cluster_ip) {
            let asked = spec.cluster_ips.as_ref().and_then(|it| it.first()).cloned();
            spec.cluster_ip = asked.filter(|it| !it.is_empty());
        }
        if blank(&spec.cluster_ip) {
            let mut ranges = open_ranges(server, view).into_iter();
            let free = ranges.find_map(|it| it.range.free(server, view));
            let free = free.ok_or_else(|| {
                Failure::internal("failed to allocate a serviceIP: range is full")
            })?;
            spec.cluster_ip = Some(free.to_string());
        }
        let address = spec.cluster_ip.clone().unwrap_or_default();
        spec.cluster_ips = Some(vec![address.clone()]);
        if address != "None" {
            let mut wrong = |why: String| {
                let value = format!("[]string{{{}}}", quoted(&address));
                let why = format!("failed to allocate IP {address}: {why}");
                errors.invalid("spec.clusterIPs", value, why);
            };
            let ranges = open_ranges(server, view);
            let range_of = |ip: Ipv4Addr| ranges.iter().find(|it| it.range.contains(ip));
            match address.parse::<Ipv4Addr>() {
                Ok(ip) if own.contains(&address_key(ip)) => {}
                Ok(ip) => match range_of(ip) {
                    None => {
                        let all: Vec<String> =
                            ranges.iter().map(|it| it.range.to_string()).collect();
                        wrong(format!(
                            "the provided network does not match the current range, the range of valid IPs is {}",
                            all.join(",")
                        ));
                    }
                    Some(_) if is_taken(view, ip) => {
                        wrong("provided IP is already allocated".to_owned());
                    }
                    Some(open) => {
                        checks.extend(open.check.clone());
                        writes.push(put(
                            address_key(ip),
                            address_object(server, ip, &namespace, &name),
                        ));
                    }
                },
                Err(_) => wrong("not a valid IP".to_owned()),
            }
        }
    }
    if has_ports(spec) {
        let mut given: BTreeSet<u16> = BTreeSet::new();
        for (n, port) in spec.ports.iter_mut().flatten().enumerate() {
            let path = format!("spec.ports[{n}].nodePort");
            let number = match port.node_port.unwrap_or(0) {
                0 => free_port(server, view, &given).ok_or_else(|| {
                    Failure::internal("failed to allocate a nodePort: range is full")
                })?,
                asked => match u16::try_from(asked).ok().filter(|it| PORT_RANGE.contains(it)) {
                    Some(asked) => asked,
                    None => {
                        let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                        errors.invalid(path, asked, why);
                        continue;
                    }
                },
            };
            port.node_port = Some(i32::from(number));
            let key = port_key(number);
            // TCP and UDP of one Service may share a number.
            if own.contains(&key) || !given.insert(number) {
                continue;
            }
            if view.reserved.contains(&key) {
                errors.invalid(path, number, "provided port is already allocated");
                continue;
            }
            writes.push(put(key, port_value(&namespace, &name)));
        }
    }
    crate::admit::refuse(kind, &name, &errors)?;
    Ok(Taken { writes, checks })
}

fn free_port(server: &Server, view: &View, given: &BTreeSet<u16>) -> Option<u16> {
    let free = |it: &u16| !given.contains(it) && !view.reserved.contains(&port_key(*it));
    let size = u64::from(PORT_RANGE.end() - PORT_RANGE.start()) + 1;
    let start = server.config.entropy.below(size) as u16;
    let nth = |n: u16| PORT_RANGE.start() + (start + n) % size as u16;
    (0..size as u16).map(nth).find(free)
}

/// The keys that a Service holds.
fn keys(object: &dyn Erased) -> BTreeSet<Key> {
    let spec = object.as_any().downcast_ref::<Service>().and_then(|it| it.spec.as_ref());
    let Some(spec) = spec else { return BTreeSet::new() };
    let mut keys = BTreeSet::new();
    if has_address(spec) {
        let address = spec.cluster_ip.as_deref().and_then(|it| it.parse().ok());
        keys.extend(address.map(address_key));
    }
    if has_ports(spec) {
        let numbers = spec.ports.iter().flatten().filter_map(|it| it.node_port);
        keys.extend(
            numbers.filter_map(|it| u16::try_from(it).ok()).filter(|it| *it > 0).map(port_key),
        );
    }
    keys
}

fn has_address(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() != Some("ExternalName")
}

fn has_ports(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn blank(text: &Option<String>) -> bool {
    text.as_deref().unwrap_or_default().is_empty()
}

fn service_mut(object: &mut AnyObject) -> Option<&mut Service> {
    (**object).as_any_mut().downcast_mut()
}

fn address_key(address: Ipv4Addr) -> Key {
    api::kind_of::<IPAddress>().key("", &address.to_string()).into()
}

fn address_of(key: &Key) -> Option<Ipv4Addr> {
    let text = key.as_str();
    text.rsplit('/').next().filter(|_| !text.starts_with(PORTS))?.parse().ok()
}

fn is_taken(view: &View, address: Ipv4Addr) -> bool {
    view.world.row_of::<IPAddress>(&ObjectKey::cluster(&address.to_string())).is_some()
}

fn port_key(port: u16) -> Key {
    format!("{PORTS}{port}").into()
}

fn put(key: Key, value: String) -> Write {
    Write { key, expect: Expect::Absent, change: Change::Put { value: value.into(), lease: None } }
}

fn delete(key: Key) -> Write {
    Write { key, expect: Expect::Whatever, change: Change::Delete }
}

fn port_value(namespace: &str, name: &str) -> String {
    format!("{{\"service\":\"{namespace}/{name}\"}}")
}

/// Whether this object may be deleted: the address of a Service that is there could be given to another.
pub(crate) fn expect_unused(view: &View, kind: &AnyKind, old: &dyn Erased) -> Result<(), Failure> {
    let Some(address) = old.as_any().downcast_ref::<IPAddress>() else { return Ok(()) };
    let parent = &address.spec.parent_ref;
    let key = ObjectKey::new(parent.namespace.as_deref().unwrap_or_default(), &parent.name);
    let of_services = parent.resource == "services" && blank(&parent.group);
    let service = view.world.get::<Service>(&key).filter(|_| of_services);
    let spec = service.as_ref().and_then(|it| it.spec.as_ref());
    let has = |it: &ServiceSpec| it.cluster_ip.as_deref() == Some(address.name());
    match spec.is_some_and(has) {
        true => {
            let why = format!("service {key} has this address; it goes with the service");
            Err(Failure::forbidden(kind, address.name(), &why))
        }
        false => Ok(()),
    }
}

/// What upstream's allocator keeps, so that it finds its own after a change of servers.
fn address_object(server: &Server, address: Ipv4Addr, namespace: &str, name: &str) -> String {
    serde_json::json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "uid": server.config.entropy.uuid(),
            "creationTimestamp": server.now().rfc3339(),
            "labels": {
                ip_address::FAMILY: "IPv4",
                ip_address::MANAGED_BY: ip_address::OF_SERVICES,
            },
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let range = ServiceRange::parse("10.96.0.0/30").unwrap();
        assert_eq!(range.first(), Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!(range.size(), 2);
        for (address, inside) in [(0, false), (1, true), (2, true), (3, false)] {
            assert_eq!(range.contains(Ipv4Addr::new(10, 96, 0, address)), inside, "{address}");
        }
        assert!(ServiceRange::parse("10.96.0.0/31").is_err());
        assert!(ServiceRange::parse("fd00::/64").is_err());
    }
}
