//! The pod's own users: 0 in it is nobody on the host.
//!
//! A process that is gone again makes the namespace, and those that shall belong to it. The shim enters these and stays
//! a user of the host: it sets up mounts with the host's rights, and every container joins the users at the end.

use crate::{
    Failure, Result,
    sys::{self, MountAttributes, failure},
};
use shim::protocol::{Ids, Setup};
use std::{
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// `MOUNT_ATTR_IDMAP`
const ID_MAP: u64 = 0x0010_0000;

const DONE: &[u8] = b"+";

pub(crate) struct UserNamespace {
    descriptor: OwnedFd,
    ids: Ids,
}

impl UserNamespace {
    /// Makes it, and enters a network, a host name and an IPC namespace that belong to it.
    pub(crate) fn enter(ids: &Ids, setup: &Setup) -> Result<UserNamespace> {
        let (ours, theirs) = sys::packet_pair()?;
        let pid = sys::clone_process(libc::CLONE_NEWUSER)
            .map_err(|cause| Failure(format!("make a user namespace: {}", cause.0)))?;
        if pid == 0 {
            drop(ours);
            sys::die_with_parent();
            let said = match furnish(&theirs, setup) {
                Ok(()) => DONE.to_vec(),
                Err(Failure(text)) => text.into_bytes(),
            };
            let _shim_gone = sys::write(theirs.as_fd(), &said);
            // Until the shim has what it wants; then this process is killed.
            let _nothing = sys::read(theirs.as_fd(), &mut [0]);
            // SAFETY: ends this copy of the shim without running what belongs to the original.
            unsafe { libc::_exit(0) };
        }
        drop(theirs);
        let made = take_over(pid, &ours, ids);
        let _gone_already = sys::kill(pid, libc::SIGKILL);
        // SAFETY: waitpid may be told not to write the status.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        Ok(UserNamespace { descriptor: made?, ids: ids.clone() })
    }

    /// A user or group of the pod as the host numbers it.
    pub(crate) fn on_host(&self, id: u32) -> u32 {
        self.ids.first.saturating_add(id)
    }

    /// What belongs to the host's user 0 in this detached tree belongs to the pod's, and the other way round. Where
    /// a mount below it cannot do that, all of those are left as they are: to the pod their files are nobody's.
    pub(crate) fn map(&self, tree: BorrowedFd<'_>, recursive: bool) -> Result<()> {
        let attributes = MountAttributes {
            set: ID_MAP,
            user_namespace: u64::try_from(self.descriptor.as_raw_fd()).unwrap_or_default(),
            ..MountAttributes::default()
        };
        let map = |recursive: bool| sys::set_mount(tree, recursive, &attributes);
        let mapped = if recursive { map(true).or_else(|_| map(false)) } else { map(false) };
        mapped.map_err(|cause| {
            let kind = sys::filesystem(tree);
            Failure(format!(
                "show the pod its own users on {kind}, which may not be able to (the pod has hostUsers: false): {}",
                cause.0
            ))
        })
    }

    /// This process, which sets a container up, makes files for the pod's user 0.
    pub(crate) fn own_new_files(&self) -> Result<()> {
        sys::own_new_files(self.ids.first)
    }

    /// This process has the rights of the pod's user 0 from now on, and no others.
    pub(crate) fn join(&self) -> Result<()> {
        sys::setns("the pod's users", self.descriptor.as_fd(), libc::CLONE_NEWUSER)
    }
}

/// In the new namespace: waits until its users are known, then makes what belongs to it.
fn furnish(shim: &OwnedFd, setup: &Setup) -> Result<()> {
    match sys::read(shim.as_fd(), &mut [0]) {
        Ok(1) => {}
        Ok(_) => return Err(Failure("the shim is gone".into())),
        Err(error) => return Err(failure("wait for the shim", &error)),
    }
    sys::become_user(0)?;
    let kinds = libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    sys::unshare("the network, the host name and IPC", kinds)?;
    // Some are writable for the namespace's own root alone.
    crate::namespaces::set_sysctls(setup)
}

/// From the outside: says who the users are, and takes the namespaces.
fn take_over(pid: libc::pid_t, maker: &OwnedFd, ids: &Ids) -> Result<OwnedFd> {
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, format!("0 {} {}\n", ids.first, ids.count))
            .map_err(|error| failure(format_args!("write {path}"), &error))?;
    }
    sys::write(maker.as_fd(), b"G").map_err(|error| failure("let the maker go on", &error))?;
    let mut said = [0u8; 4096];
    let count = sys::read(maker.as_fd(), &mut said)
        .map_err(|error| failure("hear of the new namespaces", &error))?;
    if &said[..count] != DONE {
        let why = String::from_utf8_lossy(&said[..count]).into_owned();
        return Err(Failure(format!("make the pod's namespaces: {why}")));
    }
    let open = |kind: &str| sys::open(&format!("/proc/{pid}/ns/{kind}"), libc::O_RDONLY, 0);
    let users = open("user")?;
    for (kind, flag) in
        [("net", libc::CLONE_NEWNET), ("uts", libc::CLONE_NEWUTS), ("ipc", libc::CLONE_NEWIPC)]
    {
        sys::setns(&format!("the pod's {kind} namespace"), open(kind)?.as_fd(), flag)?;
    }
    Ok(users)
}
