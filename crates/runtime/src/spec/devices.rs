//! Which devices a container has beyond the usual ones.

use crate::error::{Attempt, Error, Result};
use rpc::cri::{self, ContainerConfig};
use shim::protocol::Device;
use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

pub(super) fn devices(config: &ContainerConfig, privileged: bool) -> Result<Vec<Device>> {
    let mut found = Vec::new();
    if privileged {
        collect_devices(Path::new("/dev"), Path::new("/dev"), &mut found);
    }
    for asked in &config.devices {
        found.extend(asked_for(asked)?);
    }
    Ok(found)
}

/// A device, or those of a directory.
fn asked_for(asked: &cri::Device) -> Result<Vec<Device>> {
    let mut found = Vec::new();
    let source = Path::new(&asked.host_path);
    let metadata =
        fs::metadata(source).attempt(|| format!("look at the device {}", source.display()))?;
    if metadata.is_dir() {
        collect_devices(source, Path::new(&asked.container_path), &mut found);
    } else if metadata.file_type().is_block_device() || metadata.file_type().is_char_device() {
        found.push(describe_device(&metadata, &asked.container_path));
    } else {
        return Err(Error::Invalid(format!("{} is not a device", source.display())));
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
    let mut rules = Vec::new();
    for asked in &config.devices {
        // Nothing said: everything.
        let may = |what: char| asked.permissions.is_empty() || asked.permissions.contains(what);
        rules.extend(asked_for(asked)?.iter().map(|device| crate::cgroup::Rule {
            block: device.block,
            major: Some(device.major),
            minor: Some(device.minor),
            read: may('r'),
            write: may('w'),
            make: may('m'),
        }));
    }
    Ok(rules)
}
