//! Mounting a directory of an NFS server: what is mounted, with what, and by whom.
//!
//! Upstream: pkg/volume/nfs/nfs.go (1.36), SetUpAt; k8s.io/mount-utils, MakeMountArgs and its errors.

use super::userspace;
use crate::{
    Result, VolumeError,
    error::{Attempt, Failure},
    program::{self, Ended},
};
use std::{path::Path, time::Duration};

/// mount.nfs itself gives up after two minutes; a pod is told earlier, and tried again. One that is deleted meanwhile
/// waits for it, and is to go within a minute.
const MOUNT_MAX: Duration = Duration::from_secs(30);

/// `server:/path`, an IPv6 address in brackets.
pub(super) fn source(server: &str, path: &str) -> Result<String> {
    let unfit = |it: &str| it.is_empty() || it.contains(|c: char| c.is_control());
    if unfit(server) || server.starts_with('-') || server.contains(char::is_whitespace) {
        return Err(VolumeError::Invalid(format!("{server:?} is not the name of an NFS server")));
    }
    if unfit(path) || !path.starts_with('/') {
        return Err(VolumeError::Invalid(format!("NFS path {path:?}: must be absolute")));
    }
    Ok(match server.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{path}"),
        Err(_) => format!("{server}:{path}"),
    })
}

/// Options as mount(8) takes them, each once.
pub(super) fn joined<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let given = all.into_iter().flat_map(|it| it.split(',')).map(str::trim);
    for option in given.filter(|it| !it.is_empty()) {
        if !kept.contains(&option) {
            kept.push(option);
        }
    }
    kept.join(",")
}

/// By the kernel where it can; else in userspace. With `alone` a process in userspace ends with this one.
pub(super) fn mount_nfs(source: &str, target: &Path, options: &str, alone: bool) -> Attempt<()> {
    if !userspace::kernel_has_client() {
        if !userspace::is_possible() {
            return Err(Failure::new(
                "the kernel of this node has no NFS client (module nfs), and no FUSE for one in userspace (module fuse)",
            ));
        }
        let (host, path) = parts(source);
        return userspace::start(host, path, target, options, alone);
    }
    let text = target.to_string_lossy();
    let mut arguments = vec!["-t", "nfs"];
    if !options.is_empty() {
        arguments.extend(["-o", options]);
    }
    arguments.extend([source, &*text]);
    // mount(8) alone would complain about options: what is missing is this program.
    if !program::exists("mount.nfs") {
        return Err(Failure::new(
            "program mount.nfs is not installed on this node: install the package nfs-common",
        ));
    }
    let ended = program::run("mount", "mount", &arguments, MOUNT_MAX)?;
    match ended.code {
        Some(0) => Ok(()),
        _ => Err(refused(&arguments, &ended)),
    }
}

/// What a pod's user is told of a mount in userspace.
pub(super) fn in_userspace(options: &str) -> String {
    let mut text = "the kernel of this node has no NFS client (module nfs): mounted in userspace, \
                    with NFS version 3, and locks that other nodes do not see"
        .to_owned();
    if let Some(version) = userspace::other_version(options) {
        text.push_str(&format!("; instead of {version}"));
    }
    text
}

/// Host and path of a [`source`].
fn parts(source: &str) -> (&str, &str) {
    let bracketed = source.strip_prefix('[').and_then(|it| it.split_once("]:"));
    bracketed.or_else(|| source.split_once(':')).unwrap_or((source, "/"))
}

/// In upstream's words.
fn refused(arguments: &[&str], ended: &Ended) -> Failure {
    let status = match ended.code {
        Some(code) => format!("exit status {code}"),
        None => "killed".to_owned(),
    };
    Failure::new(format!(
        "mount failed: {status} Mounting command: mount Mounting arguments: {} Output: {}",
        arguments.join(" "),
        ended.output.replace('\n', " ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_names_and_addresses_of_both_families() {
        let of = |server: &str, path: &str| source(server, path).ok();
        assert_eq!(of("10.0.0.1", "/nfsdata").as_deref(), Some("10.0.0.1:/nfsdata"));
        assert_eq!(
            of("eu-west-1b.fs-64HJku4i.efs.eu-west-1.amazonaws.com", "/").as_deref(),
            Some("eu-west-1b.fs-64HJku4i.efs.eu-west-1.amazonaws.com:/")
        );
        assert_eq!(of("fd00::1", "/a b").as_deref(), Some("[fd00::1]:/a b"));
        for (server, path) in [("", "/a"), ("-o", "/a"), ("a b", "/a"), ("a", ""), ("a", "b")] {
            assert_eq!(of(server, path), None, "{server:?} {path:?}");
        }
    }

    #[test]
    fn a_source_has_its_parts_back() {
        assert_eq!(parts("s:/a:b"), ("s", "/a:b"));
        assert_eq!(parts("[fd00::1]:/a"), ("fd00::1", "/a"));
    }

    #[test]
    fn a_version_that_is_not_spoken_in_userspace_is_named() {
        for asked in ["nfsvers=4.1", "nfsvers=4.0", "vers=4", "v4.2", "v4"] {
            let text = in_userspace(&format!("hard,{asked},ro"));
            assert!(text.ends_with(&format!("; instead of {asked}")), "{text}");
        }
        for spoken in ["vers=3", "nfsvers=3", "v3", "hard", ""] {
            assert!(!in_userspace(spoken).contains("instead"), "{spoken}");
        }
    }

    #[test]
    fn a_failed_mount_is_told_with_its_command_line() {
        let arguments = ["-t", "nfs", "-o", "hard", "s:/x", "/target"];
        let ended = Ended { code: Some(32), output: "mount.nfs: access\ndenied".to_owned() };
        assert_eq!(
            refused(&arguments, &ended).to_string(),
            "mount failed: exit status 32 Mounting command: mount Mounting arguments: -t nfs -o hard s:/x /target Output: mount.nfs: access denied"
        );
    }
}
