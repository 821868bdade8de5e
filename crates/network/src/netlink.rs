//! One conversation with the kernel about links, addresses and routes, in the network namespace of
//! the thread that opened it.
//!
//! It blocks: the kernel answers these requests before `send` returns, and a conversation belongs to
//! a thread that may change its namespace, so an event loop would have nothing to do here.

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage},
        neighbour::{NeighbourHeader, NeighbourMessage},
        route::{RouteHeader, RouteMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

/// A list that keeps changing while it is read is read again this often.
const DUMPS_MAX: usize = 8;

/// `NLM_F_DUMP_INTR` of linux/netlink.h.
const NLM_F_DUMP_INTERRUPTED: u16 = 0x10;

pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// What this crate wants to know about an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: String,
    /// `bridge`, `veth`, …; empty for a device that says nothing.
    pub(crate) kind: String,
    /// The index of the bridge that it is a port of.
    pub(crate) controller: Option<u32>,
    pub(crate) mtu: u32,
    pub(crate) hardware: Vec<u8>,
    /// What a vxlan device was made with.
    pub(crate) vxlan: Vec<InfoVxlan>,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends one request and waits for the kernel's yes or no.
    pub(crate) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers(|_| ()).map(|_| ())
    }

    /// The interface of this name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.send(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST | NLM_F_ACK)?;
        let mut found = None;
        let answered = self.answers(|message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                found = Some(described(link));
            }
        });
        match answered {
            Ok(_) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        self.dump(
            || RouteNetlinkMessage::GetLink(LinkMessage::default()),
            |message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(described(link)),
                _ => None,
            },
        )
    }

    /// Every IPv4 address: the index of its interface, itself, and its prefix.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<(u32, Ipv4Addr, u8)>> {
        self.dump(
            || RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            |message| match message {
                RouteNetlinkMessage::NewAddress(it) => {
                    let local = it.attributes.iter().find_map(|attribute| match attribute {
                        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                        _ => None,
                    });
                    local.map(|address| (it.header.index, address, it.header.prefix_len))
                }
                _ => None,
            },
        )
    }

    /// Every IPv4 route of the main table.
    pub(crate) fn routes(&mut self) -> io::Result<Vec<RouteMessage>> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        let main = |it: &RouteMessage| it.header.table == RouteHeader::RT_TABLE_MAIN;
        self.dump(
            || RouteNetlinkMessage::GetRoute(request.clone()),
            |message| match message {
                RouteNetlinkMessage::NewRoute(route) => Some(route).filter(main),
                _ => None,
            },
        )
    }

    /// Neighbours (`Inet`) or forwarding entries (`Bridge`) of one interface.
    pub(crate) fn neighbours(
        &mut self,
        family: AddressFamily,
        interface: u32,
    ) -> io::Result<Vec<NeighbourMessage>> {
        let mut request = NeighbourMessage::default();
        request.header = NeighbourHeader { family, ..NeighbourHeader::default() };
        self.dump(
            || RouteNetlinkMessage::GetNeighbour(request.clone()),
            |message| match message {
                RouteNetlinkMessage::NewNeighbour(it) => {
                    Some(it).filter(|it| it.header.ifindex == interface)
                }
                _ => None,
            },
        )
    }

    fn dump<T>(
        &mut self,
        request: impl Fn() -> RouteNetlinkMessage,
        pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMPS_MAX {
            let mut rows = Vec::new();
            self.send(request(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let interrupted = self.answers(|message| rows.extend(pick(message)))?;
            if !interrupted {
                return Ok(rows);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the list changed each time it was read"))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    /// Hands over each message that answers the last request, up to its end. True: the kernel says
    /// that the list changed meanwhile.
    fn answers(&mut self, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
        let mut interrupted = false;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while let Some(length) = message_length(rest) {
                let (message, after) = rest.split_at(length);
                rest = after.get(aligned(length) - length..).unwrap_or_default();
                if sequence_of(message) != self.sequence {
                    continue;
                }
                // A device of a sort that the decoder does not know is not one of ours.
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
                else {
                    continue;
                };
                interrupted |= message.header.flags & NLM_F_DUMP_INTERRUPTED != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => each(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(interrupted),
                    NetlinkPayload::Overrun(_) => {
                        return Err(io::Error::other("the kernel dropped a part of its answer"));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// `nlmsg_len` of the first message, if a whole one is there.
fn message_length(bytes: &[u8]) -> Option<usize> {
    const HEADER: usize = 16;
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    (length >= HEADER && length <= bytes.len()).then_some(length)
}

fn sequence_of(message: &[u8]) -> u32 {
    u32::from_ne_bytes([message[8], message[9], message[10], message[11]])
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn described(message: LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.hardware = bytes,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        LinkInfo::Data(InfoData::Vxlan(made)) => link.vxlan = made,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}
