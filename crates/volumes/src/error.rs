//! Errors of volumes, grouped by what the caller can do: ask again, change the request, make room, look for the holder.

use std::error::Error;

/// Why a call did not do what was asked. Nothing is reported as done that is not.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Ask again later; nothing is broken.
    #[error("{0}")]
    Pending(String),
    /// Asking again cannot help until someone changes the request.
    #[error("{0}")]
    Invalid(String),
    #[error("no such volume")]
    NotFound,
    /// No space: says how much is needed and how much is free. Nothing was left behind.
    #[error("{0}")]
    Exhausted(String),
    /// In use; `holders` are mount points and processes (`pid 12 (nginx)`), at most 16.
    #[error("volume {volume} is in use by {}", holders.join(", "))]
    Busy { volume: String, holders: Vec<String> },
    /// The outside world failed; asking again may help.
    #[error("{operation} volume {volume}")]
    Driver {
        operation: &'static str,
        volume: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

pub type Result<T> = std::result::Result<T, VolumeError>;

impl VolumeError {
    pub fn driver(
        operation: &'static str,
        volume: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> VolumeError {
        VolumeError::Driver { operation, volume: volume.into(), source: source.into() }
    }
}

/// An attempt on a path or a program, and its cause. The source of [`VolumeError::Driver`].
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub(crate) struct Failure {
    attempt: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure that has no deeper cause.
    pub(crate) fn new(attempt: impl Into<String>) -> Failure {
        Failure { attempt: attempt.into(), source: None }
    }
}

/// What the blocking parts of this crate answer, before a plugin says on which volume.
pub(crate) type Attempt<T> = std::result::Result<T, Failure>;

/// Says what was attempted when a system call failed.
pub(crate) trait Attempted<T> {
    fn attempted(self, attempt: impl FnOnce() -> String) -> Attempt<T>;
}

impl<T, E: Error + Send + Sync + 'static> Attempted<T> for std::result::Result<T, E> {
    fn attempted(self, attempt: impl FnOnce() -> String) -> Attempt<T> {
        self.map_err(|error| Failure { attempt: attempt(), source: Some(Box::new(error)) })
    }
}

/// Says on which volume an attempt failed.
pub(crate) trait OnVolume<T> {
    fn on(self, operation: &'static str, volume: &str) -> Result<T>;
}

impl<T> OnVolume<T> for Attempt<T> {
    fn on(self, operation: &'static str, volume: &str) -> Result<T> {
        self.map_err(|failure| VolumeError::driver(operation, volume, failure))
    }
}
