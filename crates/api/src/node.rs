//! The kinds of the group `node.k8s.io`, one file each.

pub mod runtime_class;

pub use crate::k8s::api::node::v1;
