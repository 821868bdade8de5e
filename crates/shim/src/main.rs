//! One per pod: holds the pod's namespaces, starts its containers, writes their logs and remembers how they ended.
//! It outlives the server that started it, which finds it again by the socket in its directory.
//!
//! One thread and one poll loop. Nothing in it waits for a container or for the server.

mod capabilities;
mod container;
mod identity;
mod launch;
mod layers;
mod log;
mod namespaces;
mod pod;
mod process;
mod rootfs;
mod server;
mod sys;
mod user_namespace;

use std::{
    fmt,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::ExitCode,
};

/// What was attempted, on what, and why it failed: a sentence for the server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

fn main() -> ExitCode {
    match take_socket().and_then(server::serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(_told_or_nobody_to_tell)) => ExitCode::FAILURE,
    }
}

/// The server starts this program with a socket as descriptor 0; everything else that it inherited is closed.
fn take_socket() -> Result<OwnedFd> {
    namespaces::detach_from_starter()?;
    // SAFETY: descriptor 0 is duplicated to 3 before anything else is opened, so no OwnedFd exists at or above 3; the
    // duplicate is new.
    let socket = unsafe {
        sys::check("keep the socket", libc::dup3(0, 3, libc::O_CLOEXEC))?;
        sys::close_from(4, false)?;
        OwnedFd::from_raw_fd(3)
    };
    let nothing = sys::open("/dev/null", libc::O_RDWR, 0)?;
    for standard in 0..3 {
        sys::duplicate_to(nothing.as_raw_fd(), standard)?;
    }
    Ok(socket)
}
