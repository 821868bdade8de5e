//! The verbs, once, for all kinds.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
mod token;
pub(crate) mod update;
mod version;
pub(crate) mod watch;
