//! Which serving certificates a node gets without anybody being asked: those for its own name and for the addresses
//! that its Node object has, as long as nobody else is known by them.
//!
//! A node writes its addresses itself. So that it cannot become the API server, or another node, to those who trust
//! the cluster's authority, what these are known by is left for a person to approve.

use super::Asked;
use api::{
    Object,
    core::{
        node::address,
        v1::{Endpoints, Node, Service},
    },
};
use std::net::IpAddr;
use world::{ObjectKey, World};

pub(super) const APPROVAL: &str =
    "Auto approving kubelet serving certificate for the name and addresses of its node.";

/// Why the request is not approved here. `hosts`: by which names and addresses the API server is known.
pub(super) fn refusal(world: &World, hosts: &[String], asked: &Asked) -> Option<String> {
    let Some(name) = asked.name.strip_prefix("system:node:") else {
        return Some(format!("{:?} is no node", asked.name));
    };
    let Some(node) = world.cluster::<Node>(name) else {
        return Some(format!("there is no node {name}"));
    };
    if is_of_api(name) || hosts.iter().any(|it| it.eq_ignore_ascii_case(name)) {
        return Some(format!("{name} is a name of the API server"));
    }
    if let Some(other) = asked.dns.iter().find(|it| *it != name) {
        return Some(format!("{other} is not the name of node {name}"));
    }
    let mut api = addresses_of_api(world);
    api.extend(hosts.iter().filter_map(|it| it.parse::<IpAddr>().ok()));
    for it in &asked.addresses {
        if !has(&node, *it) {
            return Some(format!("node {name} does not have address {it}"));
        }
        if it.is_unspecified() || it.is_multicast() || api.contains(it) {
            return Some(format!("{it} is an address of the API server"));
        }
        let mut others = world.all::<Node>().filter(|other| other.name() != name);
        if let Some(other) = others.find(|other| has(other, *it)) {
            return Some(format!("node {} has address {it} too", other.name()));
        }
    }
    None
}

fn has(node: &Node, wanted: IpAddr) -> bool {
    let is = |kind: &str| address(node, kind).and_then(|it| it.parse().ok()) == Some(wanted);
    is("InternalIP") || is("ExternalIP")
}

fn is_of_api(name: &str) -> bool {
    name == "localhost" || name == "kubernetes" || name.starts_with("kubernetes.default")
}

fn addresses_of_api(world: &World) -> Vec<IpAddr> {
    let key = ObjectKey::new("default", "kubernetes");
    let service = world.get::<Service>(&key);
    let service = service.and_then(|it| it.spec.as_ref()?.cluster_ip.clone());
    let endpoints = world.get::<Endpoints>(&key).map(|it| it.to_owned());
    let subsets = endpoints.into_iter().flat_map(|it| it.subsets.unwrap_or_default());
    let each = subsets.flat_map(|it| it.addresses.unwrap_or_default()).map(|it| it.ip);
    let all = service.into_iter().chain(each).chain(["127.0.0.1".to_owned(), "::1".to_owned()]);
    all.filter_map(|it| it.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::codec::from_value;
    use serde_json::{Value, json};

    fn world(objects: &[Value]) -> World {
        let mut world = World::default();
        for (n, object) in objects.iter().enumerate() {
            let kind = match object["kind"].as_str() {
                Some("Node") => api::kind_of::<Node>(),
                _ => api::kind_of::<Endpoints>(),
            };
            let revision = u64::try_from(n).unwrap() + 1;
            world.put(kind, object.to_string().into(), revision).unwrap();
        }
        world
    }

    fn node(name: &str, address: &str) -> Value {
        let node: Node = from_value(&json!({
            "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        }))
        .unwrap();
        api::codec::to_value(&node)
    }

    fn asked(dns: &str, address: [u8; 4]) -> Asked {
        Asked {
            name: "system:node:n1".to_owned(),
            dns: vec![dns.to_owned()],
            addresses: vec![IpAddr::from(address)],
            ..Asked::default()
        }
    }

    #[test]
    fn a_node_serves_under_its_own_name_and_address_and_nobody_elses() {
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": "10.0.0.9"}]}],
        });
        let fine = world(&[node("n1", "10.0.0.1"), node("n2", "10.0.0.2"), endpoints.clone()]);
        assert_eq!(refusal(&fine, &[], &asked("n1", [10, 0, 0, 1])), None);
        assert!(refusal(&fine, &[], &asked("n2", [10, 0, 0, 1])).is_some());
        assert!(refusal(&fine, &[], &asked("n1", [10, 0, 0, 3])).is_some());
        let twice = world(&[node("n1", "10.0.0.2"), node("n2", "10.0.0.2")]);
        assert!(refusal(&twice, &[], &asked("n1", [10, 0, 0, 2])).is_some());
        let door = world(&[node("n1", "10.0.0.9"), endpoints]);
        assert!(refusal(&door, &[], &asked("n1", [10, 0, 0, 9])).is_some());
        assert!(refusal(&world(&[]), &[], &asked("n1", [10, 0, 0, 1])).is_some());
    }

    /// A server that is no node has its host's name in its certificate: a node of that name would have been the API to
    /// every machine that calls it so.
    #[test]
    fn nobody_serves_under_what_the_api_is_called() {
        let world = world(&[node("n1", "10.0.0.1"), node("Main", "10.0.0.2")]);
        let hosts = ["main", "10.0.0.1"].map(str::to_owned);
        let main = Asked { name: "system:node:Main".to_owned(), ..asked("Main", [10, 0, 0, 2]) };
        assert_eq!(refusal(&world, &[], &main), None);
        assert!(refusal(&world, &hosts, &main).is_some());
        assert!(refusal(&world, &hosts, &asked("n1", [10, 0, 0, 1])).is_some());
        let nobody = Asked { name: "admin".to_owned(), ..Asked::default() };
        assert!(refusal(&world, &hosts, &nobody).is_some());
    }
}
