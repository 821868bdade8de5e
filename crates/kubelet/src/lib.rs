//! The hands on one node: pods of the world become containers, volumes and a status.
//!
//! `plan` decides and is pure; a worker for each pod looks, plans, does, and looks again.
#![forbid(unsafe_code)]

mod config;
pub mod credentials;
mod events;
mod figures;
mod kubelet;
mod ledger;
mod lifecycle;
mod limits;
mod node;
pub mod plan;
mod pod;
mod probe;
mod pull_records;
pub mod runtime;
mod server;
pub mod spec;
mod static_pods;
pub mod status;
mod token_life;
mod upkeep;
mod users;
mod volumes;

pub use config::Config;
pub use kubelet::{Drained, Kubelet, KubeletError, start};
pub use ledger::{Ledger, LedgerError, Record};
pub use limits::{Limits, Reserved};
pub use upkeep::{ImageLimits, LogLimits, Upkeep};
