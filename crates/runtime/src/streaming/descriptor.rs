//! Reads and writes a pipe, socket or terminal without blocking a thread.

use rustix::{fs::OFlags, io::Errno};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};
use tokio::io::unix::AsyncFd;

pub(super) struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Descriptor> {
        let flags = rustix::fs::fcntl_getfl(&descriptor)?;
        rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
        // SAFETY: an OwnedFd is open until it is dropped, and always is the same descriptor.
        let descriptor = unsafe { AsyncFd::register(descriptor) };
        Ok(Descriptor(descriptor?))
    }

    /// How much was read; 0 at the end.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|inner| Ok(rustix::io::read(inner.get_ref(), &mut *buffer)?));
            match read {
                // What the master of a terminal says once nobody has the other side open.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Ok(0);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }

    pub(super) async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|inner| Ok(rustix::io::write(inner.get_ref(), data)?)) {
                Ok(Ok(written)) => data = &data[written..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// Tells a terminal its size in characters.
    pub(super) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open as long as self, and the kernel reads one winsize.
        let answer =
            unsafe { libc::ioctl(self.0.get_ref().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
