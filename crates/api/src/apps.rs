//! The kinds of the group `apps`, one file each.

pub mod controller_revision;
pub mod history;
pub mod stateful_set;

pub use crate::k8s::api::apps::v1;
