//! What this machine can do, and what a cluster left on it.

use std::{fs, path::Path, process::Command};

/// What stories with pods need and this machine lacks.
pub(crate) fn lacks() -> Option<&'static str> {
    let owner = fs::metadata("/proc/self").map(|it| std::os::unix::fs::MetadataExt::uid(&it));
    if !owner.is_ok_and(|it| it == 0) {
        return Some("root");
    }
    let works = |words: &[&str]| {
        Command::new(words[0]).args(&words[1..]).output().is_ok_and(|it| it.status.success())
    };
    let overlay = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !works(&["kubectl", "version", "--client"]) {
        Some("kubectl")
    } else if !works(&["losetup", "--find"]) {
        Some("loop devices")
    } else if !overlay.contains("overlay") && !works(&["modprobe", "overlay"]) {
        Some("overlayfs")
    } else if !works(&["unshare", "--net", "true"]) {
        Some("network namespaces")
    } else {
        None
    }
}

/// Mounts below a directory, loop devices of files in it, and processes that run from it.
pub fn leftovers(directory: &Path) -> Vec<String> {
    let text = directory.to_string_lossy();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the table of mounts");
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut left: Vec<String> =
        mounts.filter(|point| point.starts_with(&*text)).map(|it| format!("mount {it}")).collect();
    for device in fs::read_dir("/sys/block").expect("block devices").flatten() {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if file.starts_with(&*text) {
            left.push(format!("{} of {}", device.file_name().to_string_lossy(), file.trim()));
        }
    }
    left
}

/// Process and start time (in ticks since boot) of the first process of a container, by its id.
pub fn process_of(container: &str) -> Option<(u32, u64)> {
    let id = container.rsplit('/').next().unwrap_or(container);
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|it| it.path());
    let mut found: Vec<(u64, u32)> = processes
        .filter_map(|process| {
            let number: u32 = process.file_name()?.to_str()?.parse().ok()?;
            let groups = fs::read_to_string(process.join("cgroup")).ok()?;
            groups.contains(id).then_some((started(&process)?, number))
        })
        .collect();
    found.sort_unstable();
    found.first().map(|(started, number)| (*number, *started))
}

/// Programs of ours that were started with a path of this directory, pods' own excepted.
pub(crate) fn processes_of(directory: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = |number: &u32| {
        let words = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        let server = |it: &str| matches!(it, "up" | "server" | "node");
        words.contains(directory) && words.split('\0').nth(1).is_some_and(server)
    };
    let numbers = processes.filter_map(|it| it.file_name().to_str()?.parse().ok());
    numbers.filter(ours).collect()
}

/// The 22nd field of `stat`, behind the name in brackets.
fn started(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}
