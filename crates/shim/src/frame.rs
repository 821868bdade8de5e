//! Messages on a unix stream socket, with descriptors beside them.
//!
//! A frame is the length of its body, the number of its descriptors, and the body. Descriptors arrive with or before
//! the last byte of their frame, in order, so a queue and the count are enough to give each frame its own.

use std::{
    collections::VecDeque,
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// The kernel passes at most 253 descriptors with one message (SCM_MAX_FD).
pub const DESCRIPTORS_MAX: usize = 253;

/// Far above any container's arguments and environment, which the kernel limits to a few MiB.
const BODY_MAX: usize = 64 << 20;

const HEADER: usize = 8;

/// The bytes of one frame.
pub fn encode(body: &[u8], descriptors: usize) -> Vec<u8> {
    assert!(
        descriptors <= DESCRIPTORS_MAX && body.len() <= BODY_MAX,
        "the sender keeps to the limits"
    );
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(descriptors as u32).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Puts received bytes and descriptors together to frames.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Inbox {
    /// One `recvmsg`. `Ok(false)` at the end of the stream.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut buffer = [0u8; 64 << 10];
        let count = receive(socket.as_raw_fd(), &mut buffer, &mut self.descriptors)?;
        self.bytes.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    /// The next whole frame. An error when the other side does not keep to the format.
    pub fn take(&mut self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h] = *header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let descriptors = u32::from_le_bytes([e, f, g, h]) as usize;
        if length > BODY_MAX || descriptors > DESCRIPTORS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame beyond the limits"));
        }
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        if self.descriptors.len() < descriptors {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame without its descriptors",
            ));
        }
        let body = self.bytes[HEADER..HEADER + length].to_vec();
        self.bytes.drain(..HEADER + length);
        Ok(Some((body, self.descriptors.drain(..descriptors).collect())))
    }
}

/// One `sendmsg`: returns how many bytes went; descriptors go with the first byte.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<usize> {
    let mut control = ControlBuffer::new();
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data for which all zeroes is valid; the pointers set below outlive the call; the
    // control buffer is aligned and large enough for DESCRIPTORS_MAX descriptors, which is asserted.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !descriptors.is_empty() {
            assert!(descriptors.len() <= DESCRIPTORS_MAX);
            let size = mem::size_of_val(descriptors) as u32;
            message.msg_control = control.as_mut_ptr();
            message.msg_controllen = libc::CMSG_SPACE(size) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
            ptr::copy_nonoverlapping(
                descriptors.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(header),
                mem::size_of_val(descriptors),
            );
        }
        let sent = libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL);
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// One packet of a packet socket, with its descriptors; no bytes at the end. Packets are at most 64 KiB.
pub fn receive_packet(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0u8; 64 << 10];
    let mut descriptors = VecDeque::new();
    let count = receive(socket.as_raw_fd(), &mut buffer, &mut descriptors)?;
    buffer.truncate(count);
    Ok((buffer, descriptors.into()))
}

fn receive(
    socket: RawFd,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut control = ControlBuffer::new();
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: as in `send`; the kernel writes at most msg_controllen bytes, and every descriptor that it passes is
    // ours alone, so each becomes an OwnedFd exactly once.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr();
        message.msg_controllen = control.len();
        let received = libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC);
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let count =
                    ((*header).cmsg_len - libc::CMSG_LEN(0) as usize) / mem::size_of::<RawFd>();
                for index in 0..count {
                    descriptors.push_back(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        Ok(received)
    }
}

/// Room for one control message with DESCRIPTORS_MAX descriptors, aligned as a header wants it.
struct ControlBuffer([u64; 136]);

impl ControlBuffer {
    fn new() -> ControlBuffer {
        ControlBuffer([0; 136])
    }
    fn len(&self) -> usize {
        mem::size_of_val(&self.0)
    }
    fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.0.as_mut_ptr().cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Seek, Write},
        os::{fd::AsFd, unix::net::UnixStream},
    };

    #[test]
    fn each_frame_gets_its_own_descriptors_however_the_bytes_are_cut() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile();
        file.write_all(b"passed").unwrap();
        let first = encode(b"no descriptors", 0);
        let second = encode(b"two", 2);
        assert_eq!(send(ours.as_fd(), &first[..5], &[]).unwrap(), 5);
        assert_eq!(send(ours.as_fd(), &first[5..], &[]).unwrap(), first.len() - 5);
        let fds = [file.as_raw_fd(), file.as_raw_fd()];
        assert_eq!(send(ours.as_fd(), &second, &fds).unwrap(), second.len());
        drop(ours);

        let mut inbox = Inbox::default();
        while inbox.receive(theirs.as_fd()).unwrap() {}
        let (body, descriptors) = inbox.take().unwrap().unwrap();
        assert_eq!((body.as_slice(), descriptors.len()), (&b"no descriptors"[..], 0));
        let (body, mut descriptors) = inbox.take().unwrap().unwrap();
        assert_eq!((body.as_slice(), descriptors.len()), (&b"two"[..], 2));
        let mut passed = std::fs::File::from(descriptors.remove(0));
        passed.rewind().unwrap();
        let mut text = String::new();
        passed.read_to_string(&mut text).unwrap();
        assert_eq!(text, "passed");
        assert!(inbox.take().unwrap().is_none());
    }

    fn tempfile() -> std::fs::File {
        // SAFETY: a plain call with a constant name; the returned descriptor is ours.
        unsafe {
            std::fs::File::from_raw_fd(libc::memfd_create(c"frame".as_ptr(), libc::MFD_CLOEXEC))
        }
    }
}
