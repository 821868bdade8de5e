//! downwardAPI: the pod's own fields as files, in memory.
//!
//! Upstream: pkg/volume/downwardapi/downwardapi.go (1.36).

use crate::{
    Config, VolumePlugin,
    atomic_files::{FilesVolume, Medium},
};
use std::sync::Arc;

pub(crate) const NAME: &str = "kubernetes.io/downward-api";

pub(crate) fn open(_: &Config) -> Arc<dyn VolumePlugin> {
    Arc::new(FilesVolume { name: NAME, medium: Medium::Memory })
}
