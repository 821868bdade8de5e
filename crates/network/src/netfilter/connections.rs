//! The kernel's table of connections: forgetting those whose other end is gone.

use super::{
    ACK, DUMP, IPV4, Netfilter,
    attribute::{Attributes, Written},
    attributes, message,
};
use std::{io, net::Ipv4Addr};

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
/// `IPS_SEEN_REPLY`.
const ANSWERED: u32 = 1 << 1;

/// One end of a connection.
pub(crate) type End = (Ipv4Addr, u16);

/// A connection as far as translation is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) protocol: u8,
    /// Where the first packet was sent.
    pub(crate) asked: End,
    /// Who answers.
    pub(crate) answers: End,
    /// Whether it did.
    pub(crate) answered: bool,
}

/// Forgets connections, so that their next packets are judged as a first one is. Says how many there were.
pub(crate) fn forget(which: impl Fn(&Connection) -> bool) -> io::Result<usize> {
    let mut found = Vec::new();
    let netfilter = Netfilter::open()?;
    netfilter.send(&message(GET, DUMP, 1, IPV4, 0, &[]))?;
    netfilter.answers(u32::MAX, |body| {
        let all = attributes(body);
        if let (Some(original), Some(connection)) = (all.find(ORIGINAL), read(all))
            && which(&connection)
        {
            found.push(original.to_vec());
        }
    })?;
    let mut forgotten = 0;
    for original in found {
        let body = Written::new().nested(ORIGINAL, &Written(original));
        netfilter.send(&message(DELETE, ACK, 2, IPV4, 0, &body.0))?;
        match netfilter.answers(2, |_| {}) {
            Ok(()) => forgotten += 1,
            // It ended by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

fn read(all: Attributes<'_>) -> Option<Connection> {
    let (original, reply) = (all.nested(ORIGINAL)?, all.nested(REPLY)?);
    let address = |tuple: Attributes<'_>, which| {
        let four = tuple.nested(1)?.find(which)?.first_chunk::<4>().copied();
        four.map(Ipv4Addr::from)
    };
    let port = |tuple: Attributes<'_>, which| {
        let two = tuple.nested(2)?.find(which)?.first_chunk::<2>().copied();
        two.map(u16::from_be_bytes)
    };
    let status = all.find(STATUS)?.first_chunk::<4>().copied().map(u32::from_be_bytes)?;
    Some(Connection {
        answered: status & ANSWERED != 0,
        protocol: *original.nested(2)?.find(1)?.first()?,
        asked: (address(original, 2)?, port(original, 3)?),
        answers: (address(reply, 1)?, port(reply, 2)?),
    })
}
