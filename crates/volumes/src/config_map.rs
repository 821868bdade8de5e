//! configMap: the keys of a ConfigMap as files, on disk.
//!
//! Upstream: pkg/volume/configmap/configmap.go (1.36).

use crate::{
    Config, VolumePlugin,
    atomic_files::{FilesVolume, Medium},
};
use std::sync::Arc;

pub(crate) const NAME: &str = "kubernetes.io/configmap";

pub(crate) fn open(_: &Config) -> Arc<dyn VolumePlugin> {
    Arc::new(FilesVolume { name: NAME, medium: Medium::Disk })
}
