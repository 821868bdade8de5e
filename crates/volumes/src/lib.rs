//! Volumes, in CSI's words. Every kind of volume is a [`VolumePlugin`]; a driver of someone else's is one more.
//!
//! The node hands its requests to the plugin that `name()`s itself in the volume; nothing here knows API objects.
//! [`PLUGINS`] is the table of contents: a new kind of volume is a new file and one line in it.

mod atomic_files;
mod config_map;
mod downward_api;
mod empty_dir;
mod error;
mod filesystem;
mod host_path;
mod local;
mod local_volume;
mod loop_device;
pub mod mount;
mod nfs;
mod ownership;
mod plugin;
mod program;
mod projected;
mod request;
mod scrub;
mod secret;
pub mod subpath;
mod tree;
mod work;

pub use error::{Result, VolumeError};
pub use local::{DRIVER as LOCAL_DRIVER, TOPOLOGY_KEY as LOCAL_TOPOLOGY_KEY};
pub use nfs::{helper as nfs_helper, userspace as nfs_userspace};
pub use plugin::{Capabilities, VolumePlugin};
pub use request::{
    CreateVolume, ExpandVolume, Files, FsGroupChange, PodRef, ProjectedFile, PublishVolume,
    Published, Secrets, StageVolume, Stats, Volume,
};
pub use scrub::scrub;

use std::{path::PathBuf, sync::Arc};

/// What the plugins of one node share.
#[derive(Clone, Debug)]
pub struct Config {
    /// Volumes of the class `local` live in `<data_dir>/volumes`.
    pub data_dir: PathBuf,
    /// The name of this node, as in `Node.metadata.name`.
    pub node_name: String,
    /// Tells several instances on one machine apart; part of every host-global name.
    pub instance: String,
}

type Open = fn(&Config) -> Arc<dyn VolumePlugin>;

/// Every built-in kind of volume, sorted by name.
const PLUGINS: [(&str, Open); 10] = [
    (config_map::NAME, config_map::open),
    (downward_api::NAME, downward_api::open),
    (empty_dir::NAME, empty_dir::open),
    (host_path::NAME, host_path::open),
    (local_volume::NAME, local_volume::open),
    (nfs::NAME, nfs::open),
    (projected::NAME, projected::open),
    (secret::NAME, secret::open),
    (local::DRIVER, local::open),
    (nfs::share::NAME, nfs::share::open),
];

/// Opens every built-in plugin, sorted by name. Removes what an interrupted create or delete left behind.
pub fn plugins(config: &Config) -> Vec<Arc<dyn VolumePlugin>> {
    PLUGINS.iter().map(|(_, open)| open(config)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_its_plugins_sorted_under_their_own_names() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: directory.path().to_path_buf(),
            node_name: "n1".to_string(),
            instance: "test".to_string(),
        };
        let names: Vec<_> =
            plugins(&config).iter().map(|plugin| plugin.name().to_string()).collect();
        assert_eq!(names, PLUGINS.map(|(name, _)| name));
        assert!(names.is_sorted());
    }
}
