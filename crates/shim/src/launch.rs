//! A process between clone and execve: what it says, until it runs its program or fails.

use crate::{
    Failure,
    pod::Caller,
    process::{self, Launched},
};
use shim::{frame, protocol::Identity, wire::Wire};
use std::os::fd::{AsFd, OwnedFd};

/// A process that has not executed its program yet, and the request that waits for it.
pub(crate) struct Launch {
    pub(crate) channel: OwnedFd,
    pub(crate) pid: libc::pid_t,
    pub(crate) caller: Caller,
    pub(crate) number: u64,
    pub(crate) what: Launching,
    pub(crate) identity: Identity,
    pub(crate) terminal: Option<OwnedFd>,
    /// It has said that nothing is left but to become its program.
    pub(crate) ready: bool,
    /// Nobody is there any more to learn that it runs: it was killed.
    pub(crate) abandoned: bool,
}

pub(crate) enum Launching {
    Container(String),
    Exec(u64),
}

pub(crate) enum Heard {
    NotYet,
    Running,
    Failed(Failure),
}

impl Launch {
    pub(crate) fn new(launched: Launched, caller: Caller, number: u64, what: Launching) -> Launch {
        let Launched { pid, channel } = launched;
        Launch {
            channel,
            pid,
            caller,
            number,
            what,
            identity: Identity::default(),
            terminal: None,
            ready: false,
            abandoned: false,
        }
    }

    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            let (packet, mut descriptors) = match frame::receive_packet(self.channel.as_fd()) {
                Ok(received) => received,
                // It ended with something of ours unread; what it said comes after this.
                Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => continue,
                Err(_) => return Heard::NotYet,
            };
            match packet.split_first() {
                None if self.ready => return Heard::Running,
                None => {
                    let why = "it was killed while it was set up (is its memory limit too low?)";
                    return Heard::Failed(Failure(why.to_owned()));
                }
                Some((&process::READY, _)) => self.ready = true,
                Some((&process::TERMINAL, _)) => self.terminal = descriptors.pop(),
                Some((&process::USER, body)) => {
                    self.identity = Identity::from_bytes(body).unwrap_or_default()
                }
                Some((&process::FAILED, why)) => {
                    return Heard::Failed(Failure(String::from_utf8_lossy(why).into_owned()));
                }
                Some((other, _)) => {
                    return Heard::Failed(Failure(format!(
                        "unknown packet {other} from a starting process"
                    )));
                }
            }
        }
    }
}
