//! What keeps the door from opening.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading the ledger")]
    Ledger(#[source] store::ReadError),
    #[error("reading the ledger")]
    Store(#[source] store::StoreError),
    #[error("keeping the addresses of Services that are there")]
    Adopting(#[source] store::CommitError),
    #[error("writing {what}")]
    Startup {
        what: String,
        #[source]
        source: api::Failure,
    },
    #[error("setting up TLS: {0}")]
    Tls(String),
    #[error("reading a key of service account tokens: {0}")]
    TokenKey(String),
    /// The first object that is there and cannot be read: not decrypted, or not understood.
    #[error("reading the ledger: {0}")]
    Unread(String),
    #[error("unknown admission plugin {0:?}")]
    UnknownAdmission(String),
    #[error("service CIDR {0:?} is not an IPv4 network with room for addresses")]
    ServiceCidr(String),
    #[error("listening on {address}")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
    },
}
