//! The shim program: carried inside this binary, started from memory.
//!
//! It runs from a sealed memory file: whoever opens /proc/PID/exe of a container that is about to start can read it,
//! but never change what the next container or the host runs (the class of CVE-2019-5736).

use crate::error::{Attempt, Result};
use rustix::fs::{MemfdFlags, SealFlags};
use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::Stdio,
};

/// Built static by build.rs.
const BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim"));

#[derive(Debug)]
pub(crate) struct Program {
    file: File,
}

impl Program {
    pub(crate) fn load() -> Result<Program> {
        let attempted = || "keep the shim program in memory".to_owned();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let opened = match rustix::fs::memfd_create("stanchion-shim", flags | MemfdFlags::EXEC) {
            // Kernels before 6.3 do not know the flag, and make every memory file executable.
            Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("stanchion-shim", flags),
            other => other,
        };
        let mut file = File::from(opened.attempt(attempted)?);
        file.write_all(BYTES).attempt(attempted)?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).attempt(attempted)?;
        Ok(Program { file })
    }

    /// Starts a shim; the returned socket is its first connection. It ends when that closes before it is set up.
    pub(crate) fn start(&self, sandbox: &str) -> Result<UnixStream> {
        let attempted = || format!("start the shim of sandbox {sandbox}");
        let (ours, theirs) = UnixStream::pair().attempt(attempted)?;
        let mut child =
            tokio::process::Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
                .arg0("stanchion-shim")
                .arg(sandbox)
                .env_clear()
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .attempt(attempted)?;
        // Collects it when it ends; that it ended is learned from the socket.
        tokio::spawn(async move {
            let ended: io::Result<_> = child.wait().await;
            if let Err(error) = ended {
                tracing::warn!(%error, "wait for a shim");
            }
        });
        Ok(ours)
    }
}
