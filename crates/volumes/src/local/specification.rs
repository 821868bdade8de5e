//! What a request for a local volume comes to: its exact size, its filesystem, whether its blocks are reserved.

use super::TOPOLOGY_KEY;
use crate::{CreateVolume, Result, VolumeError, filesystem::Filesystem};

/// Sizes are whole MiB: what mkfs of every kind accepts, and what people read.
pub(super) const GRANULE_BYTES: u64 = 1024 * 1024;
/// A file of this size fits every filesystem a data directory may be on (ext4: 16 TiB).
const BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024 * 1024 - GRANULE_BYTES;
/// A directory name with a prefix must fit 255 bytes.
const HANDLE_BYTES_MAX: usize = 200;

const FS_TYPE: &str = "csi.storage.k8s.io/fstype";
const OVERCOMMIT: &str = "overcommit";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Specification {
    pub(super) handle: String,
    pub(super) claim: Option<String>,
    pub(super) bytes: u64,
    /// None: a bare device.
    pub(super) filesystem: Option<Filesystem>,
    /// Blocks are taken when they are written, from whatever the host then has.
    pub(super) overcommit: bool,
}

pub(super) fn of(request: &CreateVolume, node: &str) -> Result<Specification> {
    let invalid = |text: String| Err(VolumeError::Invalid(text));
    if !valid_handle(&request.name) {
        return invalid(format!("{:?} cannot be the name of a volume", request.name));
    }
    let mut fs_type = request.fs_type.as_deref();
    let mut overcommit = false;
    for (name, value) in &request.parameters {
        match (name.as_str(), value.as_str()) {
            (FS_TYPE, value) => fs_type = Some(value),
            (OVERCOMMIT, "true") => overcommit = true,
            (OVERCOMMIT, "false") => overcommit = false,
            (OVERCOMMIT, value) => {
                return invalid(format!(
                    "parameter {OVERCOMMIT} must be \"true\" or \"false\", not {value:?}"
                ));
            }
            (name, _) => {
                return invalid(format!(
                    "unknown parameter {name:?}: known are {FS_TYPE:?} and {OVERCOMMIT:?}"
                ));
            }
        }
    }
    for mode in &request.access_modes {
        if mode != "ReadWriteOnce" && mode != "ReadWriteOncePod" {
            return invalid(format!(
                "access mode {mode} is not possible: a local volume is on one node \
                 (ReadWriteOnce, ReadWriteOncePod)"
            ));
        }
    }
    if let Some(wanted) = request.topology.get(TOPOLOGY_KEY)
        && wanted != node
    {
        return invalid(format!("volume {} is wanted on {wanted}, not on {node}", request.name));
    }
    let filesystem = match fs_type.filter(|name| !name.is_empty()) {
        _ if request.block => None,
        None => Some(Filesystem::Ext4),
        Some(name) => match Filesystem::parse(name) {
            Some(filesystem) => Some(filesystem),
            None => {
                return invalid(format!(
                    "filesystem {name:?} is not supported: known are btrfs, ext4 and xfs"
                ));
            }
        },
    };
    Ok(Specification {
        handle: request.name.clone(),
        claim: request.claim.clone(),
        bytes: size(request.bytes_min, request.bytes_max, filesystem)?,
        filesystem,
        overcommit,
    })
}

/// The exact size of the device: rounded up to the filesystem's minimum and to whole MiB, never beyond `bytes_max`.
pub(super) fn size(
    bytes_min: u64,
    bytes_max: Option<u64>,
    filesystem: Option<Filesystem>,
) -> Result<u64> {
    let least = filesystem.map_or(GRANULE_BYTES, Filesystem::bytes_min);
    let bytes = bytes_min.max(least).checked_next_multiple_of(GRANULE_BYTES);
    let kind = filesystem.map_or("block", Filesystem::name);
    match bytes.filter(|bytes| *bytes <= BYTES_MAX) {
        Some(bytes) if bytes <= bytes_max.unwrap_or(u64::MAX) => Ok(bytes),
        Some(bytes) => Err(VolumeError::Invalid(format!(
            "a {kind} volume for {bytes_min} bytes has {bytes} bytes, which is beyond the limit {}",
            bytes_max.unwrap_or(u64::MAX)
        ))),
        None => Err(VolumeError::Invalid(format!(
            "{bytes_min} bytes are more than a local volume can have ({BYTES_MAX})"
        ))),
    }
}

/// One name of a directory, that cannot be one of ours (`.creating-…`).
pub(super) fn valid_handle(handle: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !handle.is_empty()
        && handle.len() <= HANDLE_BYTES_MAX
        && !handle.starts_with('.')
        && handle.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateVolume {
        CreateVolume { name: "pvc-1".to_string(), bytes_min: 1, ..CreateVolume::default() }
    }

    fn refusal(change: impl FnOnce(&mut CreateVolume)) -> String {
        let mut request = request();
        change(&mut request);
        of(&request, "n1").unwrap_err().to_string()
    }

    #[test]
    fn sizes_are_rounded_up_and_true() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(size(1, None, Some(Filesystem::Ext4)).unwrap(), 16 * MIB);
        assert_eq!(size(1, None, Some(Filesystem::Btrfs)).unwrap(), 110 * MIB);
        assert_eq!(size(1, None, Some(Filesystem::Xfs)).unwrap(), 300 * MIB);
        assert_eq!(size(1024 * MIB, None, Some(Filesystem::Ext4)).unwrap(), 1024 * MIB);
        assert_eq!(size(1_000_000_000, None, None).unwrap(), 954 * MIB);
        assert!(size(1, Some(MIB), Some(Filesystem::Ext4)).is_err());
        assert!(size(u64::MAX, None, None).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let parameter = |name: &str, value: &str| {
            refusal(|request| {
                request.parameters.insert(name.to_string(), value.to_string());
            })
        };
        assert!(parameter("replicas", "3").contains("unknown parameter \"replicas\""));
        assert!(parameter(OVERCOMMIT, "yes").contains("must be \"true\" or \"false\""));
        assert!(parameter(FS_TYPE, "ntfs").contains("\"ntfs\" is not supported"));
        assert!(refusal(|r| r.name = "../x".to_string()).contains("cannot be the name"));
        assert!(refusal(|r| r.access_modes = vec!["ReadWriteMany".to_string()]).contains("Many"));
        let elsewhere = |r: &mut CreateVolume| {
            r.topology.insert(TOPOLOGY_KEY.to_string(), "n2".to_string());
        };
        assert!(refusal(elsewhere).contains("wanted on n2, not on n1"));
    }
}
