//! The kinds of the group `discovery.k8s.io`, one file each.

pub mod endpoint_slice;

pub use crate::k8s::api::discovery::v1;
