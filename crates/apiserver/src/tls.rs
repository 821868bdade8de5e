//! The door's own certificate, and whose clients it believes.

use crate::error::Error;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ResolvesServerCert, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::sync::Arc;

/// What HTTPS is spoken with.
#[derive(Debug)]
pub struct Tls {
    /// Asked at every handshake, so that a certificate can be replaced while the server runs.
    pub certificate: Arc<dyn ResolvesServerCert>,
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
        let chain = certificates("reading the server's certificate", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| wrong("reading the server's key", &error))?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|error| wrong("using the server's certificate", &error))?;
        Ok(Tls {
            certificate: Arc::new(SingleCertAndKey::from(certified)),
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
            .with_cert_resolver(self.certificate);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
