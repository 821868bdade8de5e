//! The machine: space, clock, programs and what the kernel can do.

use super::Finding;
use crate::config::Settings;
use anyhow::{Context, Result};
use std::{env, fs, path::Path};
use stdx::{Clock, SystemClock, Timestamp};

/// Below this the ledger takes no writes.
const SPACE_MIN: u64 = 32 << 20;

/// Nothing of this program is older: a clock that says so was never set.
const CLOCK_MIN: Timestamp = Timestamp::from_seconds(1_760_000_000);

/// Program, package of Debian, and what cannot be done without it. The first is needed by the default class.
const PROGRAMS: [(&str, &str, &str); 9] = [
    ("mkfs.ext4", "e2fsprogs", "make volumes of class local"),
    ("resize2fs", "e2fsprogs", "grow volumes of class local"),
    ("mkfs.xfs", "xfsprogs", "make volumes with xfs"),
    ("xfs_growfs", "xfsprogs", "grow volumes with xfs"),
    ("mkfs.btrfs", "btrfs-progs", "make volumes with btrfs"),
    ("mount.nfs", "nfs-common", "mount volumes of type nfs"),
    ("mount.cifs", "cifs-utils", "mount volumes of type azureFile"),
    ("iscsiadm", "open-iscsi", "attach volumes of type iscsi"),
    ("rbd", "ceph-common", "attach volumes of type rbd"),
];
const NEEDED: usize = 2;

pub(super) fn check(settings: &Settings) -> Result<Vec<Finding>> {
    let mut findings = vec![space(&settings.data_dir)?];
    let now = SystemClock.now();
    if now < CLOCK_MIN {
        findings.push(Finding::wrong(format!("the clock says {now}"), "set the clock"));
    }
    for (at, (program, package, what)) in PROGRAMS.into_iter().enumerate() {
        if installed(program) {
            continue;
        }
        let missing = format!("{program} is not installed: this node cannot {what}");
        let remedy = format!("apt-get install {package}");
        findings.push(match at < NEEDED {
            true => Finding::wrong(missing, remedy),
            false => Finding::Note(format!("{missing} ({remedy})")),
        });
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|it| it.ends_with("\toverlay")) {
        findings.push(Finding::wrong("the kernel has no overlay filesystem", "modprobe overlay"));
    }
    if !Path::new("/dev/loop-control").exists() {
        findings.push(Finding::wrong("the kernel has no loop devices", "modprobe loop"));
    }
    if !rustix::process::geteuid().is_root() {
        findings.push(Finding::Note("looked at as a user: a node needs root".to_owned()));
    }
    Ok(findings)
}

fn space(dir: &Path) -> Result<Finding> {
    let stat = rustix::fs::statvfs(dir).with_context(|| format!("look at {}", dir.display()))?;
    let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    let said = format!("{} MiB of {} MiB are free on {}", free >> 20, total >> 20, dir.display());
    let remedy =
        "make room: remove unused images (stanchion image rm) and volumes (kubectl delete pvc)";
    if free < SPACE_MIN {
        return Ok(Finding::wrong(format!("{said}: writes are refused"), remedy));
    }
    if stat.f_files > 0 && stat.f_favail == 0 {
        return Ok(Finding::wrong(format!("no inodes are free on {}", dir.display()), remedy));
    }
    if free < total / 10 && free < 2 << 30 {
        return Ok(Finding::Note(format!("{said}: the node has disk pressure")));
    }
    Ok(Finding::Fine(said))
}

fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into);
    env::split_paths(&path).chain(usual).any(|it| it.join(program).is_file())
}
