//! projected: several sources as files of one directory, in memory (tokens and secrets may be among them).
//!
//! Upstream: pkg/volume/projected/projected.go (1.36).

use crate::{
    Config, VolumePlugin,
    atomic_files::{FilesVolume, Medium},
};
use std::sync::Arc;

pub(crate) const NAME: &str = "kubernetes.io/projected";

pub(crate) fn open(_: &Config) -> Arc<dyn VolumePlugin> {
    Arc::new(FilesVolume { name: NAME, medium: Medium::Memory })
}
