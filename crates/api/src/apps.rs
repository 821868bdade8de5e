//! The kinds of the group `apps`, one file each.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod history;
pub mod replica_set;
pub mod stateful_set;
pub mod template;
pub mod templated;

pub use crate::k8s::api::apps::v1;
