//! The embedded container runtime, served as the Container Runtime Interface.
//!
//! [`open`] gives an [`Embedded`]; its services meet a client in the same process without a socket:
//! `RuntimeServiceClient::new(embedded.runtime_service())`. A small static shim program per pod holds the pod's
//! namespaces and its containers, and outlives this process; `open` finds the shims of an earlier one again.

mod capability;
mod cgroup;
mod container;
mod embedded;
mod error;
mod events;
mod exec;
pub mod image;
mod link;
mod network;
mod processes;
mod record;
mod sandbox;
mod seccomp;
mod service;
mod spec;
mod stats;
mod stop_signal;
pub mod streaming;

pub use embedded::{Config, Embedded, open};
pub use error::{Error, Result};
pub use exec::{Attached, ExecHandle, Stdio, Terminal};
pub use network::{NetworkError, PodAttachment, PodNetwork};
pub use record::image_users;
