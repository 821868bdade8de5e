//! The kinds of the group `certificates.k8s.io`, one file each.

pub mod certificate_signing_request;

pub use crate::k8s::api::certificates::v1;
