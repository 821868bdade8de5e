//! The kinds of the group `networking.k8s.io`, one file each.

pub mod ingress;
pub mod ip_address;
pub mod service_cidr;

pub use crate::k8s::api::networking::v1;
