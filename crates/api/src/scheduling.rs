//! The kinds of the group `scheduling.k8s.io`, one file each.

pub mod priority_class;

pub use crate::k8s::api::scheduling::v1;
