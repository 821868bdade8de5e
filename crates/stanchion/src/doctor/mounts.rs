//! Mounts below the kubelet's directory and loop devices of our images: each belongs to a pod that this node has.

use super::Finding;
use crate::config::Settings;
use anyhow::{Context, Result};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};
use volumes::mount::{MountEntry, mounts, mounts_below};

pub(super) fn check(settings: &Settings) -> Result<Vec<Finding>> {
    let records = records(&settings.data_dir.join("node/mounts"));
    let below = mounts_below(&settings.kubelet_dir).context("read the mounts")?;
    let mut findings: Vec<Finding> = below
        .iter()
        .filter(|it| !explained(it, &records))
        .map(|it| {
            let point = it.point.display();
            let what = format!("{point} is mounted, and no pod of this node is known to use it");
            Finding::wrong(
                what,
                format!("umount {point}, after a look at who uses it: fuser -vm {point}"),
            )
        })
        .collect();
    let (loops, wrong) = loop_devices(settings)?;
    findings.extend(wrong);
    if findings.is_empty() {
        findings.push(Finding::Fine(format!(
            "{} below {}, {loops} loop devices",
            below.len(),
            settings.kubelet_dir.display()
        )));
    }
    Ok(findings)
}

/// Targets and staging directories that the node wrote down before it mounted there.
fn records(dir: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
    files
        .filter_map(|it| read(&it.path()))
        .flat_map(|record| {
            let text = |name: &str| record[name].as_str().map(str::to_owned);
            [text("target"), text("staging"), text("host_path"), text("uid")]
        })
        .flatten()
        .collect()
}

fn explained(mount: &MountEntry, records: &BTreeSet<String>) -> bool {
    let point = mount.point.to_string_lossy();
    // A pod's own directory (subpaths, block devices) goes with the pod, and is explained by its uid.
    records.iter().any(|it| match it.starts_with('/') {
        true => mount.point.starts_with(it),
        false => point.split('/').any(|part| part == it),
    })
}

/// Loop devices of images of this data dir, and those that nobody uses.
fn loop_devices(settings: &Settings) -> Result<(usize, Vec<Finding>)> {
    let images = settings.data_dir.join("volumes");
    let used: BTreeSet<(u32, u32)> =
        mounts().context("read the mounts")?.iter().map(|it| it.device).collect();
    let (mut ours, mut findings) = (0, Vec::new());
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let read = |file: &str| fs::read_to_string(device.path().join(file)).unwrap_or_default();
        let image = read("loop/backing_file");
        let image = image.trim();
        if !Path::new(image).starts_with(&images) {
            continue;
        }
        ours += 1;
        let name = format!("/dev/{}", device.file_name().to_string_lossy());
        let mounted = || {
            let number = read("dev");
            let (major, minor) = number.trim().split_once(':')?;
            Some(used.contains(&(major.parse().ok()?, minor.parse().ok()?)))
        };
        if image.ends_with(" (deleted)") {
            findings.push(Finding::wrong(
                format!("{name} keeps the space of a removed image: {image}"),
                format!("losetup -d {name}"),
            ));
        } else if mounted() == Some(false) && read("loop/autoclear").trim() == "0" {
            // With autoclear somebody holds it open: a block volume, or a mount under way.
            findings.push(Finding::wrong(
                format!("{name} of {image} is attached and not mounted"),
                format!("losetup -d {name}"),
            ));
        }
    }
    Ok((ours, findings))
}
