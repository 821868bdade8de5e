//! The kinds of the group `policy`, one file each.

pub mod pod_disruption_budget;

pub use crate::k8s::api::policy::v1;
