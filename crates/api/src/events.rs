//! The kinds of the group `events.k8s.io`, one file each.

pub mod event;

pub use crate::k8s::api::events::v1;
