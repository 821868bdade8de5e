//! What a container sees as `/`, made inside its own mount namespace: nothing of it appears on the host, and nothing
//! is left to unmount when the container dies.
//!
//! Every path of the image is opened below the new root with openat2, so links in an image cannot lead out of it.

use crate::{
    Failure, Result,
    layers::Layers,
    sys::{self, MountAttributes, Resolve, c_string, check, descriptor_path, failure},
    user_namespace::UserNamespace,
};
use shim::protocol::{Device, Mount, Start, propagation};
use std::{
    ffi::{CStr, CString},
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

const LINKS: Resolve = Resolve { no_links: false };
const NO_LINKS: Resolve = Resolve { no_links: true };

const NOSUID_NODEV_NOEXEC: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// A root that is not yet `/`, and its own /dev/null.
pub(crate) struct Assembled {
    root: OwnedFd,
    null: OwnedFd,
}

/// Layers, system directories, volumes and devices below a root that is not yet `/`.
pub(crate) fn assemble(
    start: &Start,
    pod: &Path,
    host_ipc: bool,
    users: Option<&UserNamespace>,
    sources: &[OwnedFd],
) -> Result<Assembled> {
    let mut layers = Layers::new(start, users)?;
    let root = layers.root(start)?;
    let root_fd = root.as_fd();
    mount_system(root_fd, start, pod, host_ipc, users)?;
    // Before a volume can cover it: what is masked with it must not be open because there is no such device.
    let null = sys::open_in(root_fd, "/dev/null", libc::O_PATH, NO_LINKS)
        .map_err(|error| failure("open /dev/null", &error))?;
    let mut sources = sources.iter();
    for mount in &start.mounts {
        let mounted = match (mount.layers.is_empty(), sources.as_slice()) {
            (false, _) => mount_image(root_fd, mount, &mut layers),
            (true, []) => Err(Failure("it came without a source".into())),
            (true, [source, ..]) => {
                sources.next();
                mount_volume(root_fd, mount, source.as_fd(), users)
            }
        };
        let on = |cause: Failure| format!("mount a volume on {}: {}", mount.target, cause.0);
        mounted.map_err(|cause| Failure(on(cause)))?;
    }
    for device in &start.devices {
        make_device(root_fd, device, users)?;
    }
    Ok(Assembled { root, null })
}

fn mount_system(
    root: BorrowedFd<'_>,
    start: &Start,
    pod: &Path,
    host_ipc: bool,
    users: Option<&UserNamespace>,
) -> Result<()> {
    let system = |path: &str, kind: &CStr, flags: libc::c_ulong, data: &CStr| -> Result<()> {
        // A link here would put the protected paths somewhere else.
        let target = target(root, path, true, NO_LINKS)?;
        sys::mount(Some(kind), &descriptor_path(&target), Some(kind), flags, Some(data)).map_err(
            |error| failure(format_args!("mount {} on {path}", kind.to_string_lossy()), &error),
        )
    };
    let readonly = if start.writable_system { 0 } else { libc::MS_RDONLY };
    system("/proc", c"proc", NOSUID_NODEV_NOEXEC, c"")?;
    system("/dev", c"tmpfs", libc::MS_NOSUID | libc::MS_STRICTATIME, c"mode=755,size=65536k")?;
    let group = on_host(users, TERMINAL_GROUP);
    let terminals = c_string(&format!("newinstance,ptmxmode=0666,mode=0620,gid={group}"))?;
    system("/dev/pts", c"devpts", libc::MS_NOSUID | libc::MS_NOEXEC, &terminals)?;
    system("/dev/mqueue", c"mqueue", NOSUID_NODEV_NOEXEC, c"")?;
    system("/sys", c"sysfs", NOSUID_NODEV_NOEXEC | readonly, c"")?;
    let shared_memory = if host_ipc { Path::new("/dev/shm").to_owned() } else { pod.join("shm") };
    bind(root, &shared_memory.to_string_lossy(), "/dev/shm", MountAttributes::default())?;
    mount_cgroups(root, start)?;
    make_default_devices(root, users)
}

/// `tty`, in every distribution.
const TERMINAL_GROUP: u32 = 5;

/// A user or group of the container as the host numbers it.
fn on_host(users: Option<&UserNamespace>, id: u32) -> u32 {
    users.map_or(id, |it| it.on_host(id))
}

/// The container's own control groups. On v1 every controller's directory is bound for itself: mounting `cgroup`
/// there ignores `ro`.
fn mount_cgroups(root: BorrowedFd<'_>, start: &Start) -> Result<()> {
    let base = "/sys/fs/cgroup";
    let protected = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let attributes = || MountAttributes {
        set: protected | if start.writable_system { 0 } else { libc::MS_RDONLY },
        ..MountAttributes::default()
    };
    if let [(name, directory)] = start.cgroup.views.as_slice()
        && name.is_empty()
    {
        return bind(root, directory, base, attributes());
    }
    let whole = target(root, base, true, NO_LINKS)?;
    sys::mount(
        Some(c"tmpfs"),
        &descriptor_path(&whole),
        Some(c"tmpfs"),
        NOSUID_NODEV_NOEXEC,
        Some(c"mode=755"),
    )
    .map_err(|error| failure(format_args!("mount tmpfs on {base}"), &error))?;
    for (name, directory) in &start.cgroup.views {
        bind(root, directory, &format!("{base}/{name}"), attributes())?;
    }
    Ok(())
}

/// Shows a directory of the host. MOUNT_ATTR_* have the values of MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC.
fn bind(root: BorrowedFd<'_>, source: &str, path: &str, attributes: MountAttributes) -> Result<()> {
    let tree = sys::clone_mount(&c_string(source)?)?;
    sys::set_mount(tree.as_fd(), true, &attributes)?;
    let target = target(root, path, true, NO_LINKS)?;
    sys::attach_mount(tree.as_fd(), target.as_fd())
        .map_err(|error| failure(format_args!("show {source} on {path}"), &error))
}

/// An image, or a part of it, to be looked at.
fn mount_image(root: BorrowedFd<'_>, mount: &Mount, layers: &mut Layers<'_>) -> Result<()> {
    let image = layers.image(&mount.layers)?;
    let part = match mount.sub_path.as_str() {
        "" => image,
        path => sys::open_in(image.as_fd(), path, libc::O_PATH, LINKS)
            .map_err(|error| failure(format_args!("open {path} in the image"), &error))?,
    };
    let tree = sys::clone_part(part.as_fd())?;
    let attributes = MountAttributes {
        set: libc::MS_RDONLY,
        propagation: libc::MS_PRIVATE,
        ..MountAttributes::default()
    };
    sys::set_mount(tree.as_fd(), true, &attributes)?;
    let target = target(root, &mount.target, sys::is_directory(part.as_fd())?, LINKS)?;
    sys::attach_mount(tree.as_fd(), target.as_fd()).map_err(|error| failure("attach it", &error))
}

fn mount_volume(
    root: BorrowedFd<'_>,
    mount: &Mount,
    source: BorrowedFd<'_>,
    users: Option<&UserNamespace>,
) -> Result<()> {
    let flag = |wanted: bool, flag: libc::c_ulong| if wanted { flag } else { 0 };
    let own = flag(mount.readonly, libc::MS_RDONLY)
        | flag(mount.no_suid, libc::MS_NOSUID)
        | flag(mount.no_device, libc::MS_NODEV)
        | flag(mount.no_exec, libc::MS_NOEXEC);
    let spread = match mount.propagation {
        propagation::BIDIRECTIONAL => libc::MS_SHARED,
        propagation::HOST_TO_CONTAINER => libc::MS_SLAVE,
        _ => libc::MS_PRIVATE,
    };
    sys::set_mount(
        source,
        true,
        &MountAttributes { propagation: spread, ..MountAttributes::default() },
    )?;
    if let Some(users) = users {
        users.map(source, true)?;
    }
    if own != 0 {
        let attributes = MountAttributes { set: own, ..MountAttributes::default() };
        sys::set_mount(source, mount.recursive_readonly, &attributes)?;
    }
    let target = target(root, &mount.target, mount.directory, LINKS)?;
    sys::attach_mount(source, target.as_fd()).map_err(|error| failure("attach it", &error))
}

/// Opens a mount point, making what is missing of it.
fn target(root: BorrowedFd<'_>, path: &str, directory: bool, resolve: Resolve) -> Result<OwnedFd> {
    let attempted = || format!("open {path} in the container's root");
    match sys::open_in(root, path, libc::O_PATH, resolve) {
        Ok(found) => return Ok(found),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        Err(error) => return Err(failure(attempted(), &error)),
    }
    let trimmed = path.trim_end_matches('/');
    let Some((parent, name)) = trimmed.rsplit_once('/') else {
        return Err(Failure(format!("{path:?} is not an absolute path")));
    };
    let parent = target(root, if parent.is_empty() { "/" } else { parent }, true, resolve)?;
    let name = c_string(name)?;
    // SAFETY: descriptor and name outlive the calls; the new file is closed at once.
    unsafe {
        if directory {
            check(
                format_args!("make directory {path}"),
                libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o755),
            )?;
        } else {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
            let made = libc::openat(parent.as_raw_fd(), name.as_ptr(), flags, 0o644);
            libc::close(check(format_args!("make file {path}"), made)?);
        }
    }
    sys::open_in(root, path, libc::O_PATH, resolve).map_err(|error| failure(attempted(), &error))
}

const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const DEVICE_LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"/proc/kcore", c"core"),
    (c"pts/ptmx", c"ptmx"),
];

fn make_default_devices(root: BorrowedFd<'_>, users: Option<&UserNamespace>) -> Result<()> {
    for (name, major, minor) in DEFAULT_DEVICES {
        let path = format!("/dev/{name}");
        let device = Device { path, major, minor, mode: 0o666, ..Device::default() };
        make_device(root, &device, users)?;
    }
    let directory = target(root, "/dev", true, NO_LINKS)?;
    for (leads_to, name) in DEVICE_LINKS {
        // SAFETY: both names are constants and the descriptor is open.
        let result =
            unsafe { libc::symlinkat(leads_to.as_ptr(), directory.as_raw_fd(), name.as_ptr()) };
        check(format_args!("link /dev/{}", name.to_string_lossy()), result)?;
    }
    Ok(())
}

fn make_device(root: BorrowedFd<'_>, device: &Device, users: Option<&UserNamespace>) -> Result<()> {
    let Some((parent, name)) = device.path.rsplit_once('/') else {
        return Err(Failure(format!("device path {:?} is not absolute", device.path)));
    };
    let parent = target(root, if parent.is_empty() { "/" } else { parent }, true, LINKS)?;
    let name = c_string(name)?;
    let kind = if device.block { libc::S_IFBLK } else { libc::S_IFCHR };
    let attempted = format!("make device {}", device.path);
    // SAFETY: descriptor and name outlive the calls.
    unsafe {
        let previous = libc::umask(0);
        let number = libc::makedev(device.major, device.minor);
        let made = libc::mknodat(parent.as_raw_fd(), name.as_ptr(), kind | device.mode, number);
        let error = io::Error::last_os_error();
        libc::umask(previous);
        if made < 0 && error.raw_os_error() == Some(libc::EEXIST) {
            return Ok(());
        }
        if made < 0 {
            return Err(failure(attempted, &error));
        }
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        let (uid, gid) = (on_host(users, device.uid), on_host(users, device.gid));
        check(attempted, libc::fchownat(parent.as_raw_fd(), name.as_ptr(), uid, gid, flags))
            .map(drop)
    }
}

/// Makes the assembled root `/` and protects what a container must not see or change. Afterwards the working
/// directory of the process is `/`.
pub(crate) fn enter(assembled: &Assembled, start: &Start) -> Result<()> {
    // SAFETY: the descriptor is open.
    check("enter the container's root", unsafe { libc::fchdir(assembled.root.as_raw_fd()) })?;
    sys::pivot_root_here()?;
    // The shim made them slaves of the host's, so this reaches nobody else.
    // SAFETY: a constant path.
    check("let go of the host's mounts", unsafe {
        libc::umount2(c".".as_ptr(), libc::MNT_DETACH)
    })?;
    std::env::set_current_dir("/").map_err(|error| failure("change to /", &error))?;
    make_working_directory(&start.process.directory)?;
    for path in &start.readonly_paths {
        make_readonly(path)?;
    }
    for path in &start.masked_paths {
        mask(path, assembled.null.as_fd())?;
    }
    if start.readonly_root {
        let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
        sys::mount(None, c"/", None, flags, None)
            .map_err(|error| failure("make the root read-only", &error))?;
    }
    Ok(())
}

fn make_working_directory(path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(path)
        .map_err(|error| failure(format_args!("make the working directory {path}"), &error))
}

fn make_readonly(path: &str) -> Result<()> {
    let name = c_string(path)?;
    let attempted = || format!("make {path} read-only");
    match sys::mount(Some(&name), &name, None, libc::MS_BIND | libc::MS_REC, None) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
        Err(error) => return Err(failure(attempted(), &error)),
    }
    let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | NOSUID_NODEV_NOEXEC;
    sys::mount(Some(&name), &name, None, flags, None).map_err(|error| failure(attempted(), &error))
}

fn mask(path: &str, null: BorrowedFd<'_>) -> Result<()> {
    let attempted = || format!("mask {path}");
    let hidden = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|error| failure(attempted(), &error))?,
    };
    let masked = if hidden.is_dir() {
        let (kind, flags) = (Some(c"tmpfs"), libc::MS_RDONLY);
        sys::mount(kind, &c_string(path)?, kind, flags, Some(c"size=0k"))
    } else {
        let target = sys::open(path, libc::O_PATH, 0)?;
        sys::attach_mount(sys::clone_part(null)?.as_fd(), target.as_fd())
    };
    masked.map_err(|error| failure(attempted(), &error))
}

/// The terminal as /dev/console, where programs expect it.
pub(crate) fn show_console(terminal: BorrowedFd<'_>) -> Result<()> {
    drop(sys::open("/dev/console", libc::O_CREAT | libc::O_WRONLY | libc::O_NOFOLLOW, 0o600)?);
    let source: CString = descriptor_path(terminal);
    sys::mount(Some(&source), c"/dev/console", None, libc::MS_BIND, None)
        .map_err(|error| failure("show the terminal as /dev/console", &error))
}
