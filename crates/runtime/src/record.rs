//! What the runtime keeps on disk to know its sandboxes and containers again after a restart.
//!
//! `sandboxes/<id>/{config,ready,shim.sock,...}` and below it `containers/<id>/{config,started,exit,upper,...}`.
//! Nothing is synced: after a crash of the machine nothing of this runs, and a torn record is thrown away.

use crate::error::{Attempt, Result};
use shim::{record, wire::Wire};
use std::{
    fs,
    path::{Path, PathBuf},
};

record! {
    pub(crate) struct SandboxRecord {
        /// A PodSandboxConfig.
        pub(crate) config: Vec<u8>,
        pub(crate) handler: String,
        pub(crate) created_at: i64,
    }

    /// Written when the sandbox is complete. One without it was never answered for.
    pub(crate) struct ReadyRecord {
        pub(crate) addresses: Vec<String>,
        pub(crate) shim: i32,
    }

    pub(crate) struct ContainerRecord {
        /// A ContainerConfig.
        pub(crate) config: Vec<u8>,
        pub(crate) created_at: i64,
        pub(crate) image_id: String,
        pub(crate) layers: Vec<String>,
        pub(crate) environment: Vec<String>,
        pub(crate) arguments: Vec<String>,
        pub(crate) directory: String,
        pub(crate) user: String,
        pub(crate) stop_signal: i32,
        /// With a digest where one is known.
        pub(crate) image_ref: String,
        pub(crate) image_volumes: Vec<ImageVolume>,
    }

    /// An image that is mounted like a volume.
    pub(crate) struct ImageVolume {
        /// Where in the container.
        pub(crate) path: String,
        pub(crate) image_id: String,
        /// Lowest first.
        pub(crate) layers: Vec<String>,
    }
}

impl ContainerRecord {
    /// The images that must be there as long as the container is.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        let volumes = self.image_volumes.iter().map(|it| it.image_id.as_str());
        [self.image_id.as_str()].into_iter().chain(volumes)
    }
}

pub(crate) fn sandboxes(data: &Path) -> PathBuf {
    data.join("sandboxes")
}

pub(crate) fn read<T: Wire>(directory: &Path, name: &str) -> Option<T> {
    T::from_bytes(&fs::read(directory.join(name)).ok()?)
}

/// The images that containers below a runtime's data dir use: (image id, container id). Reads the records, so that it
/// works beside a running server and without one.
pub fn image_users(data: &Path) -> Vec<(String, String)> {
    let sandboxes = sandboxes(data);
    let containers = names(&sandboxes).into_iter().map(|id| sandboxes.join(id).join("containers"));
    let used = containers.flat_map(|directory| {
        let user = |id: String| {
            let record: ContainerRecord = read(&directory.join(&id), "config")?;
            Some(record.images().map(|image| (image.to_owned(), id.clone())).collect::<Vec<_>>())
        };
        names(&directory).into_iter().filter_map(user).flatten().collect::<Vec<_>>()
    });
    used.collect()
}

/// Replaces the file as a whole.
pub(crate) fn write(directory: &Path, name: &str, record: &impl Wire) -> Result<()> {
    let path = directory.join(name);
    let unfinished = directory.join(format!(".{name}"));
    let attempted = || format!("write {}", path.display());
    fs::write(&unfinished, record.to_bytes()).attempt(attempted)?;
    fs::rename(&unfinished, &path).attempt(attempted)
}

/// Removes a directory and what is in it; gone already is as good.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).attempt(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// The names of the directories in `directory`.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
