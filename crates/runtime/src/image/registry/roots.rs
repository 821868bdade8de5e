//! Whom a registry's certificate must come from.

use super::{PullError, Registries, Registry, Result};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{path::Path, sync::Arc};

/// Where distributions keep the bundle of authorities, in the order of how common they are.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl Registries {
    /// The machine's authorities, and the registry's own where it has one.
    pub(super) fn tls(&self, registry: &Registry) -> Result<Arc<ClientConfig>> {
        if let Some(file) = &registry.ca_file {
            let mut roots = machine_roots();
            let unfit =
                |why: String| PullError::Unfit(format!("read caFile {}: {why}", file.display()));
            for certificate in read(file).map_err(unfit)? {
                roots.add(certificate).map_err(|error| unfit(error.to_string()))?;
            }
            return Ok(config(roots));
        }
        Ok(Arc::clone(self.0.tls.get_or_init(|| config(machine_roots()))))
    }
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// `SSL_CERT_FILE`, else the distribution's bundle. None: nobody is trusted, and each handshake says so.
fn machine_roots() -> RootCertStore {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let bundles = named.into_iter().chain(BUNDLES.map(Into::into));
    let mut roots = RootCertStore::empty();
    for bundle in bundles {
        // Bundles have single certificates that no verifier takes: the others still count.
        if let Ok(certificates) = read(&bundle)
            && roots.add_parsable_certificates(certificates).0 > 0
        {
            return roots;
        }
    }
    tracing::warn!(
        "no CA certificates on this machine (package ca-certificates): registries cannot be trusted"
    );
    roots
}

fn read(file: &Path) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
    certificates.collect::<std::result::Result<_, _>>().map_err(|error| error.to_string())
}
