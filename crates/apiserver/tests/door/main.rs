//! The door over a ledger in memory: what loops and clients are promised.

mod access;
mod addresses;
mod apply;
mod bad_input;
mod events;
mod foreign;
mod house;
mod kubectl;
mod limits;
mod lists;
mod local;
mod node_access;
mod nodes;
mod openapi;
mod patience;
mod peers;
mod proxied;
mod rest;
mod strict;
mod tokens;
mod watches;
mod wire;
