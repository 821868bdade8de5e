//! The kinds of the group `rbac.authorization.k8s.io`, one file each: who may do what.

pub mod cluster_role;
pub mod cluster_role_binding;
mod reference;
pub mod role;
pub mod role_binding;
mod rule;

pub use crate::k8s::api::rbac::v1;

/// The group of all its kinds, of users and of groups.
pub const GROUP: &str = "rbac.authorization.k8s.io";
