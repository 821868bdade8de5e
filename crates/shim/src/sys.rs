//! System calls that the standard library lacks, each checked, with what was attempted in the error.

use crate::{Failure, Result};
use std::{
    ffi::{CStr, CString},
    fmt::Display,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// The kernel's text without the number that the standard library appends.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

pub(crate) fn failure(attempted: impl Display, error: &io::Error) -> Failure {
    Failure(format!("{attempted}: {}", describe(error)))
}

/// Turns the -1 of a system call into an error.
pub(crate) fn check(attempted: impl Display, result: libc::c_int) -> Result<libc::c_int> {
    if result < 0 { Err(failure(attempted, &io::Error::last_os_error())) } else { Ok(result) }
}

fn check_long(attempted: impl Display, result: libc::c_long) -> Result<libc::c_int> {
    check(attempted, result as libc::c_int)
}

fn own(attempted: impl Display, result: libc::c_long) -> Result<OwnedFd> {
    let descriptor = check_long(attempted, result)?;
    // SAFETY: the call has just returned this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

pub(crate) fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Failure(format!("{text:?} contains a zero byte")))
}

/// The path under which a descriptor of this process can be opened or mounted on.
pub(crate) fn descriptor_path(descriptor: impl AsFd) -> CString {
    let text = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
    CString::new(text).expect("no zero byte")
}

// SAFETY, for all calls below: pointers come from references, CStr or slices that outlive the call, lengths are those
// of the slices, and returned descriptors are new. None of the calls touches memory of Rust values otherwise.

#[derive(Clone, Copy)]
pub(crate) struct Resolve {
    /// Refuse any symbolic link instead of following it inside the root.
    pub(crate) no_links: bool,
}

/// Opens below `root` as if it were `/`: links and `..` cannot leave it, magic links are refused.
pub(crate) fn open_in(
    root: BorrowedFd<'_>,
    path: &str,
    flags: libc::c_int,
    resolve: Resolve,
) -> io::Result<OwnedFd> {
    const NO_MAGIC_LINKS: u64 = 0x02;
    const NO_LINKS: u64 = 0x04;
    const IN_ROOT: u64 = 0x10;
    let Ok(name) = CString::new(path) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let links = if resolve.no_links { NO_LINKS } else { 0 };
    let how = [(flags | libc::O_CLOEXEC) as u64, 0, IN_ROOT | NO_MAGIC_LINKS | links];
    // SAFETY: see above; `how` has the layout of struct open_how.
    let result = unsafe {
        libc::syscall(libc::SYS_openat2, root.as_raw_fd(), name.as_ptr(), &how, size_of_val(&how))
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

pub(crate) fn open(path: &str, flags: libc::c_int, mode: libc::mode_t) -> Result<OwnedFd> {
    let name = c_string(path)?;
    // SAFETY: see above.
    let result =
        unsafe { libc::open(name.as_ptr(), flags | libc::O_CLOEXEC, libc::c_uint::from(mode)) };
    own(format_args!("open {path}"), libc::c_long::from(result))
}

pub(crate) fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: see above.
    let result = unsafe {
        libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(data).cast())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct MountAttributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) user_namespace: u64,
}

const AT_RECURSIVE: libc::c_int = 0x8000;

/// A detached copy of the mount at `path` (with those below it).
pub(crate) fn clone_mount(path: &CStr) -> Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_int = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | AT_RECURSIVE;
    // SAFETY: see above.
    let result =
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    own(format_args!("clone the mount {}", path.to_string_lossy()), result)
}

/// A detached copy of what `part` is open on, alone.
pub(crate) fn clone_part(part: BorrowedFd<'_>) -> Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_int = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
    // SAFETY: see above.
    let result =
        unsafe { libc::syscall(libc::SYS_open_tree, part.as_raw_fd(), c"".as_ptr(), flags) };
    own("clone a part of a mount", result)
}

/// New files belong to this user and group of the host, and no capability is lost for it.
pub(crate) fn own_new_files(id: u32) -> Result<()> {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    // SAFETY: see above; raw calls, because libc's wrappers would signal threads that a copied process does not have.
    unsafe {
        let kept = libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0);
        check("keep capabilities", kept)?;
        libc::syscall(libc::SYS_setfsgid, id);
        libc::syscall(libc::SYS_setfsuid, id);
    }
    Ok(())
}

/// User and group, with what is supplementary to them given up.
pub(crate) fn become_user(id: u32) -> Result<()> {
    // SAFETY: see above; raw calls as above.
    unsafe {
        let changed = libc::syscall(libc::SYS_setresgid, id, id, id);
        check_long(format_args!("change to group {id}"), changed)?;
        let changed = libc::syscall(libc::SYS_setresuid, id, id, id);
        check_long(format_args!("change to user {id}"), changed).map(drop)
    }
}

pub(crate) fn set_mount(
    tree: BorrowedFd<'_>,
    recursive: bool,
    attributes: &MountAttributes,
) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: see above.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    check_long("set mount attributes", result).map(drop)
}

pub(crate) fn is_directory(part: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: `stat` is plain data filled by the call.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check("look at a part of a mount", libc::fstat(part.as_raw_fd(), &raw mut stat))?;
        Ok(stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
    }
}

/// What kind of filesystem this is, for people.
pub(crate) fn filesystem(tree: BorrowedFd<'_>) -> String {
    // SAFETY: `statfs` is plain data filled by the call.
    let kind = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        if libc::fstatfs(tree.as_raw_fd(), &raw mut stat) < 0 { 0 } else { stat.f_type as i64 }
    };
    let known = [
        (libc::NFS_SUPER_MAGIC, "nfs"),
        (libc::OVERLAYFS_SUPER_MAGIC, "overlay"),
        (libc::FUSE_SUPER_MAGIC, "fuse"),
        (libc::TMPFS_MAGIC, "tmpfs"),
        (0x0102_1997, "9p"),
    ];
    let name = known.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name);
    name.map_or_else(
        || format!("a filesystem of kind {kind:#x}"),
        |it| format!("a filesystem of kind {it}"),
    )
}

/// Puts a detached mount on the file or directory that `target` is open on.
pub(crate) fn attach_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const FROM_EMPTY_PATH: libc::c_uint = 0x04;
    const TO_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: see above.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            FROM_EMPTY_PATH | TO_EMPTY_PATH,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the current directory the root and leaves the old root stacked on it.
pub(crate) fn pivot_root_here() -> Result<()> {
    // SAFETY: see above.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    check_long("change the root", result).map(drop)
}

pub(crate) fn unshare(what: &str, flags: libc::c_int) -> Result<()> {
    // SAFETY: see above.
    check(format_args!("unshare {what}"), unsafe { libc::unshare(flags) }).map(drop)
}

pub(crate) fn setns(what: &str, descriptor: BorrowedFd<'_>, kinds: libc::c_int) -> Result<()> {
    // SAFETY: see above.
    check(format_args!("join {what}"), unsafe { libc::setns(descriptor.as_raw_fd(), kinds) })
        .map(drop)
}

pub(crate) fn pidfd(pid: libc::pid_t) -> Result<OwnedFd> {
    // SAFETY: see above.
    own(format_args!("open process {pid}"), unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

pub(crate) fn kill(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: see above.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A copy of this process (it has one thread). `Ok(0)` in the child.
pub(crate) fn clone_process(namespaces: libc::c_int) -> Result<libc::pid_t> {
    // struct clone_args, first version: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
    let arguments = [namespaces as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    // SAFETY: without CLONE_VM the child has its own copy of everything, and there is one thread, so no lock is held
    // by a thread that the child lacks.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of_val(&arguments)) };
    check_long("start a process", result)
}

/// A pair of sockets that keep message boundaries, both closed by execve.
pub(crate) fn packet_pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut pair = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: see above; both descriptors are new.
    unsafe {
        check("make a socket pair", libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])))
    }
}

/// Read end, write end; both closed by execve.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut pair = [0; 2];
    // SAFETY: see above; both descriptors are new.
    unsafe {
        check("make a pipe", libc::pipe2(pair.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])))
    }
}

pub(crate) fn set_nonblocking(descriptor: impl AsFd) -> Result<()> {
    let descriptor = descriptor.as_fd().as_raw_fd();
    // SAFETY: see above.
    unsafe {
        let flags = check("read descriptor flags", libc::fcntl(descriptor, libc::F_GETFL))?;
        check(
            "set descriptor flags",
            libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_NONBLOCK),
        )
        .map(drop)
    }
}

pub(crate) fn duplicate_to(from: RawFd, to: RawFd) -> Result<()> {
    // SAFETY: see above; the standard streams are never owned by an OwnedFd here.
    check("set a standard stream", unsafe { libc::dup2(from, to) }).map(drop)
}

pub(crate) fn close_from(first: libc::c_uint, on_exec_only: bool) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    let flags = if on_exec_only { CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: the callers own no OwnedFd at or above `first`, or only mark.
    check_long("close descriptors", unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags)
    })
    .map(drop)
}

pub(crate) fn read(descriptor: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: see above.
    let count =
        unsafe { libc::read(descriptor.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

pub(crate) fn write(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: see above.
    let count = unsafe { libc::write(descriptor.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: see above.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// A signal's disposition, for all numbers including the two that libc keeps for itself and would not touch.
fn set_disposition(signal: libc::c_int, handler: libc::sighandler_t) {
    // struct sigaction of the kernel: handler, flags, restorer, mask.
    let action = [handler as u64, 0, 0, 0];
    // SAFETY: see above; KILL and STOP are refused by the kernel, which is as good.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &action, ptr::null::<u64>(), 8usize) };
}

pub(crate) fn child_signal_set() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data, initialised by sigemptyset.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// What ends a login session or a service must not end a pod's containers: those are stopped one by one. Writing to
/// who has gone is an error, not a death.
const IGNORED: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE];

/// The shim's own dispositions, whatever it inherited.
pub(crate) fn settle_signals() {
    for signal in 1..=64 {
        set_disposition(
            signal,
            if IGNORED.contains(&signal) { libc::SIG_IGN } else { libc::SIG_DFL },
        );
    }
    unblock_signals();
}

/// What a program starts with: every disposition the default, nothing blocked. Undoes `settle_signals`.
pub(crate) fn reset_signals() {
    for signal in IGNORED {
        set_disposition(signal, libc::SIG_DFL);
    }
    unblock_signals();
}

fn unblock_signals() {
    // SAFETY: sigset_t is plain data, initialised by sigemptyset.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

pub(crate) fn die_with_parent() {
    // SAFETY: see above.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
}
