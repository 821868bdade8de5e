//! Files with which etcd is known, and with which it knows us.

use crate::StoreError;
use std::{fs, path::PathBuf};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// For `etcds://`: whose certificates members of etcd show, and what is shown to them.
#[derive(Clone, Debug, Default)]
pub struct EtcdTls {
    /// Upstream's `--etcd-cafile`.
    pub authority: Option<PathBuf>,
    /// Upstream's `--etcd-certfile` and `--etcd-keyfile`: both or none.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl EtcdTls {
    pub(super) fn config(&self) -> Result<ClientTlsConfig, StoreError> {
        let missing = |what: &str| {
            let why = std::io::Error::other(format!("{what} is missing"));
            StoreError::io("connect to etcd with TLS", why)
        };
        let authority = self.authority.as_ref().ok_or_else(|| missing("--etcd-cafile"))?;
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(authority)?));
        match (&self.certificate, &self.key) {
            (None, None) => Ok(config),
            (Some(certificate), Some(key)) => {
                Ok(config.identity(Identity::from_pem(read(certificate)?, read(key)?)))
            }
            (Some(_), None) => Err(missing("--etcd-keyfile beside --etcd-certfile")),
            (None, Some(_)) => Err(missing("--etcd-certfile beside --etcd-keyfile")),
        }
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|source| StoreError::io(format!("read {}", path.display()), source))
}
