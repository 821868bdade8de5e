//! Starts the first process of a container, and further ones inside it.
//!
//! Both are copies of the shim that prepare themselves and then execve. A packet socket, closed by execve, connects
//! them to the shim: it tells whom they run as, carries the terminal, and the text of what failed; its end after the
//! word that all is ready means that the program runs. The one message the other way lets them go on once they are in their control groups.

use crate::{
    Failure, Result, capabilities, identity, rootfs,
    sys::{self, c_string, check, failure},
    user_namespace::UserNamespace,
};
use shim::{
    frame,
    protocol::{Identity, Process, Setup, Start},
    wire::Wire,
};
use std::{
    convert::Infallible,
    ffi::CString,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Tags of the packets that a starting process sends.
pub(crate) const TERMINAL: u8 = b'T';
pub(crate) const USER: u8 = b'U';
pub(crate) const FAILED: u8 = b'E';
/// Nothing is left but to become the program.
pub(crate) const READY: u8 = b'R';

/// What a process reads from and writes to.
pub(crate) enum Streams {
    Given([OwnedFd; 3]),
    Terminal,
}

/// A process between clone and execve.
pub(crate) struct Launched {
    pub(crate) pid: libc::pid_t,
    pub(crate) channel: OwnedFd,
}

/// Where a container's processes are born.
pub(crate) enum PidNamespace {
    New,
    Own,
    Of(OwnedFd),
}

/// Where a process is counted, and how likely it is to die for want of memory.
pub(crate) struct Place<'a> {
    /// Files that its number is written to.
    pub(crate) cgroup_procs: &'a [String],
    pub(crate) oom_score_adjust: i32,
}

pub(crate) fn start(
    start: &Start,
    setup: &Setup,
    users: Option<&UserNamespace>,
    pid_namespace: PidNamespace,
    sources: &[OwnedFd],
    streams: Streams,
) -> Result<Launched> {
    let (flags, joined) = match &pid_namespace {
        PidNamespace::New => (libc::CLONE_NEWNS | libc::CLONE_NEWPID, None),
        PidNamespace::Own => (libc::CLONE_NEWNS, None),
        PidNamespace::Of(descriptor) => (libc::CLONE_NEWNS, Some(descriptor.as_fd())),
    };
    let place =
        Place { cgroup_procs: &start.cgroup.procs, oom_score_adjust: start.oom_score_adjust };
    launch(joined, flags, place, |channel| {
        let pod = Path::new(&setup.directory);
        if let Some(users) = users {
            users.own_new_files()?;
        }
        let assembled = rootfs::assemble(start, pod, setup.host_ipc, users, sources)?;
        rootfs::enter(&assembled, start)?;
        let identity = identity::resolve_here(&start.process.user)?;
        tell(channel, USER, &identity.to_bytes(), &[])?;
        connect_streams(channel, streams, &identity, users, true)?;
        wait_for_go(channel)?;
        let Some(users) = users else {
            sys::unshare("the control group namespace", libc::CLONE_NEWCGROUP)?;
            return become_program(channel, &start.process, &identity);
        };
        users.join()?;
        // A copy of the mounts that belongs to the pod's users: they may add to it, and take nothing away.
        let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP;
        sys::unshare("the mount and control group namespaces", kinds)?;
        become_program(channel, &start.process, &identity)
    })
}

/// A further process in the container whose first process is `init`.
pub(crate) fn exec(
    init: libc::pid_t,
    process: &Process,
    identity: &Identity,
    users: Option<&UserNamespace>,
    place: Place<'_>,
    streams: Streams,
) -> Result<Launched> {
    let container = sys::pidfd(init)?;
    launch(Some(container.as_fd()), 0, place, |channel| {
        wait_for_go(channel)?;
        sys::setns("the container", container.as_fd(), libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP)?;
        connect_streams(channel, streams, identity, users, false)?;
        if let Some(users) = users {
            users.join()?;
        }
        become_program(channel, process, identity)
    })
}

fn launch(
    pid_namespace: Option<BorrowedFd<'_>>,
    flags: libc::c_int,
    place: Place<'_>,
    prepare: impl FnOnce(BorrowedFd<'_>) -> Result<Infallible>,
) -> Result<Launched> {
    let (ours, theirs) = sys::packet_pair()?;
    let pid = clone_into(pid_namespace, flags)?;
    if pid == 0 {
        drop(ours);
        sys::die_with_parent();
        // SAFETY: no pointers.
        unsafe { libc::setsid() };
        let Err(Failure(text)) = prepare(theirs.as_fd());
        let _shim_gone = tell(theirs.as_fd(), FAILED, text.as_bytes(), &[]);
        // SAFETY: ends this copy of the shim without running what belongs to the original.
        unsafe { libc::_exit(127) };
    }
    let placed = place.put(pid).and_then(|()| {
        sys::write(ours.as_fd(), b"G").map_err(|error| failure("let the process go on", &error))
    });
    if let Err(cause) = placed {
        let _gone_already = sys::kill(pid, libc::SIGKILL);
        return Err(cause);
    }
    sys::set_nonblocking(&ours)?;
    Ok(Launched { pid, channel: ours })
}

/// setns with CLONE_NEWPID changes only where children are born, so no process in between is needed.
fn clone_into(pid_namespace: Option<BorrowedFd<'_>>, flags: libc::c_int) -> Result<libc::pid_t> {
    let Some(namespace) = pid_namespace else { return sys::clone_process(flags) };
    let own = sys::open("/proc/self/ns/pid", libc::O_RDONLY, 0)?;
    sys::setns("the pid namespace", namespace, libc::CLONE_NEWPID)?;
    let pid = sys::clone_process(flags);
    if !matches!(pid, Ok(0)) {
        sys::setns("the shim's pid namespace again", own.as_fd(), libc::CLONE_NEWPID)?;
    }
    pid
}

impl Place<'_> {
    fn put(&self, pid: libc::pid_t) -> Result<()> {
        for procs in self.cgroup_procs {
            fs::write(procs, pid.to_string())
                .map_err(|error| failure(format_args!("join {procs}"), &error))?;
        }
        let adjust = self.oom_score_adjust;
        match fs::write(format!("/proc/{pid}/oom_score_adj"), adjust.to_string()) {
            Ok(()) => Ok(()),
            // Going below the own value takes CAP_SYS_RESOURCE, which a node may lack.
            Err(error)
                if error.raw_os_error() == Some(libc::EACCES)
                    || error.raw_os_error() == Some(libc::EPERM) =>
            {
                Ok(())
            }
            Err(error) => Err(failure(format_args!("set oom_score_adj to {adjust}"), &error)),
        }
    }
}

fn tell(channel: BorrowedFd<'_>, tag: u8, body: &[u8], descriptors: &[RawFd]) -> Result<()> {
    let packet: Vec<u8> = [&[tag], body].concat();
    frame::send(channel, &packet, descriptors)
        .map_err(|error| failure("tell the shim", &error))
        .map(drop)
}

fn wait_for_go(channel: BorrowedFd<'_>) -> Result<()> {
    match sys::read(channel, &mut [0u8; 1]) {
        Ok(1) => Ok(()),
        Ok(_) => Err(Failure("the shim is gone".into())),
        Err(error) => Err(failure("wait for the shim", &error)),
    }
}

fn connect_streams(
    channel: BorrowedFd<'_>,
    streams: Streams,
    identity: &Identity,
    users: Option<&UserNamespace>,
    first: bool,
) -> Result<()> {
    let owner = users.map_or(identity.uid, |it| it.on_host(identity.uid));
    match streams {
        Streams::Given(streams) => {
            for (standard, stream) in (0..).zip(&streams) {
                sys::duplicate_to(stream.as_raw_fd(), standard)?;
                hand_over(standard, owner);
            }
            Ok(())
        }
        Streams::Terminal => {
            let (master, terminal) = open_terminal()?;
            if first {
                rootfs::show_console(terminal.as_fd())?;
            }
            tell(channel, TERMINAL, &[], &[master.as_raw_fd()])?;
            for standard in 0..3 {
                sys::duplicate_to(terminal.as_raw_fd(), standard)?;
            }
            hand_over(0, owner);
            // SAFETY: no pointers.
            check("take the terminal", unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map(drop)
        }
    }
}

/// A process that is not root may open /dev/stdout again only if it owns what stands behind it.
fn hand_over(standard: RawFd, uid: u32) {
    // SAFETY: `stat` is plain data filled by fstat; the descriptor is open.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(standard, &raw mut stat) == 0
            && (stat.st_mode & libc::S_IFMT == libc::S_IFIFO || libc::isatty(standard) == 1)
        {
            // Refused for pipes of other file systems; then the process can still write to what it has.
            libc::fchown(standard, uid, libc::gid_t::MAX);
        }
    }
}

/// Master and terminal, of the container's own devpts.
fn open_terminal() -> Result<(OwnedFd, OwnedFd)> {
    let master = sys::open("/dev/pts/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0)?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the first ioctl reads one int; the second returns a new descriptor.
    unsafe {
        check(
            "unlock the terminal",
            libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked),
        )?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let terminal =
            check("open the terminal", libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags))?;
        Ok((master, OwnedFd::from_raw_fd(terminal)))
    }
}

/// Ids, capabilities, seccomp, execve. Returns only when it failed.
fn become_program(
    channel: BorrowedFd<'_>,
    process: &Process,
    identity: &Identity,
) -> Result<Infallible> {
    let directory = if process.directory.is_empty() { "/" } else { &process.directory };
    std::env::set_current_dir(directory)
        .map_err(|error| failure(format_args!("change to {directory}"), &error))?;
    change_user(identity)?;
    // After the change of user, which would clear it.
    sys::die_with_parent();
    if process.no_new_privileges {
        // SAFETY: prctl with numbers only.
        check("set no_new_privs", unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    }
    capabilities::limit(process.capabilities, process.ambient_capabilities)?;
    sys::reset_signals();
    sys::close_from(3, true)?;
    execute(channel, process, identity)
}

fn change_user(identity: &Identity) -> Result<()> {
    // Raw calls: libc's wrappers would signal threads that a copied process does not have.
    // SAFETY: the list outlives the call; the others take numbers only.
    unsafe {
        let groups =
            libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr());
        check("set supplementary groups", groups as libc::c_int)?;
        libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0);
        let gid = identity.gid;
        let changed = libc::syscall(libc::SYS_setresgid, gid, gid, gid);
        check(format_args!("change to group {gid}"), changed as libc::c_int)?;
        let uid = identity.uid;
        let changed = libc::syscall(libc::SYS_setresuid, uid, uid, uid);
        check(format_args!("change to user {uid}"), changed as libc::c_int)?;
        libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0);
    }
    Ok(())
}

fn execute(channel: BorrowedFd<'_>, process: &Process, identity: &Identity) -> Result<Infallible> {
    let Some(program) = process.arguments.first() else {
        return Err(Failure("no command was given".into()));
    };
    let arguments = c_strings(&process.arguments)?;
    let mut environment = process.environment.clone();
    if !environment
        .iter()
        .any(|entry| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty()))
    {
        environment.retain(|entry| !entry.starts_with("HOME="));
        environment.push(format!("HOME={}", identity.home));
    }
    let path =
        environment.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let candidates = if program.contains('/') {
        vec![c_string(program)?]
    } else {
        let directories =
            path.split(':').map(|directory| if directory.is_empty() { "." } else { directory });
        directories
            .map(|directory| c_string(&format!("{directory}/{program}")))
            .collect::<Result<_>>()?
    };
    let environment = c_strings(&environment)?;
    let (arguments, environment) = (pointers(&arguments), pointers(&environment));
    tell(channel, READY, &[], &[])?;
    install_seccomp(&process.seccomp)?;

    // From here on the filter is active: execve is the only call that it has to allow.
    let mut reason = libc::ENOENT;
    for candidate in &candidates {
        // SAFETY: both lists end with a null pointer and their strings outlive the call.
        unsafe { libc::execve(candidate.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        let error = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        if error != libc::ENOENT && error != libc::ENOTDIR {
            reason = error;
        }
        if !matches!(error, libc::ENOENT | libc::ENOTDIR | libc::EACCES) {
            break;
        }
    }
    Err(Failure(match reason {
        libc::ENOENT if program.contains('/') => {
            format!("exec: {program:?}: stat {program}: no such file or directory")
        }
        libc::ENOENT => format!("exec: {program:?}: executable file not found in $PATH"),
        libc::EACCES => format!("exec: {program:?}: permission denied"),
        libc::ENOEXEC => format!("exec {program}: exec format error"),
        other => format!("exec {program}: {}", sys::describe(&io::Error::from_raw_os_error(other))),
    }))
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>> {
    texts.iter().map(|text| c_string(text)).collect()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

fn install_seccomp(programs: &[Vec<u8>]) -> Result<()> {
    const INSTRUCTION: usize = 8;
    for program in programs {
        let filter = libc::sock_fprog {
            len: (program.len() / INSTRUCTION) as libc::c_ushort,
            filter: program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the kernel copies `len` instructions from the program, however they are aligned.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
        };
        check("install the seccomp filter", result as libc::c_int)?;
    }
    Ok(())
}
