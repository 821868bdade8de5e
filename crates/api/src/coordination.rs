//! The kinds of the group `coordination.k8s.io`, one file each.

pub mod lease;

pub use crate::k8s::api::coordination::v1;
