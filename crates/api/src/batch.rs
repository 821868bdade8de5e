//! The kinds of the group `batch`, one file each.

pub mod cron_job;
pub mod job;
pub mod schedule;

pub use crate::k8s::api::batch::v1;
