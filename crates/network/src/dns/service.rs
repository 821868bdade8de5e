//! Who is behind a Service, and what its names say.
//!
//! Upstream: staging/src/k8s.io/endpointslice/utils.go (1.36), podToEndpoint, getEndpointPorts. A
//! Service with a selector is answered from the pods of the same World and not from the slices made
//! of them, so that a name is there at the revision that says its pod is Ready; from the slices where the World shows
//! the pods of one node only.

use super::{
    answer::Node,
    names,
    zone::{Known, Zone},
};
use api::{
    Object,
    core::{
        pod::{self, is_ready, is_terminal},
        service::{is_external_name, is_headless},
        v1::{Endpoints, Pod, Service, ServicePort},
    },
    discovery::v1::EndpointSlice,
    k8s::apimachinery::pkg::util::intstr::IntOrString,
};
use hickory_proto::rr::{
    Name, RData,
    rdata::{A, AAAA, CNAME, SRV},
};
use std::{collections::BTreeSet, net::IpAddr};
use world::{ObjectKey, World};

/// The label by which a slice names its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// One address behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) hostname: Option<String>,
    pub(crate) address: IpAddr,
    ports: Vec<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    name: String,
    protocol: String,
    number: u16,
}

/// A `_port._protocol` before a Service's name.
pub(crate) struct PortName<'a> {
    pub(crate) port: &'a str,
    pub(crate) protocol: &'a str,
}

impl Endpoint {
    /// Its own name below the Service's.
    pub(crate) fn label(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| names::dashed(self.address))
    }
}

/// What `service.namespace.svc` says; with `port`, what `_port._protocol` before it says.
pub(crate) fn node(
    world: &World,
    zone: &Zone,
    key: &ObjectKey,
    port: Option<&PortName<'_>>,
) -> Option<Node> {
    let service = world.get::<Service>(key)?;
    let own_name = zone.name(&[&key.name, &key.namespace, "svc"])?;
    let spec = service.spec.as_ref()?;
    if is_external_name(&service) {
        let target = spec.external_name.as_deref().filter(|_| port.is_none())?;
        return external(target);
    }
    if is_headless(&service) {
        return of_endpoints(&endpoints(world, zone, &service), &own_name, port);
    }
    let addresses = cluster_ips(&service);
    if addresses.is_empty() {
        return None;
    }
    let ports: Vec<Port> = spec.ports.iter().flatten().filter_map(service_port).collect();
    let targets = ports.iter().filter(|it| port.is_none_or(|port| it.is(port)));
    let mut node = Node::default();
    node.serve(targets.map(|it| (own_name.clone(), it.number)));
    let addresses: Vec<RData> = addresses.into_iter().map(address_data).collect();
    match port {
        Some(_) if node.data.is_empty() => return None,
        Some(_) => {}
        None => node.data.extend(addresses.clone()),
    }
    node.extra = addresses.into_iter().map(|it| (own_name.clone(), it)).collect();
    Some(node)
}

/// What `endpoint.service.namespace.svc` says.
pub(crate) fn endpoint_node(
    world: &World,
    zone: &Zone,
    key: &ObjectKey,
    label: &str,
) -> Option<Node> {
    let service = world.get::<Service>(key)?;
    let own_name = zone.name(&[&key.name, &key.namespace, "svc"])?;
    let mut endpoints = endpoints(world, zone, &service);
    endpoints.retain(|it| it.label().eq_ignore_ascii_case(label));
    if let Some(node) = of_endpoints(&endpoints, &own_name, None) {
        return Some(node);
    }
    // `_tcp` is nothing itself, but there are names below it.
    let protocol = label.strip_prefix('_')?;
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let named = |it: &ServicePort| it.name.is_some() && same_protocol(it, protocol);
    ports.iter().any(named).then(Node::default)
}

/// Every address behind the Service that its names lead to: ready ones, or all with
/// `publishNotReadyAddresses`. Sorted, each once.
pub(crate) fn endpoints(world: &World, zone: &Zone, service: &Service) -> Vec<Endpoint> {
    let spec = service.spec.as_ref();
    let selector = spec.and_then(|it| it.selector.as_ref()).filter(|it| !it.is_empty());
    let mut found = match selector.filter(|_| zone.known == Known::Everything) {
        Some(selector) => {
            let rows = world.table::<Pod>().map(|it| it.rows(Some(service.namespace())));
            // Labels are decoded with every row; the pods themselves only where they match.
            let selected = rows.into_iter().flatten().filter(|row| {
                selector.iter().all(|(key, value)| row.meta.labels.get(key) == Some(value))
            });
            let pods = selected.filter_map(|row| row.typed::<Pod>());
            pods.flat_map(|pod| of_pod(service, &pod)).collect()
        }
        None => written_by_others(world, service),
    };
    found.sort_by_key(|it| (it.address, it.hostname.clone()));
    found.dedup();
    found
}

/// The pod's addresses, as the Service shows them. Whether it selects the pod is the caller's
/// question.
pub(crate) fn of_pod(service: &Service, pod: &Pod) -> Vec<Endpoint> {
    let spec = service.spec.as_ref();
    let unready = spec.and_then(|it| it.publish_not_ready_addresses) == Some(true);
    let serves = unready || is_ready(pod) && !pod.is_deleting();
    if is_terminal(pod) || !serves {
        return Vec::new();
    }
    let ports: Vec<Port> = spec
        .iter()
        .flat_map(|it| it.ports.iter().flatten())
        .filter_map(|port| {
            let number = target_port(port, pod)?;
            Some(Port { number, ..service_port(port)? })
        })
        .collect();
    let hostname = hostname(service, pod);
    let families = spec.and_then(|it| it.ip_families.as_ref()).filter(|it| !it.is_empty());
    let family = |it: &IpAddr| if it.is_ipv4() { "IPv4" } else { "IPv6" };
    pod::addresses(pod)
        .into_iter()
        .filter_map(|it| it.parse().ok())
        .filter(|it| families.is_none_or(|families| families.iter().any(|name| name == family(it))))
        .map(|address| Endpoint { hostname: hostname.clone(), address, ports: ports.clone() })
        .collect()
}

/// `spec.hostname` is a name below the Service that `spec.subdomain` names.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let below =
        spec.subdomain.as_deref() == Some(service.name()) && service.namespace() == pod.namespace();
    spec.hostname.clone().filter(|it| below && !it.is_empty())
}

/// Upstream: FindPort of staging/src/k8s.io/endpointslice/utils.go. A name is a container's port.
fn target_port(port: &ServicePort, pod: &Pod) -> Option<u16> {
    let named = |name: &str| {
        let spec = pod.spec.as_ref()?;
        let ports = spec.containers.iter().flat_map(|it| it.ports.iter().flatten());
        let mut ports = ports.filter(|it| it.name.as_deref() == Some(name));
        let protocol = protocol(port.protocol.as_deref());
        let found = ports.find(|it| self::protocol(it.protocol.as_deref()) == protocol)?;
        u16::try_from(found.container_port).ok()
    };
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(0)) => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) if name.is_empty() => u16::try_from(port.port).ok(),
        Some(IntOrString::String(name)) => named(name),
    }
}

/// A Service without a selector: somebody else says where it leads, in slices or in Endpoints. So it is with all, where
/// pods are not known.
fn written_by_others(world: &World, service: &Service) -> Vec<Endpoint> {
    let slices = world.table::<EndpointSlice>().map(|it| it.rows(Some(service.namespace())));
    let slices = slices.into_iter().flatten().filter(|row| {
        row.meta.labels.get(SERVICE_NAME).is_some_and(|it| it == service.name())
            && row.meta.deletion.is_none()
    });
    let slices: Vec<_> = slices.filter_map(|row| row.typed::<EndpointSlice>()).collect();
    if !slices.is_empty() {
        return slices.iter().flat_map(|it| of_slice(it)).collect();
    }
    let key = ObjectKey::new(service.namespace(), service.name());
    world.get::<Endpoints>(&key).map(|it| of_endpoints_object(&it)).unwrap_or_default()
}

pub(crate) fn of_slice(slice: &EndpointSlice) -> Vec<Endpoint> {
    let ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|it| port(it.name.as_deref(), it.protocol.as_deref(), it.port?))
        .collect();
    // No word about readiness means ready.
    let ready =
        slice.endpoints.iter().flatten().filter(|it| {
            it.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
        });
    let addressed = ready.flat_map(|it| {
        it.addresses.iter().filter_map(|text| Some((it.hostname.clone(), text.parse().ok()?)))
    });
    addressed
        .map(|(hostname, address)| Endpoint { hostname, address, ports: ports.clone() })
        .collect()
}

fn of_endpoints_object(object: &Endpoints) -> Vec<Endpoint> {
    let mut found = Vec::new();
    for subset in object.subsets.iter().flatten() {
        let ports = subset.ports.iter().flatten();
        let ports: Vec<Port> = ports
            .filter_map(|it| port(it.name.as_deref(), it.protocol.as_deref(), it.port))
            .collect();
        for it in subset.addresses.iter().flatten() {
            let Ok(address) = it.ip.parse() else { continue };
            found.push(Endpoint { hostname: it.hostname.clone(), address, ports: ports.clone() });
        }
    }
    found
}

/// Addresses and targets of endpoints. None: there are none, so there is no such name.
fn of_endpoints(
    endpoints: &[Endpoint],
    service: &Name,
    port: Option<&PortName<'_>>,
) -> Option<Node> {
    let mut node = Node::default();
    let mut targets = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for endpoint in endpoints {
        addresses.insert(endpoint.address);
        let Ok(name) = service.prepend_label(endpoint.label().as_bytes()) else { continue };
        let mut wanted = endpoint.ports.iter().filter(|it| port.is_none_or(|port| it.is(port)));
        if let Some(first) = wanted.next() {
            targets.extend([first].into_iter().chain(wanted).map(|it| (name.clone(), it.number)));
            node.extra.push((name, address_data(endpoint.address)));
        }
    }
    node.serve(targets.into_iter());
    if port.is_none() {
        node.data.extend(addresses.into_iter().map(address_data));
    }
    (!node.data.is_empty()).then_some(node)
}

fn external(target: &str) -> Option<Node> {
    // Upstream lets an address through as a name; as an alias it would lead nowhere.
    let data = match target.parse::<IpAddr>() {
        Ok(address) => address_data(address),
        Err(_) => {
            let mut name = Name::from_ascii(target).ok()?;
            name.set_fqdn(true);
            RData::CNAME(CNAME(name))
        }
    };
    Some(Node { data: vec![data], extra: Vec::new() })
}

pub(crate) fn cluster_ips(service: &Service) -> BTreeSet<IpAddr> {
    let Some(spec) = &service.spec else { return BTreeSet::new() };
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.filter_map(|it| it.parse().ok()).collect()
}

fn service_port(it: &ServicePort) -> Option<Port> {
    port(it.name.as_deref(), it.protocol.as_deref(), it.port)
}

fn port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    let number = u16::try_from(number).ok()?;
    let protocol = self::protocol(protocol).to_owned();
    Some(Port { name: name.unwrap_or_default().to_owned(), protocol, number })
}

fn protocol(it: Option<&str>) -> &str {
    it.unwrap_or("TCP")
}

fn same_protocol(port: &ServicePort, name: &str) -> bool {
    protocol(port.protocol.as_deref()).eq_ignore_ascii_case(name)
}

impl Port {
    fn is(&self, wanted: &PortName<'_>) -> bool {
        self.name.eq_ignore_ascii_case(wanted.port)
            && self.protocol.eq_ignore_ascii_case(wanted.protocol)
    }
}

impl Node {
    /// Adds one target per name and port. All have priority 0 and share 100 of weight, as CoreDNS
    /// says it.
    fn serve(&mut self, targets: impl Iterator<Item = (Name, u16)>) {
        let targets: Vec<(Name, u16)> = targets.collect();
        let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1);
        let record = |(name, port)| RData::SRV(SRV::new(0, weight, port, name));
        self.data.extend(targets.into_iter().map(record));
    }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The data of a name that is only addresses.
pub(crate) fn addresses_node(addresses: impl IntoIterator<Item = IpAddr>) -> Node {
    Node { data: addresses.into_iter().map(address_data).collect(), extra: Vec::new() }
}
