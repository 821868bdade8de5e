//! From a question and a World to an answer; nothing else happens here.

use super::{
    names::{self, Reverse},
    reverse,
    service::{self, PortName, addresses_node},
    zone::{SPECIFICATION, TTL, Zone},
};
use api::core::v1::Namespace;
use hickory_proto::{
    op::Query,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, TXT},
    },
};
use std::net::IpAddr;
use world::{ObjectKey, World};

/// What the cluster says to a question. The order of records carries no meaning.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// `additionals` spare the asker the next question.
    Records { answers: Vec<Record>, additionals: Vec<Record> },
    /// The name stands for this one, which has to be asked for.
    Alias(Name),
    /// The name exists and has nothing of this type.
    NoData,
    /// There is no such name.
    NoName,
    /// Not ours to say.
    Elsewhere,
}

/// All that one name has.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) data: Vec<RData>,
    /// Addresses of the names that `data` points to.
    pub(crate) extra: Vec<(Name, RData)>,
}

/// Answers a question of class IN. Names are compared without regard to case; answers carry the name
/// as it was asked.
pub fn answer(world: &World, zone: &Zone, question: &Query) -> Answer {
    let labels = names::labels(question.name());
    if let Some(local) = zone.within(&labels) {
        return match node(world, zone, local, question.name()) {
            Some(node) => of_type(node, question),
            None => Answer::NoName,
        };
    }
    match names::reverse(&labels) {
        Some(Reverse::Address(address)) => match reverse::node(world, zone, address) {
            Some(node) => of_type(node, question),
            None if owns(zone, address) => Answer::NoName,
            None => Answer::Elsewhere,
        },
        Some(Reverse::Network(network, prefix)) if zone.owns_all(network, prefix) => Answer::NoData,
        Some(Reverse::Network(..)) | None => Answer::Elsewhere,
    }
}

/// What a name of the cluster domain has; `labels` are those before the domain. None: no such name.
fn node(world: &World, zone: &Zone, labels: &[String], name: &Name) -> Option<Node> {
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let space = |name: &str| world.row_of::<Namespace>(&ObjectKey::cluster(name)).map(|_| ());
    match labels[..] {
        [] => {
            let authority = zone.authority(name, world.revision).data;
            Some(Node { data: vec![authority, zone.name_server()], extra: servers(zone) })
        }
        ["dns-version"] => {
            let text = RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()]));
            Some(Node { data: vec![text], extra: Vec::new() })
        }
        ["ns", "dns"] => Some(addresses_node(zone.servers.iter().copied())),
        // Nothing themselves, but there are names below them.
        ["dns" | "svc" | "pod"] => Some(Node::default()),
        [namespace, "svc" | "pod"] => space(namespace).map(|()| Node::default()),
        // Made from the address alone, whether or not a pod has it: CoreDNS's `pods insecure`, which
        // kubeadm sets.
        [address, namespace, "pod"] => {
            space(namespace)?;
            Some(addresses_node([names::undashed(address)?]))
        }
        [name, namespace, "svc"] => {
            service::node(world, zone, &ObjectKey::new(namespace, name), None)
        }
        [label, name, namespace, "svc"] => {
            service::endpoint_node(world, zone, &ObjectKey::new(namespace, name), label)
        }
        [port, protocol, name, namespace, "svc"] => {
            let (port, protocol) = (port.strip_prefix('_')?, protocol.strip_prefix('_')?);
            let port = PortName { port, protocol };
            service::node(world, zone, &ObjectKey::new(namespace, name), Some(&port))
        }
        _ => None,
    }
}

/// The record that says of a name what it stands for.
pub(crate) fn alias(name: &Name, target: Name) -> Record {
    Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target)))
}

fn of_type(node: Node, question: &Query) -> Answer {
    let wanted = question.query_type();
    let record = |data: RData| Record::from_rdata(question.name().clone(), TTL, data);
    if let [RData::CNAME(alias)] = &node.data[..]
        && !matches!(wanted, RecordType::CNAME | RecordType::ANY)
    {
        return Answer::Alias(alias.0.clone());
    }
    let fits = |it: &RData| wanted == RecordType::ANY || it.record_type() == wanted;
    let answers: Vec<Record> = node.data.into_iter().filter(fits).map(record).collect();
    if answers.is_empty() {
        return Answer::NoData;
    }
    let points = matches!(wanted, RecordType::SRV | RecordType::NS);
    let extra = node.extra.into_iter().filter(|_| points);
    let additionals = extra.map(|(name, data)| Record::from_rdata(name, TTL, data)).collect();
    Answer::Records { answers, additionals }
}

fn servers(zone: &Zone) -> Vec<(Name, RData)> {
    let Some(name) = zone.name(&["ns", "dns"]) else { return Vec::new() };
    let data = addresses_node(zone.servers.iter().copied()).data;
    data.into_iter().map(|it| (name.clone(), it)).collect()
}

fn owns(zone: &Zone, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => zone.owns(address),
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests;
