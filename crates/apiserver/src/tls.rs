//! The door's own certificate, and whose clients it believes.

use crate::error::Error;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::sync::Arc;

/// What HTTPS is spoken with.
#[derive(Debug)]
pub struct Tls {
    /// The server's certificate, then those that lead to its root.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// Who signs certificates of clients.
    pub client_ca: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// From PEM texts, as they lie in files.
    pub fn from_pem(chain: &[u8], key: &[u8], client_ca: &[u8]) -> Result<Tls, Error> {
        let wrong =
            |what: &str, error: &dyn std::fmt::Display| Error::Tls(format!("{what}: {error}"));
        let certificates = |what: &str, pem: &[u8]| {
            CertificateDer::pem_slice_iter(pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| wrong(what, &error))
        };
        Ok(Tls {
            chain: certificates("reading the server's certificate", chain)?,
            key: PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| wrong("reading the server's key", &error))?,
            client_ca: certificates("reading the clients' authority", client_ca)?,
        })
    }

    /// Client certificates are welcome, not demanded: health checks come without one.
    pub(crate) fn server_config(self) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in self.client_ca {
            roots.add(certificate).map_err(|error| Error::Tls(error.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| Error::Tls(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Tls(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain, self.key)
            .map_err(|error| Error::Tls(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
