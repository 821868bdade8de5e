//! The pod's namespaces: the shim enters them once and stays, so they live as long as it does.
//!
//! No pause process is needed, except where the containers share a pid namespace: that one needs a first process.

use crate::{
    Failure, Result,
    sys::{self, check, failure},
    user_namespace::UserNamespace,
};
use shim::protocol::Setup;
use std::{ffi::CString, fs, io, os::fd::AsFd, path::Path};

/// Detaches the process from whoever started it. Descriptor 0 must be the socket to the server.
pub(crate) fn detach_from_starter() -> Result<()> {
    // SAFETY: plain calls on this process; setgroups gets an empty list.
    unsafe {
        libc::setsid();
        libc::umask(0o022);
        check("leave all groups", libc::setgroups(0, std::ptr::null()))?;
        libc::prctl(libc::PR_SET_NAME, c"stanchion-shim".as_ptr());
    }
    std::env::set_current_dir("/").map_err(|error| failure("change to /", &error))?;
    sys::settle_signals();
    // Its death would end every container of the pod. Without CAP_SYS_RESOURCE this is refused.
    let _refused = fs::write("/proc/self/oom_score_adj", "-998");
    Ok(())
}

/// With the pod's own users, if it has them.
pub(crate) fn enter(setup: &Setup) -> Result<Option<UserNamespace>> {
    for procs in &setup.cgroup_procs {
        fs::write(procs, std::process::id().to_string())
            .map_err(|error| failure(format_args!("join {procs}"), &error))?;
    }
    sys::unshare("the mount namespace", libc::CLONE_NEWNS)?;
    sys::mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None)
        .map_err(|error| failure("make every mount a slave of the host's", &error))?;
    let shared_memory = Path::new(&setup.directory).join("shm");
    if let Some(ids) = &setup.ids {
        if setup.host_network || setup.host_ipc {
            return Err(Failure("users of its own need namespaces of the pod's own".into()));
        }
        let users = UserNamespace::enter(ids, setup)?;
        set_hostname(&setup.hostname)?;
        raise_loopback()?;
        mount_shared_memory(&shared_memory, users.on_host(0))?;
        try_map(setup, &users)?;
        return Ok(Some(users));
    }
    if !setup.host_network {
        sys::unshare("the network and host name", libc::CLONE_NEWNET | libc::CLONE_NEWUTS)?;
        set_hostname(&setup.hostname)?;
        raise_loopback()?;
    }
    if !setup.host_ipc {
        sys::unshare("the IPC namespace", libc::CLONE_NEWIPC)?;
        mount_shared_memory(&shared_memory, 0)?;
    }
    set_sysctls(setup).map(|()| None)
}

/// Whether what holds the containers' files can belong to users of the pod: better known now than at each start.
fn try_map(setup: &Setup, users: &UserNamespace) -> Result<()> {
    let directory = sys::open(&setup.directory, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    users.map(sys::clone_part(directory.as_fd())?.as_fd(), false)
}

pub(crate) fn set_sysctls(setup: &Setup) -> Result<()> {
    for (name, value) in &setup.sysctls {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(&path, value)
            .map_err(|error| failure(format_args!("set sysctl {name} to {value:?}"), &error))?;
    }
    Ok(())
}

fn set_hostname(name: &str) -> Result<()> {
    // SAFETY: pointer and length of one string.
    check(format_args!("set the host name {name:?}"), unsafe {
        libc::sethostname(name.as_ptr().cast(), name.len())
    })
    .map(drop)
}

fn raise_loopback() -> Result<()> {
    // SAFETY: ifreq is plain data; the ioctl reads name and flags from it; the socket is closed here.
    unsafe {
        let socket = check(
            "make a socket",
            libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0),
        )?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request);
        let raised = check("raise the loopback interface", result);
        libc::close(socket);
        raised.map(drop)
    }
}

/// /dev/shm of all containers of the pod; visible in this mount namespace alone.
fn mount_shared_memory(directory: &Path, owner: u32) -> Result<()> {
    let attempted = format!("mount shared memory on {}", directory.display());
    fs::create_dir_all(directory).map_err(|error| failure(&attempted, &error))?;
    let target = CString::new(directory.as_os_str().as_encoded_bytes())
        .map_err(|_| failure(&attempted, &io::ErrorKind::InvalidInput.into()))?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let options = format!("mode=1777,size=65536k,uid={owner},gid={owner}");
    sys::mount(Some(c"shm"), &target, Some(c"tmpfs"), flags, Some(&sys::c_string(&options)?))
        .map_err(|error| failure(&attempted, &error))
}

/// Starts the first process of a pid namespace that all containers share: it reaps what they leave behind.
pub(crate) fn start_reaper() -> Result<libc::pid_t> {
    let own = sys::open("/proc/self/ns/pid", libc::O_RDONLY, 0)?;
    sys::unshare("the pid namespace", libc::CLONE_NEWPID)?;
    let pid = sys::clone_process(0)?;
    if pid == 0 {
        reap_forever();
    }
    // Later children are born in the original namespace again, unless they ask for the shared one.
    sys::setns("the original pid namespace", own.as_fd(), libc::CLONE_NEWPID)?;
    Ok(pid)
}

fn reap_forever() -> ! {
    sys::die_with_parent();
    let set = sys::child_signal_set();
    // SAFETY: plain calls on initialised values; every descriptor of this process is closed and none is used later.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"pause".as_ptr());
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        loop {
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
            let mut signal = 0;
            libc::sigwait(&raw const set, &raw mut signal);
        }
    }
}
