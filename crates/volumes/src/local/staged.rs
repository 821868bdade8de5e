//! A local volume on this node: its loop device, its mount, and growing while mounted.

use super::pool::{Pool, Record, Stored};
use crate::{
    Result, StageVolume, VolumeError,
    error::{Attempt, Attempted, Failure, OnVolume},
    filesystem::{Filesystem, Growth, superblock, uuid_of, uuid_text},
    loop_device::{self, LoopDevice, Setup},
    mount::{self, MountEntry},
    tree,
};
use std::{
    fs::{self, OpenOptions},
    path::Path,
};

pub(super) fn stage(pool: &Pool, stored: &mut Stored, request: &StageVolume) -> Result<()> {
    let handle = stored.record.handle.clone();
    let filesystem = stored.record.filesystem().on("stage", &handle)?;
    match (filesystem, request.block) {
        (None, true) => attach(pool, stored, false).map(|_| ()).on("stage", &handle),
        (Some(filesystem), false) => {
            mount_once(pool, stored, filesystem, request).on("stage", &handle)?;
            // Kinds that only grow while mounted. One that must wait for its next mount is usable as it is.
            match grow(pool, stored) {
                Err(VolumeError::Pending(_)) => Ok(()),
                other => other,
            }
        }
        (Some(_), true) => {
            Err(VolumeError::Invalid(format!("volume {handle} is a filesystem, not a device")))
        }
        (None, false) => {
            Err(VolumeError::Invalid(format!("volume {handle} is a device without filesystem")))
        }
    }
}

fn mount_once(
    pool: &Pool,
    stored: &mut Stored,
    filesystem: Filesystem,
    request: &StageVolume,
) -> Attempt<()> {
    let staging = &request.staging;
    let look = || format!("look for {}", staging.display());
    if let Some(entry) = mount::mounted_at(staging).attempted(look)? {
        return if devices(stored)?.iter().any(|device| is_of(&entry, device)) {
            Ok(())
        } else {
            let source = entry.source.display();
            Err(Failure::new(format!("{source} is mounted at {}", staging.display())))
        };
    }
    // Held until it is mounted: then the mount keeps it.
    let device = attach(pool, stored, true)?;
    recognize(&device, &stored.record, filesystem)?;
    if mounts_of(&device)?.is_empty() {
        prepare(pool, stored, filesystem, &device)?;
    }
    tree::make(staging, 0o750)?;
    let mut options = request.mount_options.clone();
    if filesystem == Filesystem::Btrfs && !stored.record.overcommit {
        // Its default is to discard in the background; the blocks are a reservation.
        options.push("nodiscard".to_string());
    }
    mount::mount(&device.path(), staging, filesystem.name(), &options)?;
    let mounted = mount::mounted_at(staging).attempted(look)?;
    if !mounted.is_some_and(|entry| is_of(&entry, &device)) {
        mount::undo(staging);
        let path = device.path();
        return Err(Failure::new(format!(
            "{} is not at {} after its mount",
            path.display(),
            staging.display()
        )));
    }
    if filesystem == Filesystem::Ext4 && !stored.record.overcommit {
        keep_blocks(&device);
    }
    Ok(())
}

/// Checks and grows what is not mounted yet.
fn prepare(
    pool: &Pool,
    stored: &mut Stored,
    filesystem: Filesystem,
    device: &LoopDevice,
) -> Attempt<()> {
    let found = superblock(device.file())
        .attempted(|| format!("read the superblock of {}", device.path().display()))?;
    if found.is_some_and(|found| found.needs_check) {
        filesystem.check(&device.path())?;
    }
    if stored.record.bytes_formatted < stored.record.bytes
        && filesystem.grow_unmounted(&device.path())?
    {
        formatted(pool, stored)?;
    }
    Ok(())
}

/// The marker: the UUID that this volume's filesystem was made with.
fn recognize(device: &LoopDevice, record: &Record, filesystem: Filesystem) -> Attempt<()> {
    let found = superblock(device.file())
        .attempted(|| format!("read the superblock of {}", device.path().display()))?;
    let uuid = uuid_of(&record.handle);
    match found {
        Some(found) if found.filesystem == filesystem && found.uuid == uuid => Ok(()),
        Some(found) => Err(Failure::new(format!(
            "the image holds another filesystem: {} {}, not {} {}",
            found.filesystem.name(),
            uuid_text(found.uuid),
            filesystem.name(),
            uuid_text(uuid)
        ))),
        None => Err(Failure::new(format!(
            "the image holds no filesystem, and should hold {} {}",
            filesystem.name(),
            uuid_text(uuid)
        ))),
    }
}

/// The volume's loop device; never a second one for the same image.
fn attach(pool: &Pool, stored: &Stored, autoclear: bool) -> Attempt<LoopDevice> {
    if let Some(device) = devices(stored)?.into_iter().next() {
        return Ok(device);
    }
    pool.restore(stored)?;
    let path = &stored.image;
    let image = OpenOptions::new().read(true).write(true).open(path);
    let image = image.attempted(|| format!("open {}", path.display()))?;
    loop_device::attach(&image, path, Setup { read_only: false, autoclear })
}

fn devices(stored: &Stored) -> Attempt<Vec<LoopDevice>> {
    let path = &stored.image;
    let image = fs::metadata(path).attempted(|| format!("stat {}", path.display()))?;
    loop_device::attached(&image, path)
}

/// Frees a device that is not freed by its last user (volumeMode Block).
pub(super) fn release(stored: &Stored) -> Attempt<()> {
    match stored.record.filesystem()? {
        Some(_) => Ok(()),
        None => devices(stored)?.iter().try_for_each(LoopDevice::clear),
    }
}

/// Whether a line of the mount table is a mount of `device`. btrfs has a device number of its own there.
pub(super) fn is_of(entry: &MountEntry, device: &LoopDevice) -> bool {
    device.device().is_ok_and(|number| entry.device == number) || entry.source == device.path()
}

fn mounts_of(device: &LoopDevice) -> Attempt<Vec<MountEntry>> {
    let table = mount::mounts().attempted(|| "read the mount table".to_string())?;
    Ok(table.into_iter().filter(|entry| is_of(entry, device)).collect())
}

/// Who uses the image: mount points, processes of other namespaces, or the loop device itself.
pub(super) fn holders(image: &Path) -> Attempt<Vec<String>> {
    let found = fs::metadata(image).attempted(|| format!("stat {}", image.display()))?;
    let mut holders = Vec::new();
    for device in loop_device::attached(&found, image)? {
        let mounts = mounts_of(&device)?;
        holders.extend(mounts.iter().map(|entry| format!("mount {}", entry.point.display())));
        if mounts.is_empty() {
            holders.extend(mount::mounting(|entry| is_of(entry, &device)));
        }
        if holders.is_empty() {
            holders.push(device.path().display().to_string());
        }
    }
    Ok(holders)
}

/// Lets a volume grow to its recorded size. `Ok`: its filesystem has that size.
pub(super) fn grow(pool: &Pool, stored: &mut Stored) -> Result<()> {
    let (handle, bytes) = (stored.record.handle.clone(), stored.record.bytes);
    if stored.record.bytes_formatted >= bytes {
        return Ok(());
    }
    let mounted = (|| {
        for device in devices(stored)? {
            device.grow()?;
            if let Some(entry) = mounts_of(&device)?.into_iter().next() {
                return Ok(Some(entry.point));
            }
        }
        Ok(None)
    })()
    .on("expand", &handle)?;
    let (filesystem, point) = match (stored.record.filesystem().on("expand", &handle)?, mounted) {
        (Some(filesystem), Some(point)) => (filesystem, point),
        (None, _) => return formatted(pool, stored).on("expand", &handle),
        (Some(filesystem), None) => return grow_unmounted(pool, stored, filesystem),
    };
    match filesystem.grow_mounted(&point, bytes).on("expand", &handle)? {
        Growth::Done => formatted(pool, stored).on("expand", &handle),
        Growth::NotPermitted => Err(VolumeError::Pending(format!(
            "volume {handle} has {bytes} bytes; its filesystem will grow at the next mount, because growing it while \
             mounted needs CAP_SYS_RESOURCE"
        ))),
    }
}

/// ext4 grows here; kinds that only grow while mounted wait for that, and it is said so.
fn grow_unmounted(pool: &Pool, stored: &mut Stored, filesystem: Filesystem) -> Result<()> {
    let (handle, bytes) = (stored.record.handle.clone(), stored.record.bytes);
    let grown = (|| {
        let device = attach(pool, stored, true)?;
        recognize(&device, &stored.record, filesystem)?;
        prepare(pool, stored, filesystem, &device)
    })();
    grown.on("expand", &handle)?;
    if stored.record.bytes_formatted >= bytes {
        return Ok(());
    }
    Err(VolumeError::Pending(format!(
        "volume {handle} has {bytes} bytes; its filesystem will grow at the next mount"
    )))
}

fn formatted(pool: &Pool, stored: &mut Stored) -> Attempt<()> {
    let mut record = stored.record.clone();
    record.bytes_formatted = record.bytes;
    pool.write(&record)?;
    stored.record = record;
    Ok(())
}

/// ext4 writes zeros around small writes into preallocated files by a request that the loop device answers with a hole
/// in the image: blocks that a full host may then not give back. This switches that off.
fn keep_blocks(device: &LoopDevice) {
    let path = device.path();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let knob = format!("/sys/fs/ext4/{name}/extent_max_zeroout_kb");
    if let Err(error) = fs::write(&knob, "0") {
        tracing::warn!(knob, %error, "zeroing may give reserved blocks back");
    }
}
