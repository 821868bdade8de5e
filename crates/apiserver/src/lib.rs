//! The only door to the ledger: who asks, may they, is the object fit, then one commit.
//!
//! Loops of the same process come in through [`Server::client`], everyone else over HTTPS; both take
//! the same way through [`admit`](mod@admit) and [`commit`](mod@commit).
#![forbid(unsafe_code)]

mod admission;
mod admit;
mod commit;
mod error;
mod events;
mod history;
mod ledger;
mod local;
mod metadata;
mod server;
mod startup;
mod user;
mod view;

pub use error::Error;
pub use server::{Config, Server, open};
