//! Images from registries: the distribution API, version 2, as docker's and OCI's registries serve it.
//!
//! Layers are downloaded side by side into files that survive a broken connection, checked against their
//! digests, and then taken in as an import takes them. What is there already is not fetched.
//! Upstream: github.com/opencontainers/distribution-spec, docker's "Token Authentication Specification".

mod challenge;
mod connection;
mod download;
mod pull;
mod repository;
mod roots;
mod settings;

pub use settings::Registry;

use super::Reference;
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, OnceLock},
};

/// How registries are reached. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registries(Arc<Inner>);

#[derive(Default)]
struct Inner {
    settings: BTreeMap<String, Registry>,
    /// The machine's authorities; read when the first registry is asked over TLS.
    tls: OnceLock<Arc<rustls::ClientConfig>>,
}

impl Registries {
    /// What differs from the usual, by the registry's host as images name it: `registry.lan:5000`.
    pub fn new(settings: BTreeMap<String, Registry>) -> Registries {
        Registries(Arc::new(Inner { settings, ..Inner::default() }))
    }
}

/// How a registry is convinced. Nothing set: as anybody.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Auth {
    pub username: String,
    pub password: String,
    /// A refresh token, in place of a password.
    pub identity_token: String,
    /// A bearer token that is shown as it is.
    pub registry_token: String,
}

/// Without the secrets.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Layers that are not here yet, and how many of them are fetched.
    pub layers: usize,
    pub layers_done: usize,
    /// Their bytes as they are sent, and how many have arrived.
    pub bytes: u64,
    pub bytes_done: u64,
}

/// Told of each piece that arrives.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// Why a registry did not give an image.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("not found in the registry{0}")]
    NotFound(String),
    #[error("authorization failed: {0}")]
    Denied(String),
    /// No connection, or it broke; another try may have more luck.
    #[error("{attempted}")]
    Unreachable {
        attempted: String,
        #[source]
        source: io::Error,
    },
    /// An answer that nobody expects.
    #[error("{host} answers {status}{said}")]
    Answer { host: String, status: http::StatusCode, said: String },
    /// There is something, but not an image for this machine, or not what its digest says.
    #[error("{0}")]
    Unfit(String),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] Box<super::ImageError>),
}

type Result<T, E = PullError> = std::result::Result<T, E>;

impl PullError {
    fn unreachable(attempted: impl Into<String>, source: impl Into<io::Error>) -> PullError {
        PullError::Unreachable { attempted: attempted.into(), source: source.into() }
    }

    /// Whether the same request may succeed in a moment.
    fn may_pass(&self) -> bool {
        match self {
            PullError::Unreachable { .. } => true,
            PullError::Answer { status, .. } => status.is_server_error() || status.as_u16() == 429,
            PullError::NotFound(_)
            | PullError::Denied(_)
            | PullError::Unfit(_)
            | PullError::Store(_) => false,
        }
    }
}

/// The registry's own name where images leave it to be understood.
fn api_host(reference: &Reference) -> &str {
    match reference.host() {
        "docker.io" => "registry-1.docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests;
