//! Images: imported from archives or pulled from registries, kept unpacked by layer, served as CRI's ImageService.
//!
//! A layer is a directory named by its diff id that overlayfs takes as a lower directory as it is.
//! Whatever an archive claims is checked against its digests before anything of it can be seen.

mod archive;
mod build;
mod builtin;
mod compression;
mod digest;
mod guard;
mod manifest;
mod reference;
mod registry;
mod service;
mod store;
mod table;
#[cfg(test)]
mod testing;
mod unpack;

pub use builtin::{TOOLBOX_REFERENCE, builtin_images};
pub use digest::Digest;
pub use reference::Reference;
pub use registry::{Auth, Progress, PullError, Registries, Registry, Report};
pub use service::{IMPORTED_INSTEAD, Images};
pub use store::ImageStore;
pub use table::table;

use std::{collections::BTreeMap, path::PathBuf};

/// One image as a container needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `sha256:<hex>`: the digest of the image's config.
    pub id: String,
    /// Whole references with a tag, such as `docker.io/library/nginx:1.9.1`.
    pub references: Vec<String>,
    /// `docker.io/library/nginx@sha256:<hex>`, where the manifest's digest is known.
    pub digests: Vec<String>,
    /// Those of the references that a registry has answered for; the others were imported.
    pub pulled: Vec<String>,
    /// Directories for overlayfs, lowest first.
    pub layers: Vec<PathBuf>,
    pub config: ImageConfig,
    /// Bytes of file content in all layers.
    pub size: u64,
    /// When the image was built, if it says so.
    pub created: Option<stdx::Timestamp>,
}

impl Image {
    /// Whether a registry has answered for this name; else somebody imported it.
    pub fn is_pulled(&self, reference: &Reference) -> bool {
        let name = match reference.digest() {
            Some(digest) => format!("{}@{digest}", reference.repository()),
            None => reference.to_string(),
        };
        self.pulled.contains(&name)
    }
}

/// What an image says about how to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `NAME=value`.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty for root.
    pub user: String,
    pub working_dir: String,
    /// `SIGQUIT`, `QUIT` or `3`; empty for SIGTERM.
    pub stop_signal: String,
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
}

/// Why an image could not be imported, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The disk or the kernel refused; trying again may help.
    #[error("{attempted}")]
    Io {
        attempted: String,
        #[source]
        source: std::io::Error,
    },
    /// The archive is not an image we can take. Nothing of it was kept.
    #[error("{0}")]
    Archive(String),
    #[error("image {0} is not in the local store")]
    NotFound(String),
    #[error("image {image} is in use by container {container}; remove the container first")]
    InUse { image: String, container: String },
    #[error("{name:?} is not an image reference: {reason}")]
    Reference { name: String, reason: &'static str },
    /// The registry does not have it, does not give it, or cannot be asked.
    #[error("pull image {reference}")]
    Pull {
        reference: String,
        #[source]
        source: PullError,
    },
    /// The store's own index cannot be read.
    #[error("read the image index {path}: {reason}")]
    Index { path: PathBuf, reason: String },
}

pub type Result<T, E = ImageError> = std::result::Result<T, E>;

/// Names what was attempted when it fails.
trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Attempt<T> for std::result::Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| ImageError::Io { attempted: what(), source: error.into() })
    }
}
