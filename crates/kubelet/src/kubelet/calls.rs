//! Volume calls that are carried out on this node.

use super::{Kubelet, Shared};
use ::volumes::{CreateVolume, ExpandVolume, Volume, VolumeError, mount};
use std::{
    fs::OpenOptions,
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Component, Path},
};
use world::{CallFailure, Outcome, VolumeCall};

/// Linux on x86_64 and on most others: `O_DIRECTORY | O_NOFOLLOW`.
const DIRECTORY_ITSELF: i32 = 0o200_000 | 0o400_000;

impl Kubelet {
    /// Does what was asked, or says why not; whether asking again can help too.
    pub async fn call(&self, call: &VolumeCall) -> Result<Outcome, CallFailure> {
        self.shared.call(call).await
    }
}

impl Shared {
    pub(crate) async fn call(&self, call: &VolumeCall) -> Result<Outcome, CallFailure> {
        match call {
            VolumeCall::Create {
                plugin,
                claim,
                name,
                bytes,
                access_modes,
                block,
                parameters,
                topology,
            } => {
                let request = CreateVolume {
                    name: name.clone(),
                    claim: Some(claim.to_string()),
                    bytes_min: *bytes,
                    access_modes: access_modes.clone(),
                    block: *block,
                    fs_type: parameters.get("csi.storage.k8s.io/fstype").cloned(),
                    parameters: parameters.clone(),
                    topology: topology.clone(),
                    ..CreateVolume::default()
                };
                let volume = self.asked(plugin)?.create(&request).await.map_err(failure)?;
                Ok(Outcome {
                    handle: volume.handle,
                    bytes: volume.bytes,
                    context: volume.context,
                    topology: volume.topology,
                })
            }
            VolumeCall::Delete { plugin, handle, .. } => {
                self.asked(plugin)?.delete(handle).await.map_err(failure)?;
                Ok(Outcome { handle: handle.clone(), ..Outcome::default() })
            }
            VolumeCall::Expand { plugin, handle, bytes, .. } => {
                let volume = Volume { handle: handle.clone(), ..Volume::default() };
                let request = ExpandVolume { volume, bytes_min: *bytes, ..ExpandVolume::default() };
                let bytes = self.asked(plugin)?.expand(&request).await.map_err(failure)?;
                Ok(Outcome { handle: handle.clone(), bytes, ..Outcome::default() })
            }
            VolumeCall::Scrub { path, .. } => {
                let scrubbed = path.clone();
                let done = tokio::task::spawn_blocking(move || scrub(Path::new(&scrubbed)));
                match done.await {
                    Ok(Ok(())) => Ok(Outcome::default()),
                    Ok(Err(failure)) => Err(failure),
                    Err(error) => Err(again(format!("scrub {path}: {error}"))),
                }
            }
        }
    }

    fn asked(&self, plugin: &str) -> Result<&dyn ::volumes::VolumePlugin, CallFailure> {
        let found = self.volumes.plugin(plugin).map(|it| &**it);
        found.ok_or_else(|| {
            never(format!("no volume plugin {plugin} on node {}", self.facts.node_name))
        })
    }
}

fn failure(error: VolumeError) -> CallFailure {
    let retry = match &error {
        VolumeError::Invalid(_) | VolumeError::NotFound => false,
        VolumeError::Pending(_)
        | VolumeError::Exhausted(_)
        | VolumeError::Busy { .. }
        | VolumeError::Driver { .. } => true,
    };
    CallFailure { retry, message: stdx::one_line(&error) }
}

fn never(message: String) -> CallFailure {
    CallFailure { retry: false, message }
}

fn again(message: String) -> CallFailure {
    CallFailure { retry: true, message }
}

/// Removes what is in a directory, and only that: no link is followed, no mount is entered, and what others have
/// mounted below is a reason to refuse.
fn scrub(path: &Path) -> Result<(), CallFailure> {
    let refuse = |why: &str| Err(never(format!("scrub {}: {why}", path.display())));
    if !path.is_absolute() || path.components().any(|it| it == Component::ParentDir) {
        return refuse("the path must be absolute and without '..'");
    }
    if path.components().count() < 2 {
        return refuse("this is the root directory");
    }
    let attempt = |error: io::Error| again(format!("scrub {}: {error}", path.display()));
    let directory = OpenOptions::new().read(true).custom_flags(DIRECTORY_ITSELF).open(path);
    let directory = match directory {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refuse("no such directory");
        }
        Err(error) => return Err(attempt(error)),
        Ok(directory) => directory,
    };
    let mounts = mount::mounts_below(path).map_err(attempt)?;
    let real = path.canonicalize().map_err(attempt)?;
    if real.components().count() < 2 {
        return refuse("this is the root directory");
    }
    if let Some(inner) = mounts.iter().find(|it| it.point != real) {
        return refuse(&format!("something is mounted at {}", inner.point.display()));
    }
    // Through the descriptor: the directory that was checked, whatever the path names by now.
    let held = format!("/proc/self/fd/{}", directory.as_raw_fd());
    for entry in std::fs::read_dir(&held).map_err(attempt)? {
        let entry = entry.map_err(attempt)?;
        let removed = match entry.file_type().map_err(attempt)?.is_dir() {
            // The standard library walks by descriptors and follows no link.
            true => std::fs::remove_dir_all(entry.path()),
            false => std::fs::remove_file(entry.path()),
        };
        removed.map_err(attempt)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn scrubs_the_contents_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("in"), directory.path().join("out"));
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        fs::write(inside.join("a/b/c"), "x").unwrap();
        fs::write(inside.join(".hidden"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        scrub(&inside).unwrap();
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
        std::os::unix::fs::symlink(&outside, directory.path().join("alias")).unwrap();
        assert!(scrub(&directory.path().join("alias")).is_err(), "a link is not a directory");
        assert!(outside.join("kept").exists());
        for path in ["/", "relative", "/proc/..", "//"] {
            assert!(!scrub(Path::new(path)).unwrap_err().retry, "{path}");
        }
    }
}
