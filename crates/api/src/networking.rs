//! The kinds of the group `networking.k8s.io`, one file each.

pub mod ingress;

pub use crate::k8s::api::networking::v1;
