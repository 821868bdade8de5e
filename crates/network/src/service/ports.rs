//! Ports of Services and where their packets go: decided from the World, touching nothing.
//!
//! Upstream: `pkg/proxy/{serviceport,endpointslicecache,topology}.go` (1.36).

use super::host_ports;
use api::{
    Object,
    core::v1::{Service, ServicePort},
    discovery::v1::EndpointSlice,
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};
use world::{Touched, Typed, World};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Endpoints of one port of one Service. Upstream's slices hold a hundred each; ten of them are served.
const ENDPOINTS_MAX: usize = 1000;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) type Endpoint = (Ipv4Addr, u16);

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// Short, and the same as long as the port is: names chains and sets.
    pub(super) id: String,
    pub(super) protocol: u8,
    /// Where clients in the cluster ask: its own address.
    pub(super) address: Ipv4Addr,
    /// Where clients from elsewhere ask.
    pub(super) external: Vec<Ipv4Addr>,
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
    pub(super) inside: Vec<Endpoint>,
    pub(super) outside: Vec<Endpoint>,
    /// Whether endpoints see the address of clients from outside; otherwise they see the node's.
    pub(super) keeps_source: bool,
    /// How long a client goes to the same endpoint.
    pub(super) sticky_seconds: Option<u32>,
}

impl Port {
    pub(super) fn places(&self) -> impl Iterator<Item = (Ipv4Addr, u16)> {
        let all = std::iter::once(&self.address).chain(&self.external);
        all.map(|it| (*it, self.port))
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.inside.iter().chain(&self.outside).copied()
    }
}

pub(super) fn concerns(touched: &Touched) -> bool {
    let kind = (touched.kind.group.as_str(), touched.kind.kind.as_str());
    matches!(kind, ("", "Service") | ("discovery.k8s.io", "EndpointSlice"))
        || host_ports::concerns(touched)
}

/// Every port that has an address, in the order of Services.
pub(super) fn of_world(world: &World, node: &str) -> Vec<Port> {
    let mut slices: BTreeMap<(String, String), Vec<Typed<EndpointSlice>>> = BTreeMap::new();
    for slice in world.all::<EndpointSlice>() {
        let service = slice.metadata.labels.as_ref().and_then(|it| it.get(SERVICE_NAME));
        if let Some(service) = service {
            let key = (slice.namespace().to_owned(), service.clone());
            slices.entry(key).or_default().push(slice);
        }
    }
    let mut ports = Vec::new();
    for service in world.all::<Service>() {
        let key = (service.namespace().to_owned(), service.name().to_owned());
        let own = slices.get(&key).map_or(&[][..], Vec::as_slice);
        let own: Vec<&EndpointSlice> = own.iter().map(|it| &**it).collect();
        ports.extend(of_service(&service, &own, node));
    }
    // Where a Service has the port already, it stays the Service's.
    ports.extend(host_ports::of_world(world, node));
    ports
}

pub(super) fn of_service(service: &Service, slices: &[&EndpointSlice], node: &str) -> Vec<Port> {
    let Some(spec) = &service.spec else { return Vec::new() };
    // Headless Services and names of other hosts have no address to translate.
    let address = spec.cluster_ip.as_deref().and_then(|it| it.parse::<Ipv4Addr>().ok());
    let (Some(address), false) = (address, spec.type_.as_deref() == Some("ExternalName")) else {
        return Vec::new();
    };
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let outside_local = local(&spec.external_traffic_policy);
    let sticky_seconds = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|it| it.client_ip.as_ref());
        let seconds = config.and_then(|it| it.timeout_seconds).unwrap_or(10800);
        u32::try_from(seconds).unwrap_or(10800)
    });
    let balancer = service.status.as_ref().and_then(|it| it.load_balancer.as_ref());
    let ingress = balancer.iter().flat_map(|it| &it.ingress).flatten();
    let ingress = ingress.filter_map(|it| it.ip.as_ref());
    let external = spec.external_ips.iter().flatten().chain(ingress);
    let external: BTreeSet<Ipv4Addr> = external.filter_map(|it| it.parse().ok()).collect();
    let one = |port: &ServicePort| {
        let protocol = protocol(port.protocol.as_deref().unwrap_or("TCP"))?;
        let name = port.name.as_deref().unwrap_or_default();
        let endpoints = |only_here: bool| endpoints(slices, name, only_here.then_some(node));
        Some(Port {
            id: id(&[service.namespace(), service.name(), name, &protocol.to_string()]),
            protocol,
            address,
            external: external.iter().copied().collect(),
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|it| u16::try_from(it).ok()).filter(|it| *it > 0),
            inside: endpoints(local(&spec.internal_traffic_policy)),
            outside: endpoints(outside_local),
            keeps_source: outside_local,
            sticky_seconds,
        })
    };
    spec.ports.iter().flatten().filter_map(one).collect()
}

/// Those that are ready; while none is, those that end and still serve.
fn endpoints(slices: &[&EndpointSlice], port: &str, only_on: Option<&str>) -> Vec<Endpoint> {
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.iter().filter(|it| it.address_type == "IPv4") {
        let numbers: Vec<u16> = slice
            .ports
            .iter()
            .flatten()
            .filter(|it| it.name.as_deref().unwrap_or_default() == port)
            .filter_map(|it| u16::try_from(it.port?).ok())
            .collect();
        for endpoint in slice.endpoints.iter().flatten() {
            if only_on.is_some_and(|node| endpoint.node_name.as_deref() != Some(node)) {
                continue;
            }
            let conditions = endpoint.conditions.as_ref();
            let is_ready = conditions.and_then(|it| it.ready).unwrap_or(true);
            let serves = conditions.and_then(|it| it.serving).unwrap_or(is_ready);
            let ends = conditions.and_then(|it| it.terminating).unwrap_or(false);
            let into = match (is_ready, serves && ends) {
                (true, _) => &mut ready,
                (false, true) => &mut ending,
                (false, false) => continue,
            };
            let address = endpoint.addresses.first().and_then(|it| it.parse::<Ipv4Addr>().ok());
            into.extend(address.iter().flat_map(|it| numbers.iter().map(|port| (*it, *port))));
        }
    }
    let chosen = if ready.is_empty() { ending } else { ready };
    chosen.into_iter().take(ENDPOINTS_MAX).collect()
}

/// Its number in a packet.
pub(super) fn protocol(name: &str) -> Option<u8> {
    match name {
        "TCP" => Some(TCP),
        "UDP" => Some(UDP),
        "SCTP" => Some(SCTP),
        _ => None,
    }
}

/// Twelve hexadecimal digits that only these parts have.
pub(super) fn id(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\n").as_bytes());
    digest.iter().take(6).map(|it| format!("{it:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(yaml: &str) -> Service {
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"web","namespace":"a"}},"spec":{yaml}}}"#
        );
        api::codec::decode(text.as_bytes()).expect("a Service").0
    }

    fn slice(endpoints: &str) -> EndpointSlice {
        let text = format!(
            r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"name":"web-1","namespace":"a"}},
            "addressType":"IPv4","ports":[{{"name":"http","port":8080}}],"endpoints":{endpoints}}}"#
        );
        api::codec::decode(text.as_bytes()).expect("a slice").0
    }

    const THREE: &str = r#"[
        {"addresses":["10.0.0.1"],"nodeName":"n1","conditions":{"ready":true}},
        {"addresses":["10.0.1.1"],"nodeName":"n2"},
        {"addresses":["10.0.0.2"],"nodeName":"n1","conditions":{"ready":false,"serving":true,"terminating":true}}]"#;

    fn last(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints.iter().map(|it| format!("{}:{}", it.0, it.1)).collect()
    }

    #[test]
    fn an_address_and_a_port_go_to_the_endpoints_that_are_ready() {
        let service = service(
            r#"{"clusterIP":"10.96.0.9","type":"NodePort","externalIPs":["192.0.2.1"],
            "ports":[{"name":"http","port":80,"nodePort":30080}]}"#,
        );
        let ports = of_service(&service, &[&slice(THREE)], "n1");
        let [port] = ports.as_slice() else { panic!("{ports:?}") };
        assert_eq!((port.protocol, port.port, port.node_port), (TCP, 80, Some(30080)));
        assert_eq!(port.places().count(), 2);
        assert_eq!(last(&port.inside), ["10.0.0.1:8080", "10.0.1.1:8080"]);
        assert_eq!(port.inside, port.outside);
        assert_eq!((port.keeps_source, port.sticky_seconds), (false, None));
    }

    #[test]
    fn local_policies_keep_to_the_node() {
        let service = service(
            r#"{"clusterIP":"10.96.0.9","type":"NodePort","externalTrafficPolicy":"Local","sessionAffinity":"ClientIP",
            "sessionAffinityConfig":{"clientIP":{"timeoutSeconds":60}},
            "ports":[{"name":"http","port":80,"nodePort":30080}]}"#,
        );
        let port = &of_service(&service, &[&slice(THREE)], "n2")[0];
        assert_eq!(last(&port.inside), ["10.0.0.1:8080", "10.0.1.1:8080"]);
        assert_eq!(last(&port.outside), ["10.0.1.1:8080"]);
        assert_eq!((port.keeps_source, port.sticky_seconds), (true, Some(60)));
    }

    #[test]
    fn the_last_that_end_serve_while_no_other_is_ready() {
        let service = service(r#"{"clusterIP":"10.96.0.9","ports":[{"name":"http","port":80}]}"#);
        let ending = slice(
            r#"[{"addresses":["10.0.0.2"],"conditions":{"ready":false,"serving":true,"terminating":true}},
            {"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":false,"terminating":true}}]"#,
        );
        let port = &of_service(&service, &[&ending], "n1")[0];
        assert_eq!(last(&port.inside), ["10.0.0.2:8080"]);
    }

    #[test]
    fn headless_services_and_names_of_other_hosts_have_nothing_to_translate() {
        for spec in [
            r#"{"clusterIP":"None","ports":[{"port":80}]}"#,
            r#"{"type":"ExternalName","externalName":"example.org","ports":[{"port":80}]}"#,
            r#"{"ports":[{"port":80}]}"#,
        ] {
            assert_eq!(of_service(&service(spec), &[&slice(THREE)], "n1"), []);
        }
    }
}
