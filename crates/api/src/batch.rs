//! The kinds of the group `batch`, one file each.

pub mod job;

pub use crate::k8s::api::batch::v1;
