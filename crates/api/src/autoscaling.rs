//! The kinds of the group `autoscaling`, one file each.

pub mod horizontal_pod_autoscaler;

pub use crate::k8s::api::autoscaling::v2;
