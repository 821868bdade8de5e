//! What can go wrong, grouped by what the caller can do about it.

use std::io;
use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine refused; trying again may help.
    #[error("{attempted}")]
    Io {
        attempted: String,
        #[source]
        source: io::Error,
    },
    /// The shim of a sandbox could not do it; the text says what and why.
    #[error("{attempted}: {why}")]
    Shim { attempted: String, why: String },
    /// The shim of this sandbox is gone, and with it what ran there.
    #[error("sandbox {0} is not running")]
    SandboxGone(String),
    #[error("{kind} {id:?} is not known")]
    NotFound { kind: &'static str, id: String },
    /// The request makes no sense or asks for what this runtime does not offer. Trying again is useless.
    #[error("{0}")]
    Invalid(String),
    /// It is not in the state that the request needs.
    #[error("{0}")]
    State(String),
    #[error("connect sandbox {sandbox} to the network")]
    Network {
        sandbox: String,
        #[source]
        source: crate::NetworkError,
    },
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    #[error("{0}")]
    DeadlineExceeded(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names what was attempted when it fails.
pub(crate) trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Attempt<T> for std::result::Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io { attempted: what(), source: error.into() })
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let code = match &error {
            Error::Io { .. } | Error::Shim { .. } | Error::Network { .. } | Error::Image(_) => {
                Code::Unknown
            }
            Error::NotFound { .. } => Code::NotFound,
            Error::Invalid(_) => Code::InvalidArgument,
            Error::State(_) | Error::SandboxGone(_) => Code::FailedPrecondition,
            Error::DeadlineExceeded(_) => Code::DeadlineExceeded,
        };
        Status::new(code, stdx::one_line(&error))
    }
}
