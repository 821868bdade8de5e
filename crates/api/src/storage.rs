//! The kinds of the group `storage.k8s.io`, one file each.

pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;

pub use crate::k8s::api::storage::v1;
