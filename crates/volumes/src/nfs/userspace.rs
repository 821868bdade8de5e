//! A mount for kernels without an NFS client: this same program, one process a mount, between FUSE and the server.
//!
//! It speaks version 3 over TCP. Locks are the node's own. It lives as long as its mount: containers keep their data while
//! the server of the cluster is restarted. The kernel's client is always preferred; who gets this one is told so.

mod connection;
#[cfg(test)]
mod fake_server;
mod filesystem;
mod nodes;
mod words;

use crate::{
    error::{Attempt, Attempted, Failure},
    mount, program,
};
use connection::{Connections, Server};
use filesystem::Share;
use fuser::{MountOption, Session, SessionACL};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};
use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// The subcommand that is one mount.
pub const COMMAND: &str = "nfs-mount";
/// As the mount table calls it.
const FS_TYPE: &str = "fuse";
/// What [`run`] says once it serves; everything else is an error.
const SERVES: &str = "serves";
/// Until then: as long as the kernel's client has.
const MOUNT_MAX: Duration = Duration::from_secs(30);
/// One call, unless `timeo` says otherwise.
const CALL_MAX: Duration = Duration::from_secs(60);

/// Whether the kernel can mount NFS itself; asks for its module where that is not there yet.
pub(super) fn kernel_has_client() -> bool {
    let has = || {
        let all = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        all.split_whitespace().any(|it| it == "nfs" || it == "nfs4")
    };
    if has() {
        return true;
    }
    // Whatever it answers: what counts is the table.
    let _asked = program::run("modprobe", "kmod", &["-q", "nfs"], Duration::from_secs(10));
    has()
}

pub(super) fn is_possible() -> bool {
    let all = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    all.split_whitespace().any(|it| it == "fuse") && Path::new("/dev/fuse").exists()
}

/// Whether what is mounted there is served by such a process.
pub(super) fn is_mounted(target: &Path) -> bool {
    mount::mounted_at(target).ok().flatten().is_some_and(|it| it.fs_type == FS_TYPE)
}

/// The version of NFS that is asked for, in the option's own words, where it is another than the one that is spoken here.
pub(super) fn other_version(options: &str) -> Option<&str> {
    options.split(',').find(|it| {
        let named = it.strip_prefix("nfsvers=").or_else(|| it.strip_prefix("vers="));
        match named.or_else(|| it.strip_prefix('v').filter(|it| it.starts_with(['2', '3', '4']))) {
            Some(version) => version != "3",
            None => false,
        }
    })
}

/// Starts the process of a mount and waits until it serves. With `alone` it ends with its caller.
pub(super) fn start(
    host: &str,
    path: &str,
    target: &Path,
    options: &str,
    alone: bool,
) -> Attempt<()> {
    let attempt = || format!("mount {host}:{path} in userspace ({options:?})");
    program::expect_children();
    let mut command = Command::new("/proc/self/exe");
    command.arg0("stanchion");
    command.args([COMMAND, host, path]).arg(target).arg(options);
    command.arg(if alone { "alone" } else { "" });
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    command.env("PATH", program::search_path());
    let mut child = command.spawn().attempted(attempt)?;
    let mut pipe = child.stdout.take().ok_or_else(|| Failure::new(attempt()))?;
    let limit =
        Timespec { tv_sec: i64::try_from(MOUNT_MAX.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&pipe.as_fd(), PollFlags::IN)], Some(&limit));
    let mut said = String::new();
    let answered = matches!(ready, Ok(1..)) && pipe.read_to_string(&mut said).is_ok();
    if answered && said.trim() == SERVES {
        // Somebody has to take note of its end.
        let waits = std::thread::Builder::new().name("nfs-mount".to_owned());
        waits.spawn(move || child.wait()).attempted(attempt)?;
        return Ok(());
    }
    // Whatever became of it: nothing of it is to be left.
    let _gone = child.kill();
    let status = child.wait().attempted(attempt)?;
    let why = match said.trim() {
        "" if status.signal().is_some() => {
            format!("the server did not answer within {} s", MOUNT_MAX.as_secs())
        }
        "" => format!("the process of the mount ended: {status}"),
        said => said.to_owned(),
    };
    let instead = other_version(options)
        .map(|it| format!(" (only NFS version 3 is spoken in userspace, instead of {it})"));
    Err(Failure::new(format!("{}: {why}{}", attempt(), instead.unwrap_or_default())))
}

/// The process of a mount: serves until it is unmounted. The code to end with.
pub fn run(host: &str, path: &str, target: &Path, options: &str, alone: bool) -> u8 {
    match serve(host, path, target, options, alone) {
        Ok(()) => 0,
        Err(error) => {
            println!("{}", stdx::one_line(&error));
            1
        }
    }
}

fn serve(host: &str, path: &str, target: &Path, options: &str, alone: bool) -> Attempt<()> {
    if alone {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .attempted(|| "ask to end with the caller".to_owned())?;
    } else {
        // Not the session of a terminal that ends.
        let _leader = rustix::process::setsid();
    }
    let wanted = Options::parse(options)?;
    let server = Server {
        host: host.to_owned(),
        path: path.to_owned(),
        port: wanted.port,
        mount_port: wanted.mount_port,
        timeout: wanted.timeout,
        // The first answer is waited for by the caller, who has a limit.
        tries: wanted.tries,
    };
    let (connections, root) =
        Connections::open(server, target).attempted(|| format!("ask {host} for {path}"))?;
    let mut config = fuser::Config::default();
    config.acl = SessionACL::All;
    config.mount_options =
        vec![MountOption::FSName(format!("{host}:{path}")), MountOption::Subtype("nfs".to_owned())];
    config.mount_options.extend(wanted.flags);
    let session = Session::new(Share::new(connections, root), target, &config)
        .attempted(|| format!("mount at {}", target.display()))?;
    println!("{SERVES}");
    let told = || -> io::Result<()> {
        io::stdout().flush()?;
        // The caller reads to the end.
        let null = std::fs::File::options().write(true).open("/dev/null")?;
        // SAFETY: both descriptors are open, and nobody else writes to the second one meanwhile.
        match unsafe { libc::dup2(null.as_raw_fd(), libc::STDOUT_FILENO) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    told().attempted(|| "say that the mount serves".to_owned())?;
    session.run().attempted(|| format!("serve {}", target.display()))
}

/// What of mount.nfs's options has a meaning here.
#[derive(Debug)]
struct Options {
    port: Option<u16>,
    mount_port: Option<u16>,
    timeout: Duration,
    tries: Option<u32>,
    flags: Vec<MountOption>,
}

impl Options {
    fn parse(text: &str) -> Attempt<Options> {
        let mut found = Options {
            port: None,
            mount_port: None,
            timeout: CALL_MAX,
            tries: None,
            flags: Vec::new(),
        };
        let mut retrans = 3;
        let mut is_soft = false;
        for option in text.split(',').filter(|it| !it.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let number = || {
                let read = value.parse::<u32>();
                read.attempted(|| format!("mount option {option}: {value:?} is not a number"))
            };
            let port = |number: u32| {
                u16::try_from(number).attempted(|| format!("mount option {option}: no such port"))
            };
            match name {
                "hard" => is_soft = false,
                "soft" | "softerr" => is_soft = true,
                // Tenths of a second.
                "timeo" => found.timeout = Duration::from_millis(100 * u64::from(number()?.max(1))),
                "retrans" => retrans = number()?,
                "port" => found.port = Some(port(number()?)?),
                "mountport" => found.mount_port = Some(port(number()?)?),
                "ro" => found.flags.push(MountOption::RO),
                "noexec" => found.flags.push(MountOption::NoExec),
                "noatime" => found.flags.push(MountOption::NoAtime),
                // True here, of no meaning here, or about a version that is not spoken here: the user is told of that.
                "v2" | "v3" | "v4" | "v4.0" | "v4.1" | "v4.2" | "rw" | "tcp" | "proto"
                | "mountproto" | "vers" | "nfsvers" | "mountvers" | "minorversion" | "sec"
                | "nolock" | "lock" | "local_lock" | "rsize" | "wsize" | "intr" | "nointr"
                | "bg" | "fg" | "retry" | "relatime" | "atime" | "sync" | "async" | "ac"
                | "noac" | "actimeo" | "acregmin" | "acregmax" | "acdirmin" | "acdirmax"
                | "cto" | "nocto" | "noresvport" | "resvport" | "addr" | "clientaddr"
                | "mountaddr" | "nconnect" | "lookupcache" | "noacl" | "acl" | "rdirplus"
                | "nordirplus" | "sharecache" | "nosharecache" | "fsc" | "nofsc" | "defaults"
                | "_netdev" | "auto" | "noauto" | "nofail" | "diratime" | "nodiratime"
                | "nodev" | "dev" | "exec" | "nosuid" | "suid" => {}
                _ => {
                    return Err(Failure::new(format!(
                        "mount option {option} is not known to the userspace client"
                    )));
                }
            }
        }
        found.tries = is_soft.then_some(retrans.max(1));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_mount_nfs_are_understood_and_others_refused() {
        let found = Options::parse("hard,nfsvers=4.1,ro,soft,timeo=100,port=2049").unwrap();
        assert_eq!((found.tries, found.port), (Some(3), Some(2049)));
        assert_eq!(found.timeout, Duration::from_secs(10));
        assert_eq!(found.flags, [MountOption::RO]);
        assert_eq!(Options::parse("").unwrap().tries, None);
        for text in ["harder", "port=x", "port=70000", "timeo="] {
            assert!(Options::parse(text).is_err(), "{text}");
        }
    }
}
