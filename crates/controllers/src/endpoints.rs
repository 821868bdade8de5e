//! Writes the pods behind each service into the Endpoints object of the same name, for clients that
//! do not know slices.
//!
//! Upstream: `pkg/controller/endpoint/endpoints_controller.go`, `pkg/api/v1/endpoints/util.go` (1.36).
//! Deviations: subsets are ordered by what they hold instead of by hash; when a service goes, only an
//! object that bears our label goes with it, so that what others wrote stays.

use crate::{
    endpoint_slice::HEADLESS,
    namespace::is_terminating,
    service_pods::{
        self, families, family_of, has_address, host_name, protocol, publishes_not_ready,
        reference, services_of_pod, target,
    },
};
use api::{
    Object,
    core::{
        pod::{is_ready, node_name},
        v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service},
    },
    meta::ObjectMeta,
};
use std::collections::{BTreeMap, BTreeSet};
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Watch, World};

pub struct EndpointsController;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// On a lock of old clients, which is no list of endpoints at all.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Addresses in one object: upstream's limit, beyond which only slices tell all.
const ADDRESSES_MOST: usize = 1000;

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<Service>(),
            Watch::of::<Endpoints>(),
            Watch::mapped::<Pod>(services_of_pod),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let old = world.get::<Endpoints>(key);
        if is_terminating(world, &key.namespace) {
            return plan;
        }
        let Some(service) = world.get::<Service>(key) else {
            let ours = old.filter(|it| {
                it.label(MANAGED_BY) == Some(MANAGER)
                    && it.annotation(LEADER).is_none()
                    && !it.is_deleting()
            });
            if let Some(old) = ours {
                let gone = Change::check_absent::<Service>(key.clone());
                plan.write([Change::delete(&*old), gone]);
            }
            return plan;
        };
        let Some(selector) = service_pods::selector(&service) else { return plan };
        let pods = service_pods::pods(world, &service, &selector);
        let mut subsets = Subsets::default();
        for pod in &pods {
            subsets.add(&service, pod);
        }
        let (subsets, is_cut) = subsets.packed();
        let mut wanted = match &old {
            Some(old) => old.to_owned(),
            None => Endpoints { metadata: named_like(&service), subsets: None },
        };
        wanted.metadata.labels = Some(labels(&service));
        mark_cut(&mut wanted, is_cut);
        wanted.subsets = (!subsets.is_empty()).then_some(subsets);
        match old {
            None => drop(plan.write([Change::create(wanted)])),
            Some(old) if *old != wanted => drop(plan.write([Change::update(wanted)])),
            Some(_) => {}
        }
        plan
    }
}

fn named_like(service: &Service) -> ObjectMeta {
    ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if !has_address(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn mark_cut(endpoints: &mut Endpoints, is_cut: bool) {
    let annotations = &mut endpoints.metadata.annotations;
    if is_cut {
        let truncated = "truncated".to_owned();
        annotations.get_or_insert_default().insert(OVER_CAPACITY.to_owned(), truncated);
    } else if let Some(all) = annotations {
        all.remove(OVER_CAPACITY);
        if all.is_empty() {
            *annotations = None;
        }
    }
}

/// Name, number and protocol of a port, and what is spoken there. None: a pod without ports.
type Port = Option<(String, i32, String, Option<String>)>;
/// An address and the uid of its pod: host networks give one address to many pods.
type Host = (String, String);

/// Who offers which port, and whether it is ready.
#[derive(Default)]
struct Subsets {
    addresses: BTreeMap<Host, EndpointAddress>,
    hosts: BTreeMap<Port, BTreeMap<Host, bool>>,
}

impl Subsets {
    fn add(&mut self, service: &Service, pod: &Pod) {
        let publishes = publishes_not_ready(service);
        if pod.is_deleting() && !publishes {
            return;
        }
        let Some(family) = families(service).first().copied() else { return };
        let mut addresses = service_pods::addresses(pod).map(|it| (family_of(it), it));
        let Some((_, address)) = addresses.find(|it| it.0 == family) else { return };
        let host = (address.to_string(), pod.uid().to_owned());
        let is_ready = publishes || is_ready(pod);
        for port in ports(service, pod) {
            self.hosts.entry(port).or_default().insert(host.clone(), is_ready);
        }
        let address = EndpointAddress {
            ip: host.0.clone(),
            hostname: host_name(service, pod),
            node_name: Some(node_name(pod).to_owned()).filter(|it| !it.is_empty()),
            target_ref: Some(reference(pod)),
        };
        self.addresses.insert(host, address);
    }

    /// Ports that the same hosts offer become one subset. Says whether some did not fit.
    fn packed(self) -> (Vec<EndpointSubset>, bool) {
        let mut by_hosts: BTreeMap<BTreeMap<Host, bool>, BTreeSet<Port>> = BTreeMap::new();
        for (port, hosts) in self.hosts {
            by_hosts.entry(hosts).or_default().insert(port);
        }
        let total: usize = by_hosts.keys().map(BTreeMap::len).sum();
        let ready: usize =
            by_hosts.keys().map(|it| it.values().filter(|ready| **ready).count()).sum();
        let mut room_ready = ADDRESSES_MOST;
        let mut room_other = ADDRESSES_MOST.saturating_sub(ready);
        let mut subsets = Vec::new();
        for (hosts, ports) in by_hosts {
            let addresses = |is_ready: bool, room: &mut usize| {
                let these = hosts.iter().filter(|it| *it.1 == is_ready).take(*room);
                let these: Vec<_> = these.map(|(host, _)| self.addresses[host].clone()).collect();
                *room -= these.len();
                (!these.is_empty()).then_some(these)
            };
            let subset = EndpointSubset {
                addresses: addresses(true, &mut room_ready),
                not_ready_addresses: addresses(false, &mut room_other),
                ports: Some(ports.into_iter().flatten().map(endpoint_port).collect::<Vec<_>>())
                    .filter(|it| !it.is_empty()),
            };
            if subset.addresses.is_some() || subset.not_ready_addresses.is_some() {
                subsets.push(subset);
            }
        }
        (subsets, total > ADDRESSES_MOST)
    }
}

/// The service's ports as this pod has them; one that says nothing if a headless service has none.
fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let all = service.spec.as_ref().and_then(|it| it.ports.as_deref()).unwrap_or_default();
    if all.is_empty() {
        return if api::core::service::is_headless(service) { vec![None] } else { Vec::new() };
    }
    let port = |port: &api::core::v1::ServicePort| {
        let (name, number) = (port.name.clone().unwrap_or_default(), target(pod, port)?);
        let protocol = protocol(port.protocol.as_deref()).to_owned();
        Some(Some((name, number, protocol, port.app_protocol.clone())))
    };
    all.iter().filter_map(port).collect()
}

fn endpoint_port(port: (String, i32, String, Option<String>)) -> EndpointPort {
    let (name, port, protocol, app_protocol) = port;
    let name = Some(name).filter(|it| !it.is_empty());
    EndpointPort { name, port, protocol: Some(protocol), app_protocol }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

    const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, uid: svc, labels: {team: a}}
spec:
  clusterIP: 10.96.0.7
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: fixed, port: 81, targetPort: 8081}]
";

    fn pod(name: &str, ip: &str, ready: &str, more: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, uid: u-{name}, labels: {{app: web}}{more}}}\nspec: {{nodeName: n1, containers: [{{name: c, image: i, ports: [{{name: http, containerPort: 8080}}]}}]}}\nstatus: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}], conditions: [{{type: Ready, status: '{ready}'}}]}}\n"
        )
    }

    fn decide(world: &World) -> Plan {
        EndpointsController.reconcile(world, &ObjectKey::new("default", "web"), Timestamp(0))
    }

    fn settled(yaml: &str) -> Option<Endpoints> {
        let world = world(yaml);
        let world = world.after(&decide(&world), Timestamp(0));
        let again = decide(&world);
        assert!(again.is_empty(), "writes only what differs: {again}");
        let key = ObjectKey::new("default", "web");
        world.get::<Endpoints>(&key).map(|it| it.to_owned())
    }

    /// `1.2.3.4 (5.6.7.8) 80 81`: ready, not ready, ports.
    fn lines(endpoints: &Endpoints) -> Vec<String> {
        let ips = |it: &Option<Vec<EndpointAddress>>| {
            let ips = it.iter().flatten().map(|it| it.ip.clone());
            ips.collect::<Vec<_>>().join(" ")
        };
        let subsets = endpoints.subsets.iter().flatten();
        let line = |it: &EndpointSubset| {
            let ports = it.ports.iter().flatten().map(|it| it.port.to_string());
            let ports = ports.collect::<Vec<_>>().join(" ");
            format!("{} ({}) {ports}", ips(&it.addresses), ips(&it.not_ready_addresses))
        };
        subsets.map(line).collect()
    }

    #[test]
    fn ports_that_the_same_pods_offer_are_one_subset() {
        let yaml = [SERVICE, &pod("b", "10.0.0.2", "True", ""), &pod("a", "10.0.0.1", "False", "")];
        let endpoints = settled(&yaml.concat()).unwrap();
        assert_eq!(lines(&endpoints), ["10.0.0.2 (10.0.0.1) 8081 8080"]);
        let label = |key| endpoints.label(key);
        assert_eq!((label("team"), label(MANAGED_BY)), (Some("a"), Some(MANAGER)));
        assert_eq!(label(HEADLESS), None);
    }

    #[test]
    fn a_pod_with_another_number_for_the_name_is_a_subset_of_its_own() {
        let other = pod("b", "10.0.0.2", "True", "").replace("8080", "9090");
        let yaml = [SERVICE, &pod("a", "10.0.0.1", "True", ""), &other].concat();
        assert_eq!(
            lines(&settled(&yaml).unwrap()),
            ["10.0.0.1 () 8080", "10.0.0.1 10.0.0.2 () 8081", "10.0.0.2 () 9090"]
        );
    }

    #[test]
    fn a_pod_that_ends_is_left_out_unless_unready_ones_are_published() {
        let going = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
        let yaml = [SERVICE, &pod("a", "10.0.0.1", "False", going)].concat();
        assert!(lines(&settled(&yaml).unwrap()).is_empty());
        let yaml =
            yaml.replace("selector: {app", "publishNotReadyAddresses: true\n  selector: {app");
        assert_eq!(lines(&settled(&yaml).unwrap()), ["10.0.0.1 () 8081 8080"]);
    }

    #[test]
    fn a_headless_service_needs_no_ports() {
        let service = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {clusterIP: None, selector: {app: web}}}\n";
        let yaml = [service, &pod("a", "10.0.0.1", "True", "")].concat();
        let endpoints = settled(&yaml).unwrap();
        assert_eq!(lines(&endpoints), ["10.0.0.1 () "]);
        assert_eq!(endpoints.label(HEADLESS), Some(""));
    }

    #[test]
    fn leaves_alone_what_others_write() {
        let yaml = SERVICE.replace("  selector: {app: web}\n", "");
        assert!(settled(&yaml).is_none());
        let locks = "{apiVersion: v1, kind: Endpoints, metadata: {name: web, namespace: default, annotations: {control-plane.alpha.kubernetes.io/leader: x}}}\n";
        assert!(decide(&world(locks)).is_empty());
    }

    #[test]
    fn goes_with_its_service() {
        let mut world = world(SERVICE);
        world = world.after(&decide(&world), Timestamp(0));
        let service = world.list::<Service>("default").next().unwrap();
        world.apply(&Change::delete(&*service), Timestamp(0));
        world = world.after(&decide(&world), Timestamp(0));
        assert_eq!(world.all::<Endpoints>().count(), 0);
    }
}
