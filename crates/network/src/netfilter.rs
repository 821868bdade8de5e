//! Conversations with the kernel's packet filter: nf_tables in transactions, and the table of connections.
//!
//! Written on netlink itself: the `nft` program reads the whole ruleset for each change, which takes 31 ms with two
//! thousand Services, and is one more thing to be installed.
//! Upstream: linux/netfilter/{nfnetlink,nf_tables,nfnetlink_conntrack}.h.

pub(crate) mod attribute;
pub(crate) mod connections;
pub(crate) mod expression;
pub(crate) mod tables;

use attribute::Attributes;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::{io, os::fd::AsRawFd};

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

const HEADER: usize = 16;
/// `struct nfgenmsg`: family, version, and what the subsystem makes of the rest.
const GENERAL: usize = 4;

/// The largest transaction: far more than five thousand Services need.
const TRANSACTION_BYTES_MAX: usize = 256 << 20;

/// What the kernel says at once at most.
const RECEIVED: usize = 64 * 1024;

const IPV4: u8 = libc::AF_INET as u8;

/// One message: a header, the general part, and attributes.
fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    body: &[u8],
) -> Vec<u8> {
    let length = HEADER + GENERAL + body.len();
    let mut bytes = Vec::with_capacity(length);
    // A message is as large as what is in memory of ours; its sender refuses more than the kernel takes.
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

struct Netfilter {
    socket: Socket,
}

impl Netfilter {
    fn open() -> io::Result<Netfilter> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netfilter { socket })
    }

    /// Sends everything at once; a transaction cannot come in parts.
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > TRANSACTION_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let room = libc::c_int::try_from(bytes.len().saturating_mul(2)).unwrap_or(libc::c_int::MAX);
        let descriptor = self.socket.as_raw_fd();
        for option in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
            // SAFETY: the descriptor is open, and the kernel reads one c_int.
            let set = unsafe {
                libc::setsockopt(
                    descriptor,
                    libc::SOL_SOCKET,
                    option,
                    (&raw const room).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            if set < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        match self.socket.send(bytes, 0)? {
            sent if sent == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Hands out answers until `last` is acknowledged or a list ends; the first refusal is the error.
    fn answers(&self, last: u32, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(RECEIVED);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            while let Some(header) = rest.first_chunk::<HEADER>() {
                let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let Some(message) = rest.get(HEADER..length) else {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                };
                let kind = u16::from_ne_bytes([header[4], header[5]]);
                let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
                match kind {
                    ERROR => {
                        let code = message
                            .first_chunk::<4>()
                            .map_or(-libc::EIO, |it| i32::from_ne_bytes(*it));
                        if code != 0 {
                            return Err(io::Error::from_raw_os_error(-code));
                        }
                        if sequence == last {
                            return Ok(());
                        }
                    }
                    DONE => return Ok(()),
                    _ => each(message.get(GENERAL..).unwrap_or_default()),
                }
                let padded = length.next_multiple_of(4).min(rest.len());
                rest = &rest[padded..];
            }
        }
    }
}

/// The attributes of a message that the kernel wrote.
fn attributes(body: &[u8]) -> Attributes<'_> {
    Attributes(body)
}
