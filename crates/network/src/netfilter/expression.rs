//! Expressions: the steps of a rule, which work on registers. A step that does not match ends the rule.
//!
//! Upstream: linux/netfilter/nf_tables.h, the attributes of each expression.

use super::attribute::Written;
use std::net::Ipv4Addr;

/// Registers of four bytes, one after the other; the first is the one of 16 bytes, too.
pub(crate) const R1: u32 = 8;
pub(crate) const R2: u32 = 9;
pub(crate) const R3: u32 = 10;
const VERDICT: u32 = 0;

const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: connections that share an address do not race for a port.
const RANDOM_FULLY: u32 = 1 << 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expression(Written);

impl Expression {
    pub(crate) fn bytes(&self) -> &Written {
        &self.0
    }
}

fn expression(name: &str, data: Written) -> Expression {
    Expression(Written::new().text(1, name).nested(2, &data))
}

fn value(bytes: &[u8]) -> Written {
    Written::new().bytes(1, bytes)
}

fn payload(base: u32, offset: u32, length: u32, to: u32) -> Expression {
    expression("payload", Written::new().u32(1, to).u32(2, base).u32(3, offset).u32(4, length))
}

pub(crate) fn source(to: u32) -> Expression {
    payload(NETWORK, 12, 4, to)
}

pub(crate) fn destination(to: u32) -> Expression {
    payload(NETWORK, 16, 4, to)
}

pub(crate) fn protocol(to: u32) -> Expression {
    payload(NETWORK, 9, 1, to)
}

pub(crate) fn destination_port(to: u32) -> Expression {
    payload(TRANSPORT, 2, 2, to)
}

pub(crate) fn equal(register: u32, bytes: &[u8]) -> Expression {
    expression("cmp", Written::new().u32(1, register).u32(2, 0).nested(3, &value(bytes)))
}

pub(crate) fn differs(register: u32, bytes: &[u8]) -> Expression {
    expression("cmp", Written::new().u32(1, register).u32(2, 1).nested(3, &value(bytes)))
}

/// `register & mask ^ xor`, in place.
fn bits(register: u32, mask: [u8; 4], xor: [u8; 4]) -> Expression {
    let data = Written::new().u32(1, register).u32(2, register).u32(3, 4);
    expression("bitwise", data.nested(4, &value(&mask)).nested(5, &value(&xor)))
}

pub(crate) fn masked(register: u32, mask: [u8; 4]) -> Expression {
    bits(register, mask, [0; 4])
}

/// Whether the route to the packet's destination ends on this machine.
pub(crate) fn to_this_machine() -> [Expression; 2] {
    /// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR` and `RTN_LOCAL`.
    const TYPE_OF_DESTINATION: (u32, u32, u32) = (3, 2, 2);
    let (result, flags, local) = TYPE_OF_DESTINATION;
    let look = expression("fib", Written::new().u32(1, R1).u32(2, result).u32(3, flags));
    [look, equal(R1, &local.to_ne_bytes())]
}

/// A number below `limit`, another one each time.
pub(crate) fn random(to: u32, limit: u32) -> Expression {
    expression("numgen", Written::new().u32(1, to).u32(2, limit).u32(3, 1))
}

/// Goes on where the map's element for the registers says, if there is one.
pub(crate) fn go_by(map: &str) -> Expression {
    expression("lookup", Written::new().text(1, map).u32(2, R1).u32(3, VERDICT))
}

pub(crate) fn in_set(set: &str) -> Expression {
    expression("lookup", Written::new().text(1, set).u32(2, R1))
}

/// Puts the first register into the set, or makes it young again.
pub(crate) fn remember(set: &str, milliseconds: u64) -> Expression {
    let data = Written::new().text(1, set).u32(3, 1).u32(4, R1).u64(6, milliseconds);
    expression("dynset", data)
}

pub(crate) fn to_endpoint(address: Ipv4Addr, port: u16) -> [Expression; 3] {
    let load = |to, bytes: &[u8]| {
        expression("immediate", Written::new().u32(1, to).nested(2, &value(bytes)))
    };
    let nat = Written::new().u32(1, 1).u32(2, libc::AF_INET as u32).u32(3, R1).u32(5, R2);
    [load(R1, &address.octets()), load(R2, &port.to_be_bytes()), expression("nat", nat)]
}

pub(crate) fn masquerade() -> Expression {
    expression("masq", Written::new().u32(1, RANDOM_FULLY))
}

/// As a port that nobody listens on.
pub(crate) fn reject() -> Expression {
    expression("reject", Written::new().u32(1, 0).bytes(2, &[3]))
}

/// Whether any of these bits is set in the packet's mark.
pub(crate) fn marked(bit: u32) -> [Expression; 3] {
    let bytes = bit.to_ne_bytes();
    [load_mark(), masked(R1, bytes), differs(R1, &[0; 4])]
}

pub(crate) fn mark(bit: u32) -> [Expression; 3] {
    let set = expression("meta", Written::new().u32(2, 3).u32(3, R1));
    [load_mark(), bits(R1, (!bit).to_ne_bytes(), bit.to_ne_bytes()), set]
}

fn load_mark() -> Expression {
    expression("meta", Written::new().u32(1, R1).u32(2, 3))
}

/// Whether the connection's destination was changed.
pub(crate) fn translated() -> [Expression; 3] {
    /// `NFT_CT_STATUS` and `IPS_DST_NAT`.
    const STATUS: (u32, u32) = (2, 1 << 5);
    let load = expression("ct", Written::new().u32(1, R1).u32(2, STATUS.0));
    [load, masked(R1, STATUS.1.to_ne_bytes()), differs(R1, &[0; 4])]
}

/// Whether it came in by the interface of this name.
pub(crate) fn arrives_by(interface: &str) -> [Expression; 2] {
    /// `NFT_META_IIFNAME`, into four registers; `IFNAMSIZ`.
    const NAME: (u32, usize) = (6, 16);
    let mut name = interface.as_bytes().to_vec();
    name.resize(NAME.1, 0);
    let load = expression("meta", Written::new().u32(1, R1).u32(2, NAME.0));
    [load, equal(R1, &name)]
}

/// Whether it leaves by an interface that is not the loopback one.
pub(crate) fn leaves() -> [Expression; 2] {
    /// `NFT_META_OIFTYPE` and `ARPHRD_LOOPBACK`.
    const TYPE: (u32, u16) = (9, 772);
    let load = expression("meta", Written::new().u32(1, R1).u32(2, TYPE.0));
    [load, differs(R1, &TYPE.1.to_ne_bytes())]
}

/// Whether it belongs to no connection that this machine has let through.
pub(crate) fn is_unknown() -> [Expression; 3] {
    /// `NFT_CT_STATE`; the bits of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`.
    const STATE: (u32, u32) = (0, 2 | 4);
    let load = expression("ct", Written::new().u32(1, R1).u32(2, STATE.0));
    [load, masked(R1, STATE.1.to_ne_bytes()), equal(R1, &[0; 4])]
}

pub(crate) fn drop() -> Expression {
    /// `NF_DROP`
    const DROP: i32 = 0;
    let verdict = Written::new().bytes(1, &DROP.to_be_bytes());
    let verdict = Written::new().nested(2, &verdict);
    expression("immediate", Written::new().u32(1, VERDICT).nested(2, &verdict))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// And back, when that chain has ended.
    Jump,
    Goto,
}

pub(crate) fn verdict(way: Way, chain: &str) -> Written {
    let code: i32 = match way {
        Way::Jump => -3,
        Way::Goto => -4,
    };
    let verdict = Written::new().bytes(1, &code.to_be_bytes()).text(2, chain);
    Written::new().nested(2, &verdict)
}

pub(crate) fn go(way: Way, chain: &str) -> Expression {
    expression("immediate", Written::new().u32(1, VERDICT).nested(2, &verdict(way, chain)))
}
