//! A transaction on one table of nf_tables: all of it happens between two packets, or none.

use super::{
    ACK, APPEND, CREATE, IPV4, Netfilter,
    attribute::Written,
    expression::{Expression, Way, verdict},
    message,
};
use std::{io, net::Ipv4Addr};

const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

/// `NFT_SET_MAP`; `NFT_SET_TIMEOUT | NFT_SET_EVAL`.
const MAP: u32 = 0x8;
const DYNAMIC: u32 = 0x30;
/// `NFT_DATA_VERDICT`.
const VERDICT: u32 = 0xffff_ff00;

/// Elements in one message: an attribute holds 64 KiB, and an element takes some hundred bytes at the most.
const ELEMENTS: usize = 300;

/// Clients that a Service remembers for one endpoint; more are served by chance.
const REMEMBERED_MAX: u32 = 65_536;

/// What nft calls the parts of a key, in six bits each, so that it can list them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    kind: u32,
    bytes: u32,
}

/// An address; two; an address, a protocol and a port; a protocol and a port.
pub(crate) const ADDRESS: Key = Key { kind: 7, bytes: 4 };
pub(crate) const ADDRESSES: Key = Key { kind: 7 << 6 | 7, bytes: 8 };
pub(crate) const PLACE: Key = Key { kind: 7 << 12 | 12 << 6 | 13, bytes: 12 };
pub(crate) const PORT: Key = Key { kind: 12 << 6 | 13, bytes: 8 };

pub(crate) fn place(address: Ipv4Addr, protocol: u8, port: u16) -> Vec<u8> {
    [&address.octets()[..], &port_key(protocol, port)].concat()
}

pub(crate) fn port_key(protocol: u8, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol, 0, 0, 0, high, low, 0, 0]
}

/// Where a chain is called from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    /// `NF_INET_PRE_ROUTING` 0, `LOCAL_IN` 1, `FORWARD` 2, `LOCAL_OUT` 3, `POST_ROUTING` 4.
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

#[derive(Debug)]
pub(crate) struct Transaction {
    table: String,
    bytes: Vec<u8>,
    sequence: u32,
    /// Where the last message begins.
    last: usize,
}

impl Transaction {
    /// The table is there, or is made.
    pub(crate) fn on(table: &str) -> Transaction {
        let mut bytes = message(BEGIN, 0, 0, 0, SUBSYSTEM, &[]);
        bytes.reserve(64 * 1024);
        let mut transaction = Transaction { table: table.to_owned(), bytes, sequence: 0, last: 0 };
        transaction.make_table();
        transaction
    }

    fn add(&mut self, kind: u16, flags: u16, body: &Written) {
        self.sequence += 1;
        self.last = self.bytes.len();
        let kind = SUBSYSTEM << 8 | kind;
        self.bytes.extend_from_slice(&message(kind, flags, self.sequence, IPV4, 0, &body.0));
    }

    fn named(&self) -> Written {
        Written::new().text(1, &self.table)
    }

    fn make_table(&mut self) {
        let body = self.named().u32(2, 0);
        self.add(NEW_TABLE, CREATE, &body);
    }

    /// With everything in it.
    pub(crate) fn delete_table(&mut self) {
        let body = self.named();
        self.add(DELETE_TABLE, 0, &body);
    }

    /// An empty table in place of what was there.
    pub(crate) fn start_over(&mut self) {
        self.delete_table();
        self.make_table();
    }

    /// Every rule of every chain.
    pub(crate) fn delete_rules(&mut self) {
        let body = self.named();
        self.add(DELETE_RULE, 0, &body);
    }

    pub(crate) fn chain(&mut self, name: &str) {
        let body = self.named().text(3, name);
        self.add(NEW_CHAIN, CREATE, &body);
    }

    pub(crate) fn base_chain(&mut self, name: &str, hook: Hook) {
        let at = Written::new().u32(1, hook.number).bytes(2, &hook.priority.to_be_bytes());
        let body = self.named().text(3, name).nested(4, &at).text(7, hook.kind);
        self.add(NEW_CHAIN, CREATE, &body);
    }

    pub(crate) fn delete_chain(&mut self, name: &str) {
        let body = self.named().text(3, name);
        self.add(DELETE_CHAIN, 0, &body);
    }

    pub(crate) fn rule(&mut self, chain: &str, expressions: impl IntoIterator<Item = Expression>) {
        let all = expressions.into_iter();
        let all = all.fold(Written::new(), |list, it| list.nested(1, it.bytes()));
        let body = self.named().text(2, chain).nested(4, &all);
        self.add(NEW_RULE, CREATE | APPEND, &body);
    }

    pub(crate) fn set(&mut self, name: &str, key: Key) {
        let body = self.new_set(name, key, 0);
        self.add(NEW_SET, CREATE, &body);
    }

    /// A map whose values are chains to go to.
    pub(crate) fn map(&mut self, name: &str, key: Key) {
        let body = self.new_set(name, key, MAP).u32(6, VERDICT).u32(7, 0);
        self.add(NEW_SET, CREATE, &body);
    }

    /// A set that rules put addresses into, each for so long.
    pub(crate) fn memory(&mut self, name: &str, milliseconds: u64) {
        let size = Written::new().u32(1, REMEMBERED_MAX);
        let body = self.new_set(name, ADDRESS, DYNAMIC).nested(9, &size).u64(11, milliseconds);
        self.add(NEW_SET, CREATE, &body);
    }

    fn new_set(&self, name: &str, key: Key, flags: u32) -> Written {
        let body = self.named().text(2, name).u32(3, flags).u32(4, key.kind).u32(5, key.bytes);
        // Any number that no other set of the transaction has.
        body.u32(10, self.sequence)
    }

    pub(crate) fn delete_set(&mut self, name: &str) {
        let body = self.named().text(2, name);
        self.add(DELETE_SET, 0, &body);
    }

    /// Every element of a set or map.
    pub(crate) fn empty(&mut self, set: &str) {
        let body = self.named().text(2, set);
        self.add(DELETE_ELEMENT, 0, &body);
    }

    /// Elements of a set, or of a map with the chain for each.
    pub(crate) fn fill(&mut self, set: &str, elements: &[(Vec<u8>, Option<String>)]) {
        for some in elements.chunks(ELEMENTS) {
            let mut list = Written::new();
            for (key, chain) in some {
                let mut element = Written::new().nested(1, &Written::new().bytes(1, key));
                if let Some(chain) = chain {
                    element = element.nested(2, &verdict(Way::Goto, chain));
                }
                list = list.nested(1, &element);
            }
            let body = self.named().text(2, set).nested(3, &list);
            self.add(NEW_ELEMENT, CREATE, &body);
        }
    }

    /// Sends it to the kernel and waits for its yes or no.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        // Only the last one answers if all went well; whichever fails answers by itself. The flags come after a length
        // of four bytes and a type of two.
        let flags = self.last + 6;
        let before = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]);
        self.bytes[flags..flags + 2].copy_from_slice(&(before | ACK).to_ne_bytes());
        let last = self.sequence;
        self.bytes.extend_from_slice(&message(END, 0, last + 1, 0, SUBSYSTEM, &[]));
        let netfilter = Netfilter::open()?;
        netfilter.send(&self.bytes)?;
        netfilter.answers(last, |_| {})
    }
}
