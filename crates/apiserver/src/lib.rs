//! The only door to the ledger: who asks, may they, is the object fit, then one commit.
//!
//! Loops of the same process come in through [`Server::client`], everyone else over HTTPS; both take
//! the same way through [`admit`](mod@admit) and [`commit`](mod@commit).
#![forbid(unsafe_code)]

mod accept;
mod access;
mod admission;
mod admit;
mod answer;
mod ask;
mod audit;
mod authn;
mod authz;
mod body;
mod certificates;
mod commit;
mod discovery;
mod encryption;
mod epoch;
mod error;
mod events;
mod fields;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod history;
mod http;
mod ledger;
mod local;
mod merge;
mod metadata;
mod metrics;
mod node;
mod not_built;
mod openapi;
mod ownership;
mod patience;
mod peers;
mod protobuf;
mod rest;
mod reviews;
mod scan;
mod selection;
mod server;
mod show;
mod spdy;
mod startup;
mod stored;
mod subresource;
mod table;
mod target;
mod tls;
mod usage;
mod user;
mod view;
mod wire;
mod yaml;

pub use access::{Access, SIGNING_LIFE};
pub use audit::{AuditConfig, Policy as AuditPolicy};
pub use certificates::Signer;
pub use encryption::Encryption;
pub use epoch::Epoch;
pub use error::Error;
pub use node::{Connection, NodeProxy, TlsNodeProxy};
pub use patience::Patience;
pub use peers::Presence;
pub use server::{Config, Server, open};
pub use tls::Tls;
