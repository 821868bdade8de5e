//! Shows endpoints that somebody wrote by hand, for a service without selector, as slices: what
//! forwards connections and answers names reads slices only.
//!
//! Upstream: `pkg/controller/endpointslicemirroring` (1.36). Names are drawn from the object's uid
//! instead of at random.

use crate::{
    endpoint_slice::{MANAGED_BY, SERVICE_NAME, address_type, ports_key, same, suffix},
    endpoints::LEADER,
    namespace::is_terminating,
    owner, service_pods,
    service_pods::family_of,
};
use api::{
    Object,
    core::v1::{EndpointAddress, Endpoints, Service},
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    meta::ObjectMeta,
};
use std::{collections::BTreeMap, net::IpAddr};
use stdx::Timestamp;
use world::{Change, Controller, Event, ObjectKey, Plan, Touched, Watch, World};

pub struct EndpointSliceMirroring;

pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Of these an endpoint's annotations say nothing.
const OWN: [&str; 2] = [
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// Endpoints of one subset: upstream's --mirroring-max-endpoints-per-subset.
const ENDPOINTS_MOST: usize = 1000;

impl Controller for EndpointSliceMirroring {
    fn name(&self) -> &'static str {
        "endpointslicemirroring-controller"
    }

    fn reporter(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<Endpoints>(),
            Watch::mapped::<Service>(|_, touched| vec![touched.key.clone()]),
            Watch::mapped::<EndpointSlice>(endpoints_of_slice),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if is_terminating(world, &key.namespace) {
            return plan;
        }
        let table = world.table::<EndpointSlice>();
        let rows = table.into_iter().flat_map(|it| it.rows(Some(&key.namespace)));
        let ours = rows.filter(|it| is_of(&it.meta.labels, &key.name));
        let mut existing: Vec<EndpointSlice> =
            ours.filter_map(|it| Some(it.typed::<EndpointSlice>()?.to_owned())).collect();
        existing.retain(|it| !it.is_deleting());
        let mirrored = world.get::<Endpoints>(key).filter(|it| is_mirrored(world, it));
        let wanted = mirrored.as_ref().map_or_else(Vec::new, |it| wanted(it, &mut plan));
        let mut number = 0;
        for mut slice in wanted {
            let like = |it: &EndpointSlice| group(it) == group(&slice);
            let at = existing.iter().position(like);
            // One that nobody needs becomes one that is missing.
            let at =
                at.or_else(|| existing.iter().position(|it| it.address_type == slice.address_type));
            match at.map(|at| existing.remove(at)) {
                Some(old) => {
                    let metadata = std::mem::replace(&mut slice.metadata, old.metadata.clone());
                    slice.metadata.labels = metadata.labels;
                    slice.metadata.annotations = metadata.annotations;
                    slice.metadata.owner_references = metadata.owner_references;
                    if !same(&old, &slice) {
                        plan.write([Change::update(slice)]);
                    }
                }
                None => {
                    let prefix = slice.metadata.generate_name.clone().unwrap_or_default();
                    let uid = mirrored.as_ref().map_or("", |it| it.uid());
                    slice.metadata.name = Some(free_name(world, key, uid, &prefix, &mut number));
                    plan.write([Change::create(slice)]);
                }
            }
        }
        for slice in existing {
            plan.write([Change::delete(&slice)]);
        }
        plan
    }
}

fn is_of(labels: &BTreeMap<String, String>, name: &str) -> bool {
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|it| it == value);
    has(MANAGED_BY, MANAGER) && has(SERVICE_NAME, name)
}

fn endpoints_of_slice(_world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let rows = [&touched.old, &touched.new].into_iter().flatten();
    let ours = rows.filter(|it| it.meta.labels.get(MANAGED_BY).is_some_and(|it| it == MANAGER));
    let names = ours.filter_map(|it| it.meta.labels.get(SERVICE_NAME));
    names.map(|it| ObjectKey::new(&touched.key.namespace, it)).collect()
}

/// They stand for a service that chooses no pods, and are no lock of an old client.
fn is_mirrored(world: &World, endpoints: &Endpoints) -> bool {
    let service = world.get::<Service>(&ObjectKey::of(endpoints));
    !endpoints.is_deleting()
        && endpoints.label(SKIP) != Some("true")
        && endpoints.annotation(LEADER).is_none()
        && service.is_some_and(|it| service_pods::selector(&it).is_none())
}

/// A slice for each group of ports and family of addresses.
fn wanted(endpoints: &Endpoints, plan: &mut Plan) -> Vec<EndpointSlice> {
    let mut slices: BTreeMap<(String, &str), EndpointSlice> = BTreeMap::new();
    let (mut invalid, mut left_out) = (0, 0);
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|it| EndpointPort {
                name: Some(it.name.clone().unwrap_or_default()),
                port: Some(it.port),
                protocol: Some(service_pods::protocol(it.protocol.as_deref()).to_owned()),
                app_protocol: it.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|it| (it, true));
        let all = ready.chain(subset.not_ready_addresses.iter().flatten().map(|it| (it, false)));
        let mut count = 0;
        for (address, is_ready) in all {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                invalid += 1;
                continue;
            };
            if count == ENDPOINTS_MOST {
                left_out += 1;
                continue;
            }
            count += 1;
            let family = address_type(family_of(ip));
            let slice = slices.entry((ports_key(&ports), family));
            let slice = slice.or_insert_with(|| empty(endpoints, family, &ports));
            let list = slice.endpoints.get_or_insert_default();
            let endpoint = endpoint(address, ip, is_ready);
            // One that is ready somewhere is ready.
            if !list.iter().any(|it| it.addresses == endpoint.addresses) {
                list.push(endpoint);
            }
        }
    }
    if invalid > 0 {
        let why =
            format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        plan.event(Event::warning(endpoints, "InvalidIPAddress", why));
    }
    if left_out > 0 {
        let why = format!(
            "A max of {ENDPOINTS_MOST} addresses can be mirrored to EndpointSlices per Endpoints subset. {left_out} addresses were skipped"
        );
        plan.event(Event::warning(endpoints, "TooManyAddressesToMirror", why));
    }
    slices.into_values().collect()
}

fn group(slice: &EndpointSlice) -> (String, &str) {
    (ports_key(slice.ports.as_deref().unwrap_or_default()), &slice.address_type)
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(is_ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone().filter(|it| !it.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn empty(endpoints: &Endpoints, family: &str, ports: &[EndpointPort]) -> EndpointSlice {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name().to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN.contains(&name.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", endpoints.name())),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|it| !it.is_empty()),
            owner_references: Some(vec![owner(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(Vec::new()),
        ports: Some(ports.to_vec()),
    }
}

fn free_name(world: &World, key: &ObjectKey, uid: &str, prefix: &str, number: &mut u32) -> String {
    loop {
        let name = format!("{prefix}{}", suffix(&format!("{uid}/{number}")));
        *number += 1;
        if world.row_of::<EndpointSlice>(&ObjectKey::new(&key.namespace, &name)).is_none() {
            return name;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

    const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: db, namespace: ns, uid: s}, spec: {ports: [{port: 80}]}}";
    const ENDPOINTS: &str = "{apiVersion: v1, kind: Endpoints,
        metadata: {name: db, namespace: ns, uid: e, labels: {a: b}}, subsets: [{
        addresses: [{ip: 192.0.2.1, hostname: one}, {ip: '2001:db8::1'}, {ip: here}],
        notReadyAddresses: [{ip: 192.0.2.2}], ports: [{port: 5432, name: sql}]}]}";

    fn key() -> ObjectKey {
        ObjectKey::new("ns", "db")
    }

    fn look(world: &World) -> (World, Plan) {
        let plan = EndpointSliceMirroring.reconcile(world, &key(), Timestamp(0));
        (world.after(&plan, Timestamp(0)), plan)
    }

    #[test]
    fn endpoints_written_by_hand_become_a_slice_for_each_family() {
        let (world, plan) = look(&world(&format!("{SERVICE}\n---\n{ENDPOINTS}")));
        assert!(plan.to_string().contains("Skipped 1 invalid IP addresses"), "{plan}");
        let slices: Vec<EndpointSlice> =
            world.list::<EndpointSlice>("ns").map(|it| it.to_owned()).collect();
        let mut shown: Vec<String> = slices
            .iter()
            .map(|it| {
                let endpoints = it.endpoints.iter().flatten().map(|it| {
                    let ready = it.conditions.as_ref().and_then(|it| it.ready);
                    format!("{} {:?} {:?}", it.addresses[0], it.hostname.as_deref(), ready)
                });
                format!("{}: {}", it.address_type, endpoints.collect::<Vec<_>>().join(", "))
            })
            .collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "IPv4: 192.0.2.1 Some(\"one\") Some(true), 192.0.2.2 None Some(false)",
                "IPv6: 2001:db8::1 None Some(true)",
            ]
        );
        assert!(
            slices
                .iter()
                .all(|it| it.label("a") == Some("b") && it.label(MANAGED_BY) == Some(MANAGER))
        );
        let (_, plan) = look(&world);
        assert_eq!(plan.changes().count(), 0, "{plan}");
    }

    #[test]
    fn slices_follow_what_is_written_and_go_with_it() {
        let (mut world, _) = look(&world(&format!("{SERVICE}\n---\n{ENDPOINTS}")));
        let mut endpoints = world.get::<Endpoints>(&key()).unwrap().to_owned();
        endpoints.subsets.as_mut().unwrap()[0].addresses = None;
        let mut plan = Plan::default();
        plan.write([Change::update(endpoints.clone())]);
        world = look(&world.after(&plan, Timestamp(0))).0;
        assert_eq!(world.list::<EndpointSlice>("ns").count(), 1);
        let mut plan = Plan::default();
        plan.write([Change::delete_now(&endpoints)]);
        world = look(&world.after(&plan, Timestamp(0))).0;
        assert_eq!(world.list::<EndpointSlice>("ns").count(), 0);
    }

    #[test]
    fn locks_and_services_that_choose_pods_have_no_mirror() {
        let chooses = SERVICE.replace("spec: {", "spec: {selector: {a: b}, ");
        let lock =
            ENDPOINTS.replace("labels: {a: b}", &format!("annotations: {{'{LEADER}': '{{}}'}}"));
        let skipped = ENDPOINTS.replace("labels: {a: b}", &format!("labels: {{'{SKIP}': 'true'}}"));
        for (service, endpoints) in
            [(chooses.as_str(), ENDPOINTS), (SERVICE, lock.as_str()), (SERVICE, skipped.as_str())]
        {
            let (world, _) = look(&world(&format!("{service}\n---\n{endpoints}")));
            assert_eq!(world.list::<EndpointSlice>("ns").count(), 0, "{endpoints}");
        }
        assert_eq!(look(&world(ENDPOINTS)).0.list::<EndpointSlice>("ns").count(), 0);
    }
}
