//! The names of an address: a Service's own, or those of the pod that has it.

use super::{
    answer::Node,
    service::{SERVICE_NAME, cluster_ips, of_pod, of_slice},
    zone::{Known, Zone},
};
use api::{
    Object,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use hickory_proto::rr::{RData, rdata::PTR};
use std::{collections::BTreeSet, net::IpAddr};
use world::{ObjectKey, World};

/// None: nobody here has the address.
pub(crate) fn node(world: &World, zone: &Zone, address: IpAddr) -> Option<Node> {
    let text = address.to_string();
    let mut found = BTreeSet::new();
    for service in world.indexed::<Service>("address", &text) {
        if cluster_ips(&service).contains(&address) {
            found.extend(zone.name(&[service.name(), service.namespace(), "svc"]));
        }
    }
    if found.is_empty() {
        let names = match zone.known {
            Known::Everything => of_pods(world, address, &text),
            Known::Slices => of_slices(world, address),
        };
        // A name that somebody chose says more than one made from the address.
        let chosen = names.iter().any(|it| it.chosen);
        let names = names.iter().filter(|it| it.chosen || !chosen);
        found.extend(names.filter_map(|it| zone.name(&[&it.label, &it.service, &it.space, "svc"])));
    }
    let data: Vec<RData> = found.into_iter().map(|it| RData::PTR(PTR(it))).collect();
    (!data.is_empty()).then(|| Node { data, extra: Vec::new() })
}

struct PodName {
    label: String,
    service: String,
    space: String,
    chosen: bool,
}

/// A pod has one name per Service that leads to it.
fn of_pods(world: &World, address: IpAddr, text: &str) -> Vec<PodName> {
    let mut found = Vec::new();
    for pod in world.indexed::<Pod>("address", text) {
        for service in world.list::<Service>(pod.namespace()) {
            let selector = service.spec.as_ref().and_then(|it| it.selector.as_ref());
            let selects = selector.is_some_and(|it| {
                !it.is_empty() && it.iter().all(|(key, value)| pod.label(key) == Some(value))
            });
            let endpoints = if selects { of_pod(&service, &pod) } else { Vec::new() };
            for endpoint in endpoints.iter().filter(|it| it.address == address) {
                found.push(PodName {
                    label: endpoint.label(),
                    service: service.name().to_owned(),
                    space: service.namespace().to_owned(),
                    chosen: endpoint.hostname.is_some(),
                });
            }
        }
    }
    found
}

/// What slices call the address, as long as their Services are there.
fn of_slices(world: &World, address: IpAddr) -> Vec<PodName> {
    let mut found = Vec::new();
    for slice in world.all::<EndpointSlice>() {
        let Some(service) = slice.label(SERVICE_NAME) else { continue };
        if world.get::<Service>(&ObjectKey::new(slice.namespace(), service)).is_none() {
            continue;
        }
        for endpoint in of_slice(&slice).iter().filter(|it| it.address == address) {
            found.push(PodName {
                label: endpoint.label(),
                service: service.to_owned(),
                space: slice.namespace().to_owned(),
                chosen: endpoint.hostname.is_some(),
            });
        }
    }
    found
}
