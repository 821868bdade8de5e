//! The promises of a node, kept against a runtime, volumes and a ledger in memory.

mod admission;
mod convergence;
mod crashes;
mod fakes;
mod images;
mod plan;
mod resize;
mod server;
mod spec;
mod status;
mod volumes;
