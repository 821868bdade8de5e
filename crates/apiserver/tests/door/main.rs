//! The door over a ledger in memory: what loops and clients are promised.

mod house;
mod local;
