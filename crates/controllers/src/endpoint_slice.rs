//! Writes the pods behind each service into slices of at most a hundred endpoints.
//!
//! Upstream: `staging/src/k8s.io/endpointslice/reconciler.go` (1.36). Names are drawn from the
//! service's uid instead of at random. Topology hints and the annotation of trigger times are left out.

use crate::{
    namespace::is_terminating,
    owner,
    service_pods::{
        self, Family, ZONE, families, family_of, has_address, host_name, node_of, protocol,
        publishes_not_ready, reference, services_of_node, services_of_pod, target,
    },
};
use api::{
    Object,
    core::{
        pod::{is_ready, node_name},
        v1::{Node, Pod, Service},
    },
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    meta::ObjectMeta,
};
use std::collections::BTreeMap;
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Touched, Typed, Watch, World};

pub struct EndpointSliceController;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// Endpoints in one slice: upstream's --max-endpoints-per-slice.
const ENDPOINTS_MOST: usize = 100;

impl Controller for EndpointSliceController {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<Service>(),
            Watch::mapped::<Pod>(services_of_pod),
            Watch::mapped::<EndpointSlice>(service_of_slice),
            Watch::mapped::<Node>(services_of_node),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        // The slices of a service that is gone are the garbage collector's.
        let Some(service) = world.get::<Service>(key) else { return plan };
        let Some(selector) = service_pods::selector(&service) else { return plan };
        if is_terminating(world, &key.namespace) {
            return plan;
        }
        let pods = service_pods::pods(world, &service, &selector);
        let table = world.table::<EndpointSlice>();
        let rows = table.into_iter().flat_map(|it| it.rows(Some(&key.namespace)));
        let ours =
            rows.filter(|it| is_of(&it.meta.labels, &key.name) && it.meta.deletion.is_none());
        let mut slices: BTreeMap<Family, Vec<EndpointSlice>> = BTreeMap::new();
        for slice in ours.filter_map(|it| it.typed::<EndpointSlice>()) {
            let family = family_named(&slice.address_type);
            let is_own = owner_uid(&slice) == Some(service.uid());
            match family.filter(|it| is_own && families(&service).contains(it)) {
                Some(family) => slices.entry(family).or_default().push(slice.to_owned()),
                None => drop(plan.write([Change::delete(&*slice)])),
            }
        }
        for family in families(&service) {
            let existing = slices.remove(&family).unwrap_or_default();
            let mut packing = Packing { world, service: &service, family, packed: Vec::new() };
            let spare = packing.pack(&pods, existing);
            packing.write(spare, &mut plan);
        }
        plan
    }
}

fn is_of(labels: &BTreeMap<String, String>, service: &str) -> bool {
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|it| it == value);
    has(MANAGED_BY, MANAGER) && has(SERVICE_NAME, service)
}

/// The service of a slice of ours that somebody touched.
fn service_of_slice(_world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let rows = [&touched.old, &touched.new].into_iter().flatten();
    let ours = rows.filter(|it| it.meta.labels.get(MANAGED_BY).is_some_and(|it| it == MANAGER));
    let service = ours.filter_map(|it| it.meta.labels.get(SERVICE_NAME));
    service.map(|it| ObjectKey::new(&touched.key.namespace, it)).collect()
}

fn owner_uid(slice: &EndpointSlice) -> Option<&str> {
    let owners = slice.metadata.owner_references.iter().flatten();
    let mut services = owners.filter(|it| it.kind == "Service" && it.api_version == "v1");
    services.next().map(|it| it.uid.as_str())
}

fn family_named(address_type: &str) -> Option<Family> {
    match address_type {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    }
}

pub(crate) fn address_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// The slices of one service and family, being filled.
struct Packing<'a> {
    world: &'a World,
    service: &'a Service,
    family: Family,
    /// What each slice is to be, and what it is now, if it is there.
    packed: Vec<(EndpointSlice, Option<EndpointSlice>)>,
}

/// Endpoints that have the same ports share slices.
struct Group {
    ports: Vec<EndpointPort>,
    /// By the uid of the pod, in order of the pods' names.
    endpoints: Vec<Endpoint>,
}

impl Packing<'_> {
    /// Endpoints stay where they are, new ones fill what has room, the rest gets new slices. Returns
    /// the slices that are not needed any more.
    fn pack(&mut self, pods: &[Typed<Pod>], existing: Vec<EndpointSlice>) -> Vec<EndpointSlice> {
        let mut by_ports: BTreeMap<String, Vec<EndpointSlice>> = BTreeMap::new();
        for slice in existing {
            let ports = ports_key(slice.ports.as_deref().unwrap_or_default());
            by_ports.entry(ports).or_default().push(slice);
        }
        let mut spare = Vec::new();
        for (key, mut group) in self.groups(pods) {
            let first = self.packed.len();
            for slice in by_ports.remove(&key).unwrap_or_default() {
                let kept: Vec<Endpoint> = slice
                    .endpoints
                    .iter()
                    .flatten()
                    .filter_map(|it| take(&mut group.endpoints, uid_of(it)?))
                    .collect();
                if kept.is_empty() {
                    spare.push(slice);
                } else {
                    let endpoints = Some(kept);
                    self.packed.push((EndpointSlice { endpoints, ..slice.clone() }, Some(slice)));
                }
            }
            for (slice, _) in &mut self.packed[first..] {
                let endpoints = slice.endpoints.get_or_insert_default();
                let room = ENDPOINTS_MOST.saturating_sub(endpoints.len());
                let more = room.min(group.endpoints.len());
                endpoints.extend(group.endpoints.drain(..more));
            }
            for endpoints in group.endpoints.chunks(ENDPOINTS_MOST) {
                let slice = self.slice(group.ports.clone(), endpoints.to_vec());
                self.packed.push((slice, None));
            }
        }
        spare.extend(by_ports.into_values().flatten());
        if self.packed.is_empty() {
            // A service without pods still has a slice to say so.
            self.packed.push((self.slice(Vec::new(), Vec::new()), None));
        }
        spare
    }

    fn groups(&self, pods: &[Typed<Pod>]) -> BTreeMap<String, Group> {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for pod in pods {
            let Some(endpoint) = self.endpoint(pod) else { continue };
            let ports = self.ports(pod);
            let group = groups.entry(ports_key(&ports));
            let group = group.or_insert_with(|| Group { ports, endpoints: Vec::new() });
            group.endpoints.push(endpoint);
        }
        groups
    }

    fn endpoint(&self, pod: &Pod) -> Option<Endpoint> {
        let addresses: Vec<String> = service_pods::addresses(pod)
            .filter(|it| family_of(*it) == self.family)
            .map(|it| it.to_string())
            .collect();
        let node = node_of(self.world, pod);
        let publishes = publishes_not_ready(self.service);
        if addresses.is_empty() || node.is_none() && !publishes {
            return None;
        }
        let (serving, terminating) = (is_ready(pod), pod.is_deleting());
        Some(Endpoint {
            addresses,
            conditions: Some(EndpointConditions {
                ready: Some(publishes || serving && !terminating),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: host_name(self.service, pod),
            node_name: Some(node_name(pod).to_owned()).filter(|it| !it.is_empty()),
            target_ref: Some(reference(pod)),
            zone: node.and_then(|it| it.label(ZONE).map(str::to_owned)).filter(|it| !it.is_empty()),
            ..Endpoint::default()
        })
    }

    /// The service's ports as this pod has them. What it does not have is left out.
    fn ports(&self, pod: &Pod) -> Vec<EndpointPort> {
        let ports = self.service.spec.iter().flat_map(|it| it.ports.iter().flatten());
        let port = |port: &api::core::v1::ServicePort| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target(pod, port)?),
                protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        };
        ports.filter_map(port).collect()
    }

    /// A slice that has no name yet.
    fn slice(&self, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
        EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", self.service.name())),
                namespace: self.service.metadata.namespace.clone(),
                owner_references: Some(vec![owner(self.service)]),
                ..ObjectMeta::default()
            },
            address_type: address_type(self.family).to_owned(),
            endpoints: Some(endpoints),
            ports: Some(ports),
        }
    }

    /// Plans what differs. A slice that is not needed any more becomes one that is missing.
    fn write(self, mut spare: Vec<EndpointSlice>, plan: &mut Plan) {
        let labels = self.labels();
        let mut number = 0;
        for (mut slice, mut old) in self.packed {
            if old.is_none()
                && let Some(reused) = spare.pop()
            {
                slice.metadata = reused.metadata.clone();
                old = Some(reused);
            }
            slice.metadata.labels = Some(labels.clone());
            match old {
                Some(old) if same(&old, &slice) => {}
                Some(_) => drop(plan.write([Change::update(slice)])),
                None => {
                    let name = free_name(self.world, self.service, self.family, &mut number);
                    slice.metadata.name = Some(name);
                    plan.write([Change::create(slice)]);
                }
            }
        }
        for slice in spare {
            plan.write([Change::delete(&slice)]);
        }
    }

    /// The service's labels, and those that say whose slice it is.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.service.metadata.labels.clone().unwrap_or_default();
        labels.remove(HEADLESS);
        if !has_address(self.service) {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        labels.insert(SERVICE_NAME.to_owned(), self.service.name().to_owned());
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        labels
    }
}

fn uid_of(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.uid.as_deref()
}

fn take(endpoints: &mut Vec<Endpoint>, uid: &str) -> Option<Endpoint> {
    let at = endpoints.iter().position(|it| uid_of(it) == Some(uid))?;
    Some(endpoints.remove(at))
}

/// Ports as a text that is the same for the same ports in any order.
pub(crate) fn ports_key(ports: &[EndpointPort]) -> String {
    let mut lines: Vec<String> = ports
        .iter()
        .map(|it| {
            let text = |it: &Option<String>| it.clone().unwrap_or_default();
            let (name, protocol) = (text(&it.name), protocol(it.protocol.as_deref()));
            format!("{name}/{:?}/{protocol}/{}", it.port, text(&it.app_protocol))
        })
        .collect();
    lines.sort();
    lines.join(" ")
}

/// Whether two slices say the same: absent and empty are one.
pub(crate) fn same(one: &EndpointSlice, other: &EndpointSlice) -> bool {
    one.metadata == other.metadata
        && one.endpoints.as_deref().unwrap_or_default()
            == other.endpoints.as_deref().unwrap_or_default()
        && one.ports.as_deref().unwrap_or_default() == other.ports.as_deref().unwrap_or_default()
}

/// `<service>-<five letters>`: the next one of the service's names that nobody has.
fn free_name(world: &World, service: &Service, family: Family, number: &mut u32) -> String {
    loop {
        let seed = format!("{}/{}/{number}", service.uid(), address_type(family));
        *number += 1;
        let name = format!("{}-{}", service.name(), suffix(&seed));
        let key = ObjectKey::new(service.namespace(), &name);
        if world.row_of::<EndpointSlice>(&key).is_none() {
            return name;
        }
    }
}

/// Five characters of upstream's alphabet of generated names, which spells no words. FNV-1a.
pub(crate) fn suffix(seed: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    let letters = (0..5).map(|_| {
        let letter = ALPHABET[usize::try_from(hash % 27).unwrap_or(0)];
        hash /= 27;
        char::from(letter)
    });
    letters.collect()
}

#[cfg(test)]
mod tests;
