//! What is wanted, as rules: one table of an instance, changed in one transaction.
//!
//! A packet's destination is looked up in a map of addresses, or of node ports, whose values are chains. A port's
//! chain sends to one endpoint by chance; with session affinity it first looks where the client went before. What is
//! still for an address of the service range after that is for nobody, and is refused.

use super::{
    Config,
    ports::{Endpoint, Port, id},
};
use crate::{
    Ipv4Cidr,
    netfilter::{
        expression::{self as step, Expression, R1, R2, R3, Way},
        tables::{ADDRESSES, Hook, PLACE, PORT, Transaction, place, port_key},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
};

const SERVICES: &str = "services";
const NODE_PORTS: &str = "node-ports";
const HAIRPIN: &str = "hairpin";
const DISPATCH: &str = "dispatch";

/// Packets that leave with the node's address; the bit that kube-proxy uses, too.
const MARK: u32 = 0x4000;

const LOOPBACK: [u8; 4] = [127, 0, 0, 0];
const LOOPBACK_MASK: [u8; 4] = [255, 0, 0, 0];

const HOOKS: [(&str, Hook); 5] = [
    ("prerouting", Hook { kind: "nat", number: 0, priority: -100 }),
    ("output", Hook { kind: "nat", number: 3, priority: -100 }),
    ("postrouting", Hook { kind: "nat", number: 4, priority: 100 }),
    // After translation and before routing: what is routed back to where it came from is answered with a redirection,
    // and the kernel then says nothing else to that peer for a second.
    ("prerouting-filter", Hook { kind: "filter", number: 0, priority: -90 }),
    ("output-filter", Hook { kind: "filter", number: 3, priority: 0 }),
];

pub(super) fn table(instance: &str) -> String {
    format!("stanchion-{instance}")
}

pub(super) fn remove(instance: &str) -> Transaction {
    let mut transaction = Transaction::on(&table(instance));
    transaction.delete_table();
    transaction
}

/// From what the kernel has to what is wanted. Without knowing what it has, from nothing.
pub(super) fn change(config: &Config, known: Option<&[Port]>, wanted: &[Port]) -> Transaction {
    let mut transaction = Transaction::on(&table(&config.instance));
    let memories = memories(wanted);
    match known {
        None => {
            transaction.start_over();
            for (name, hook) in HOOKS {
                transaction.base_chain(name, hook);
            }
            transaction.chain(DISPATCH);
            transaction.map(SERVICES, PLACE);
            transaction.map(NODE_PORTS, PORT);
            transaction.set(HAIRPIN, ADDRESSES);
            for (memory, milliseconds) in &memories {
                transaction.memory(memory, *milliseconds);
            }
        }
        Some(known) => {
            transaction.delete_rules();
            for set in [SERVICES, NODE_PORTS, HAIRPIN] {
                transaction.empty(set);
            }
            chains(known).iter().for_each(|it| transaction.delete_chain(it));
            let before = self::memories(known);
            // Who remembers a client goes on doing so.
            for memory in before.iter().filter(|it| memories.get(it.0) != Some(it.1)) {
                transaction.delete_set(memory.0);
            }
            for memory in memories.iter().filter(|it| before.get(it.0) != Some(it.1)) {
                transaction.memory(memory.0, *memory.1);
            }
        }
    }
    chains(wanted).iter().for_each(|it| transaction.chain(it));
    for port in wanted {
        fill(&mut transaction, port);
    }
    dispatch(&mut transaction, wanted);
    leave(&mut transaction, config);
    guard(&mut transaction, config);
    refuse(&mut transaction, config);
    transaction
}

fn inside(port: &Port) -> String {
    format!("in-{}", port.id)
}

fn outside(port: &Port) -> String {
    format!("out-{}", port.id)
}

fn chains(ports: &[Port]) -> BTreeSet<String> {
    let mut chains = BTreeSet::new();
    for port in ports {
        if !port.inside.is_empty() {
            chains.insert(inside(port));
        }
        if !port.outside.is_empty() {
            chains.insert(outside(port));
        }
    }
    chains
}

fn memory(port: &Port, endpoint: &Endpoint) -> String {
    format!("to-{}", id(&[&port.id, &endpoint.0.to_string(), &endpoint.1.to_string()]))
}

/// The sets of clients, one for each endpoint of a port with affinity, and how long each remembers.
fn memories(ports: &[Port]) -> BTreeMap<String, u64> {
    let mut memories = BTreeMap::new();
    for port in ports {
        if let Some(seconds) = port.sticky_seconds {
            let all = port.endpoints().map(|it| (memory(port, &it), u64::from(seconds) * 1000));
            memories.extend(all);
        }
    }
    memories
}

fn fill(transaction: &mut Transaction, port: &Port) {
    if !port.inside.is_empty() {
        spread(transaction, &inside(port), port, &port.inside);
    }
    if !port.outside.is_empty() {
        let chain = outside(port);
        if !port.keeps_source {
            transaction.rule(&chain, step::mark(MARK));
        }
        spread(transaction, &chain, port, &port.outside);
    }
}

/// Sends to one of the endpoints, each as likely as the others.
fn spread(transaction: &mut Transaction, chain: &str, port: &Port, endpoints: &[Endpoint]) {
    let remember = |endpoint: &Endpoint| {
        let milliseconds = port.sticky_seconds.map(|it| u64::from(it) * 1000);
        milliseconds.map(|it| [step::source(R1), step::remember(&memory(port, endpoint), it)])
    };
    for endpoint in endpoints.iter().filter(|_| port.sticky_seconds.is_some()) {
        let known = [step::source(R1), step::in_set(&memory(port, endpoint))];
        let again = remember(endpoint).into_iter().flatten();
        let to = step::to_endpoint(endpoint.0, endpoint.1);
        transaction.rule(chain, known.into_iter().chain(again).chain(to));
    }
    let mut left = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    for endpoint in endpoints {
        let chance = (left > 1).then(|| [step::random(R1, left), step::equal(R1, &[0; 4])]);
        left -= 1;
        let again = remember(endpoint).into_iter().flatten();
        let to = step::to_endpoint(endpoint.0, endpoint.1);
        transaction.rule(chain, chance.into_iter().flatten().chain(again).chain(to));
    }
    if let (Some(_), Some(endpoint)) = (port.sticky_seconds, endpoints.last()) {
        // When the memory is full.
        transaction.rule(chain, step::to_endpoint(endpoint.0, endpoint.1));
    }
}

fn dispatch(transaction: &mut Transaction, ports: &[Port]) {
    // The first of two Services that claim one place has it; a map takes no second value for a key.
    let (mut places, mut node_ports) = (BTreeMap::new(), BTreeMap::new());
    let mut hairpin = BTreeSet::new();
    for port in ports {
        if !port.inside.is_empty() {
            places.entry(place(port.address, port.protocol, port.port)).or_insert(inside(port));
        }
        if !port.outside.is_empty() {
            for address in &port.external {
                places.entry(place(*address, port.protocol, port.port)).or_insert(outside(port));
            }
            if let Some(number) = port.node_port {
                node_ports.entry(port_key(port.protocol, number)).or_insert(outside(port));
            }
        }
        for (address, _) in port.endpoints() {
            hairpin.insert([address.octets(), address.octets()].concat());
        }
    }
    let elements = |map: BTreeMap<Vec<u8>, String>| -> Vec<_> {
        map.into_iter().map(|(key, chain)| (key, Some(chain))).collect()
    };
    transaction.fill(SERVICES, &elements(places));
    transaction.fill(NODE_PORTS, &elements(node_ports));
    let hairpin: Vec<_> = hairpin.into_iter().map(|it| (it, None)).collect();
    transaction.fill(HAIRPIN, &hairpin);
    let place = [step::destination(R1), step::protocol(R2), step::destination_port(R3)];
    transaction.rule(DISPATCH, place.into_iter().chain([step::go_by(SERVICES)]));
    // Not the loopback addresses: only host ports answer there.
    let not_loopback =
        [step::destination(R1), step::masked(R1, LOOPBACK_MASK), step::differs(R1, &LOOPBACK)];
    let port = [step::protocol(R1), step::destination_port(R2), step::go_by(NODE_PORTS)];
    let node_port = not_loopback.into_iter().chain(step::to_this_machine()).chain(port);
    transaction.rule(DISPATCH, node_port);
    for hook in ["prerouting", "output"] {
        transaction.rule(hook, [step::go(Way::Jump, DISPATCH)]);
    }
}

/// What leaves with the node's address in place of its own.
fn leave(transaction: &mut Transaction, config: &Config) {
    let chain = "postrouting";
    transaction.rule(chain, step::marked(MARK).into_iter().chain([step::masquerade()]));
    // A pod that calls its own Service must not see itself call.
    let hairpin = [step::source(R1), step::destination(R2), step::in_set(HAIRPIN)];
    transaction.rule(chain, hairpin.into_iter().chain([step::masquerade()]));
    // Who asks by a loopback address would have the answer at its own.
    let from_loopback =
        [step::source(R1), step::masked(R1, LOOPBACK_MASK), step::equal(R1, &LOOPBACK)];
    let out = from_loopback.into_iter().chain(step::leaves()).chain([step::masquerade()]);
    transaction.rule(chain, out);
    let pods = config.cluster_cidr;
    if !bridged_packets_are_seen() {
        // The answer would go from port to port of the bridge with nobody to translate it back.
        let both =
            within(step::source(R1), pods).into_iter().chain(within(step::destination(R1), pods));
        let all = both.chain(step::translated()).chain([step::masquerade()]);
        transaction.rule(chain, all);
    }
    let out = within(step::source(R1), pods).into_iter().chain(beyond(step::destination(R1), pods));
    transaction.rule(chain, out.chain([step::masquerade()]));
}

/// The bridge takes answers for loopback addresses, so nobody there may ask for one, or as one.
fn guard(transaction: &mut Transaction, config: &Config) {
    let loopback = |load| [load, step::masked(R1, LOOPBACK_MASK), step::equal(R1, &LOOPBACK)];
    let chain = "prerouting-filter";
    let as_one = step::arrives_by(&config.bridge).into_iter().chain(loopback(step::source(R1)));
    transaction.rule(chain, as_one.chain([step::drop()]));
    let to_one =
        step::arrives_by(&config.bridge).into_iter().chain(loopback(step::destination(R1)));
    transaction.rule(chain, to_one.chain(step::is_unknown()).chain([step::drop()]));
}

fn refuse(transaction: &mut Transaction, config: &Config) {
    for chain in ["prerouting-filter", "output-filter"] {
        let to_dns = [step::destination(R1), step::differs(R1, &config.dns_address.octets())];
        let left = within(step::destination(R1), config.service_cidr).into_iter().chain(to_dns);
        transaction.rule(chain, left.chain([step::reject()]));
    }
}

fn masked(load: Expression, range: Ipv4Cidr) -> [Expression; 2] {
    [load, step::masked(R1, Ipv4Addr::from_bits(range.mask()).octets())]
}

fn within(load: Expression, range: Ipv4Cidr) -> Vec<Expression> {
    let network = range.network().octets();
    masked(load, range).into_iter().chain([step::equal(R1, &network)]).collect()
}

fn beyond(load: Expression, range: Ipv4Cidr) -> Vec<Expression> {
    let network = range.network().octets();
    masked(load, range).into_iter().chain([step::differs(R1, &network)]).collect()
}

/// Whether packets between two ports of one bridge pass the filter, as upstream requires of a node.
fn bridged_packets_are_seen() -> bool {
    let setting = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    setting.is_ok_and(|it| it.trim() == "1")
}
