//! From what the interface asks for to what a shim is told.
//!
//! Upstream: containerd's CRI plugin, for the defaults that pods rely on.

use crate::{
    capability::Capabilities,
    container::{Container, security},
    error::{Attempt, Error, Result},
    sandbox::Sandbox,
};
use rpc::cri::{
    self, ContainerConfig, LinuxContainerSecurityContext, MountPropagation, NamespaceMode,
    SupplementalGroupsPolicy,
};
use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};
use shim::{
    frame,
    protocol::{Device, Mount, PidNamespace, Process, Setup, Start, User, VERSION, propagation},
};
use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

/// Hidden from containers, as every runtime does: they tell of or change the host.
const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The pod's namespaces, as its shim shall make them.
pub(crate) fn setup(sandbox: &Sandbox, cgroup_procs: Vec<String>) -> Setup {
    let mut sysctls: Vec<(String, String)> = Vec::new();
    if !sandbox.host_network() {
        // Inside the pod's own network, ports and ping need no privilege.
        sysctls.push(("net.ipv4.ip_unprivileged_port_start".into(), "0".into()));
        sysctls.push(("net.ipv4.ping_group_range".into(), "0 2147483647".into()));
    }
    let wanted = sandbox.config.linux.iter().flat_map(|linux| &linux.sysctls);
    sysctls.extend(wanted.map(|(name, value)| (name.clone(), value.clone())));
    Setup {
        version: VERSION,
        directory: sandbox.directory.to_string_lossy().into_owned(),
        hostname: hostname(sandbox),
        host_network: sandbox.host_network(),
        host_ipc: sandbox.host_ipc(),
        share_pid: sandbox.namespaces().pid() == NamespaceMode::Pod,
        sysctls,
        cgroup_procs,
    }
}

fn hostname(sandbox: &Sandbox) -> String {
    if !sandbox.config.hostname.is_empty() {
        return sandbox.config.hostname.clone();
    }
    if sandbox.host_network() {
        return rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    // A host name has at most 63 bytes.
    let name = sandbox.config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    name.chars().take(63).collect()
}

/// The files that every container of the pod sees in /etc.
pub(crate) fn write_files(sandbox: &Sandbox) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = sandbox.directory.join(name);
        fs::write(&path, text).attempt(|| format!("write {}", path.display()))
    };
    let hostname = hostname(sandbox);
    let addresses = sandbox.hold().addresses.clone();
    let mut hosts =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for address in addresses {
        hosts.push_str(&format!("{address}\t{hostname}\n"));
    }
    write("hosts", hosts)?;
    write("hostname", format!("{hostname}\n"))?;
    write("resolv.conf", resolv_conf(sandbox))
}

fn resolv_conf(sandbox: &Sandbox) -> String {
    let Some(dns) = &sandbox.config.dns_config else {
        return fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

/// Refuses what this runtime cannot do, before anything is made.
pub(crate) fn check_sandbox(config: &cri::PodSandboxConfig) -> Result<()> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    if let Some(options) = options
        && options.userns_options.as_ref().is_some_and(|own| own.mode() == NamespaceMode::Pod)
    {
        return Err(Error::Invalid("user namespaces are not supported by this runtime".into()));
    }
    Ok(())
}

pub(crate) fn check_container(config: &ContainerConfig) -> Result<()> {
    if let Some(mount) = config.mounts.iter().find(|mount| mount.image.is_some()) {
        let path = &mount.container_path;
        return Err(Error::Invalid(format!(
            "image volume on {path}: not supported by this runtime"
        )));
    }
    if let Some(mount) = config.mounts.iter().find(|mount| !mount.container_path.starts_with('/')) {
        return Err(Error::Invalid(format!(
            "mount path {:?} is not absolute",
            mount.container_path
        )));
    }
    user(&security(config), "").map(drop)
}

/// The command and what the image says about it, as upstream combines them.
pub(crate) fn arguments(
    config: &ContainerConfig,
    image: &crate::image::ImageConfig,
) -> Result<Vec<String>> {
    let (entrypoint, default) = if config.command.is_empty() {
        (&image.entrypoint, &image.cmd)
    } else {
        // A command of one's own makes the image's arguments meaningless.
        (&config.command, &Vec::new())
    };
    let arguments = if config.args.is_empty() { default } else { &config.args };
    let all: Vec<String> = entrypoint.iter().chain(arguments).cloned().collect();
    if all.is_empty() {
        return Err(Error::Invalid("no command specified".into()));
    }
    Ok(all)
}

pub(crate) fn environment(
    config: &ContainerConfig,
    image: &[String],
    sandbox: &Sandbox,
) -> Vec<String> {
    let mut all = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", hostname(sandbox))];
    if config.tty {
        all.push("TERM=xterm".to_owned());
    }
    let own = config
        .envs
        .iter()
        .map(|env| format!("{}={}", env.key, String::from_utf8_lossy(&env.value)));
    for entry in image.iter().cloned().chain(own) {
        let name = entry.split('=').next().unwrap_or_default().to_owned() + "=";
        match all.iter_mut().find(|earlier| earlier.starts_with(&name)) {
            Some(earlier) => *earlier = entry,
            None => all.push(entry),
        }
    }
    all
}

fn user(security: &LinuxContainerSecurityContext, image_user: &str) -> Result<User> {
    let number = |value: i64, what: &str| {
        u32::try_from(value).map_err(|_| Error::Invalid(format!("{what} {value} is out of range")))
    };
    let uid = security.run_as_user.map(|user| number(user.value, "user")).transpose()?;
    let gid = security.run_as_group.map(|group| number(group.value, "group")).transpose()?;
    let name =
        if security.run_as_username.is_empty() { image_user } else { &security.run_as_username };
    // A node passes on the number that an image names; the group that stands beside it is meant as well.
    let is_of_image = image_user.split(':').next().and_then(|user| user.parse().ok()) == uid;
    Ok(User {
        uid: uid.filter(|_| !is_of_image || gid.is_some()),
        gid,
        name: name.to_owned(),
        groups: groups(security)?,
        only_these_groups: security.supplemental_groups_policy()
            == SupplementalGroupsPolicy::Strict,
    })
}

fn groups(security: &LinuxContainerSecurityContext) -> Result<Vec<u32>> {
    let number = |gid: &i64| {
        u32::try_from(*gid).map_err(|_| Error::Invalid(format!("group {gid} is out of range")))
    };
    security.supplemental_groups.iter().map(number).collect()
}

/// A process of the container: its first one, or with other arguments and terminal a later one.
pub(crate) fn process(
    container: &Container,
    arguments: Vec<String>,
    terminal: bool,
    seccomp: Vec<Vec<u8>>,
) -> Result<Process> {
    let security = security(&container.config);
    let change = security.capabilities.clone().unwrap_or_default();
    let mut environment = container.record.environment.clone();
    if terminal && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
        environment.push("TERM=xterm".to_owned());
    }
    Ok(Process {
        arguments,
        environment,
        directory: container.record.directory.clone(),
        user: user(&security, &container.record.user)?,
        capabilities: container.capabilities.0,
        ambient_capabilities: Capabilities::of(&change.add_ambient_capabilities)?.0,
        no_new_privileges: security.no_new_privs,
        seccomp,
        terminal,
    })
}

/// Everything for the shim, and the sources of the mounts in order.
pub(crate) fn start(
    container: &Container,
    cgroup: shim::protocol::Cgroup,
    seccomp: Vec<Vec<u8>>,
) -> Result<(Start, Vec<OwnedFd>)> {
    let config = &container.config;
    let security = security(config);
    let sandbox = &container.sandbox;
    let mut mounts = pod_files(sandbox, config, security.readonly_rootfs);
    mounts.extend(config.mounts.iter().cloned());
    // What lies below something comes after it.
    mounts.sort_by_key(|mount| Path::new(&mount.container_path).components().count());
    if mounts.len() > frame::DESCRIPTORS_MAX {
        let (count, most) = (mounts.len(), frame::DESCRIPTORS_MAX);
        return Err(Error::Invalid(format!(
            "{count} mounts in one container; at most {most} are possible"
        )));
    }
    let sources = mounts.iter().map(source).collect::<Result<Vec<_>>>()?;
    let (masked_paths, readonly_paths) = protected_paths(&security);
    let options = security.namespace_options.clone().unwrap_or_default();
    let pid_namespace = PidNamespace {
        host: options.pid() == NamespaceMode::Node,
        pod: options.pid() == NamespaceMode::Pod
            && sandbox.namespaces().pid() == NamespaceMode::Pod,
        container: if options.pid() == NamespaceMode::Target {
            options.target_id.clone()
        } else {
            String::new()
        },
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let start = Start {
        container: container.id.clone(),
        directory: text(&container.directory),
        layers: container.record.layers.clone(),
        process: process(container, container.record.arguments.clone(), config.tty, seccomp)?,
        mounts: mounts.iter().map(mount).collect::<Result<_>>()?,
        devices: devices(config, security.privileged)?,
        masked_paths,
        readonly_paths,
        readonly_root: security.readonly_rootfs,
        writable_system: security.privileged,
        pid_namespace,
        cgroup,
        oom_score_adjust: i32::try_from(container.resources().oom_score_adj)
            .unwrap_or(0)
            .clamp(-1000, 1000),
        log: container.log_path(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
    };
    Ok((start, sources))
}

fn pod_files(sandbox: &Sandbox, config: &ContainerConfig, readonly: bool) -> Vec<cri::Mount> {
    let files = [
        ("/etc/hosts", "hosts"),
        ("/etc/hostname", "hostname"),
        ("/etc/resolv.conf", "resolv.conf"),
    ];
    let own = |path: &str| config.mounts.iter().any(|mount| mount.container_path == path);
    let mount = |(path, file): (&str, &str)| cri::Mount {
        container_path: path.to_owned(),
        host_path: sandbox.directory.join(file).to_string_lossy().into_owned(),
        readonly,
        ..cri::Mount::default()
    };
    files.into_iter().filter(|(path, _)| !own(path)).map(mount).collect()
}

/// Cloned here, in the host's mount namespace: so a mount can pass what happens on it in both directions.
fn source(mount: &cri::Mount) -> Result<OwnedFd> {
    let path = Path::new(&mount.host_path);
    if !path.exists() {
        fs::create_dir_all(path)
            .attempt(|| format!("make the missing directory {}", path.display()))?;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).attempt(|| format!("open {} to mount it", path.display()))
}

fn mount(mount: &cri::Mount) -> Result<Mount> {
    let path = &mount.host_path;
    let metadata = fs::metadata(path).attempt(|| format!("look at {path} to mount it"))?;
    Ok(Mount {
        target: mount.container_path.clone(),
        directory: metadata.is_dir(),
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        propagation: match mount.propagation() {
            MountPropagation::PropagationPrivate => propagation::PRIVATE,
            MountPropagation::PropagationHostToContainer => propagation::HOST_TO_CONTAINER,
            MountPropagation::PropagationBidirectional => propagation::BIDIRECTIONAL,
        },
        ..Mount::default()
    })
}

/// What the node asks to hide. A node that asks for nothing gets the usual protection.
fn protected_paths(security: &LinuxContainerSecurityContext) -> (Vec<String>, Vec<String>) {
    let own = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    if security.privileged {
        (Vec::new(), Vec::new())
    } else if security.masked_paths.is_empty() && security.readonly_paths.is_empty() {
        (own(&MASKED_PATHS), own(&READONLY_PATHS))
    } else {
        (security.masked_paths.clone(), security.readonly_paths.clone())
    }
}

fn devices(config: &ContainerConfig, privileged: bool) -> Result<Vec<Device>> {
    let mut found = Vec::new();
    if privileged {
        collect_devices(Path::new("/dev"), Path::new("/dev"), &mut found);
    }
    for device in &config.devices {
        let source = Path::new(&device.host_path);
        let metadata =
            fs::metadata(source).attempt(|| format!("look at the device {}", source.display()))?;
        if metadata.is_dir() {
            collect_devices(source, Path::new(&device.container_path), &mut found);
        } else if metadata.file_type().is_block_device() || metadata.file_type().is_char_device() {
            found.push(describe_device(&metadata, &device.container_path));
        } else {
            return Err(Error::Invalid(format!("{} is not a device", source.display())));
        }
    }
    Ok(found)
}

/// Directories of /dev that a container has of its own.
const OWN_DEVICES: [&str; 6] = ["pts", "shm", "mqueue", "fd", "console", "ptmx"];

fn collect_devices(directory: &Path, shown_as: &Path, found: &mut Vec<Device>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if OWN_DEVICES.iter().any(|own| name == *own) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        let shown_as = shown_as.join(&name);
        if metadata.is_dir() {
            collect_devices(&entry.path(), &shown_as, found);
        } else if metadata.file_type().is_block_device() || metadata.file_type().is_char_device() {
            found.push(describe_device(&metadata, &shown_as.to_string_lossy()));
        }
    }
}

fn describe_device(metadata: &fs::Metadata, path: &str) -> Device {
    Device {
        path: path.to_owned(),
        block: metadata.file_type().is_block_device(),
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }
}

/// Which devices its control group lets it open beyond the usual ones.
pub(crate) fn device_rules(config: &ContainerConfig) -> Result<Vec<crate::cgroup::Rule>> {
    let rule = |device: &Device| crate::cgroup::Rule {
        block: device.block,
        major: Some(device.major),
        minor: Some(device.minor),
        read_write: true,
        make: true,
    };
    Ok(devices(config, false)?.iter().map(rule).collect())
}
