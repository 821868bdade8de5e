//! A ledger, a runtime and volumes in memory. The runtime watches over what must never happen.

mod client;
mod machine;
mod node;
mod objects;
mod plugin;
mod runtime;

pub(crate) use client::FakeClient;
pub(crate) use node::Node;
pub(crate) use objects::{with_volumes, yaml};
pub(crate) use plugin::FakePlugin;
pub(crate) use runtime::{CrashAt, FakeRuntime};

use std::time::Duration;

/// Long enough for a loaded machine; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(60);
