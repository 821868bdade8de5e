//! Which pods stand behind a service, by which ports, and which services a change of a pod concerns.
//!
//! Upstream: `staging/src/k8s.io/endpointslice/util/controller_utils.go` and `utils.go` (1.36).

use api::{
    Object,
    core::{
        pod::{is_ready, is_terminal},
        service::is_external_name,
        v1::{Container, ContainerPort, Node, ObjectReference, Pod, Service, ServicePort},
    },
    k8s::apimachinery::pkg::util::intstr::IntOrString,
    meta::Selector,
};
use std::{net::IpAddr, sync::Arc};
use world::{ObjectKey, Row, Touched, Typed, World};

/// The family of addresses that a slice or a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What chooses the service's pods; none if its endpoints are somebody else's to write.
pub(crate) fn selector(service: &Service) -> Option<Selector> {
    let pairs = service.spec.as_ref().and_then(|it| it.selector.as_ref());
    let pairs = pairs.filter(|it| !it.is_empty() && !is_external_name(service));
    pairs.map(Selector::of_map)
}

/// Every pod that the selector chooses and that has an address and has not ended, in order of name.
pub(crate) fn pods(world: &World, service: &Service, selector: &Selector) -> Vec<Typed<Pod>> {
    let rows = world.table::<Pod>().map(|it| it.rows(Some(service.namespace())));
    let chosen = rows.into_iter().flatten().filter(|it| selector.matches(&it.meta.labels));
    let pods = chosen.filter_map(|it| it.typed::<Pod>());
    pods.filter(|it| !is_terminal(it) && addresses(it).next().is_some()).collect()
}

/// The pod's addresses in the order in which its node names them.
pub(crate) fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.iter();
    status.flat_map(|it| it.pod_ips.iter().flatten()).filter_map(|it| it.ip.parse().ok())
}

pub(crate) fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// The families of the service, its first one first.
pub(crate) fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|it| it.ip_families.as_deref()).unwrap_or_default();
    let named: Vec<Family> = named
        .iter()
        .filter_map(|it| match it.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if !named.is_empty() {
        return named;
    }
    match api::core::service::cluster_ip(service).parse().map(family_of) {
        Ok(family) => vec![family],
        Err(_) => vec![Family::V4],
    }
}

/// The number behind a port of the service in this pod; a name may mean another number in each.
pub(crate) fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match port.target_port.as_ref() {
        None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let is_sidecar = |it: &&Container| it.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|it| it.ports.iter().flatten());
    let wanted = protocol(port.protocol.as_deref());
    let fits = |it: &&ContainerPort| {
        it.name.as_ref() == Some(name) && protocol(it.protocol.as_deref()) == wanted
    };
    ports.find(fits).map(|it| it.container_port)
}

pub(crate) fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|it| !it.is_empty()).unwrap_or("TCP")
}

/// The name of the pod below the service's, if it has one.
pub(crate) fn host_name(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let below = spec.subdomain.as_deref() == Some(service.name());
    spec.hostname.clone().filter(|it| below && !it.is_empty())
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|it| it.publish_not_ready_addresses).unwrap_or(false)
}

/// Whether the service has an address of its own.
pub(crate) fn has_address(service: &Service) -> bool {
    !matches!(api::core::service::cluster_ip(service), "" | api::core::service::HEADLESS)
}

pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The services that choose the pod, before or after the change, if the change is one that they show.
pub(crate) fn services_of_pod(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let rows = || [&touched.old, &touched.new].into_iter().flatten();
    if let (Some(old), Some(new)) = (&touched.old, &touched.new)
        && let (Some(one), Some(other)) = (old.typed::<Pod>(), new.typed::<Pod>())
        && old.meta.labels == new.meta.labels
        && shown(&one) == shown(&other)
    {
        return Vec::new();
    }
    let chooses = |service: &Typed<Service>| {
        let selector = selector(service);
        selector.is_some_and(|it| rows().any(|row| it.matches(&row.meta.labels)))
    };
    let services = world.list::<Service>(&touched.key.namespace);
    services.filter(chooses).map(|it| ObjectKey::of(&*it)).collect()
}

/// A node that comes, goes or changes its zone concerns the services of its pods.
pub(crate) fn services_of_node(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let zone = |row: &Option<Arc<Row>>| row.as_ref().map(|it| it.meta.labels.get(ZONE).cloned());
    // The first look brings the pods themselves along.
    if zone(&touched.old) == zone(&touched.new) {
        return Vec::new();
    }
    let table = world.table::<Pod>();
    let rows: Vec<_> =
        table.into_iter().flat_map(|it| it.indexed("node", &touched.key.name)).collect();
    let mut keys = Vec::new();
    for service in world.all::<Service>() {
        let Some(selector) = selector(&service) else { continue };
        let chosen = |row: &&Arc<Row>| {
            row.meta.namespace == service.namespace() && selector.matches(&row.meta.labels)
        };
        if rows.iter().copied().any(|it| chosen(&it)) {
            keys.push(ObjectKey::of(&*service));
        }
    }
    keys
}

pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";

pub(crate) fn node_of(world: &World, pod: &Pod) -> Option<Typed<Node>> {
    world.cluster::<Node>(api::core::pod::node_name(pod))
}

/// Everything of a pod that an endpoint shows, besides its labels.
fn shown(pod: &Pod) -> impl PartialEq {
    let spec = pod.spec.as_ref();
    let ports = spec.map(|it| {
        let all = it.containers.iter().chain(it.init_containers.iter().flatten());
        all.flat_map(|it| it.ports.clone().unwrap_or_default()).collect::<Vec<_>>()
    });
    (
        pod.metadata.uid.clone(),
        pod.is_deleting(),
        is_terminal(pod),
        is_ready(pod),
        addresses(pod).collect::<Vec<_>>(),
        spec.map(|it| (it.node_name.clone(), it.hostname.clone(), it.subdomain.clone())),
        ports,
    )
}
