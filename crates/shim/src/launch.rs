//! A process between clone and execve: what it says, until it runs its program or fails.

use crate::{Failure, pod::Caller, process};
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
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            let Ok((packet, mut descriptors)) = frame::receive_packet(self.channel.as_fd()) else {
                return Heard::NotYet;
            };
            match packet.split_first() {
                None => return Heard::Running,
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
