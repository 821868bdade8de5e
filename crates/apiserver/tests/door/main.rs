//! The door over a ledger in memory: what loops and clients are promised.

mod apply;
mod bad_input;
mod events;
mod house;
mod kubectl;
mod limits;
mod lists;
mod local;
mod nodes;
mod openapi;
mod rest;
mod strict;
mod watches;
mod wire;
