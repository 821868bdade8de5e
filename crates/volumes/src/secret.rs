//! secret: the keys of a Secret as files, in memory and never on disk.
//!
//! Upstream: pkg/volume/secret/secret.go (1.36).

use crate::{
    Config, VolumePlugin,
    atomic_files::{FilesVolume, Medium},
};
use std::sync::Arc;

pub(crate) const NAME: &str = "kubernetes.io/secret";

pub(crate) fn open(_: &Config) -> Arc<dyn VolumePlugin> {
    Arc::new(FilesVolume { name: NAME, medium: Medium::Memory })
}
