//! Certificates: one authority per data dir, an admin's identity that stays, and leaves made anew at
//! every start and before they expire, so that no server key lies on disk.

mod renewing;
mod signing;
mod validity;

pub(crate) use renewing::Renewing;
pub(crate) use validity::{LEAF_DAYS, Validity};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, pem::PemObject},
    server::{ResolvesServerCert, WebPkiClientVerifier},
};
use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use stdx::{Clock, SystemClock, Timestamp};
use validity::{AUTHORITY_DAYS, BACKDATED};

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The authority of one cluster.
pub(crate) struct Authority {
    dir: PathBuf,
    identity: Identity,
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
    clock: Arc<dyn Clock>,
}

impl Authority {
    /// Reads the authority of a data dir, or makes it.
    pub(crate) fn open(data_dir: &Path) -> Result<Authority> {
        Authority::open_at(data_dir, Arc::new(SystemClock))
    }

    fn open_at(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Authority> {
        let dir = data_dir.join("pki");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let identity = match read(&dir, "ca")? {
            Some(identity) => identity,
            None => {
                let identity = new_authority(clock.now())?;
                write(&dir, "ca", &identity)?;
                identity
            }
        };
        let key = KeyPair::from_pem(&identity.key).context("read the authority's key")?;
        let issuer = Issuer::from_ca_cert_pem(&identity.certificate, key)
            .context("read the authority's certificate")?;
        let validity = Validity::of(&identity.certificate)?;
        Ok(Authority { dir, identity, issuer, validity, clock })
    }

    /// The authority's certificate, PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.identity.certificate
    }

    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The admin of this cluster: the same one at every start, until it is due for renewal.
    pub(crate) fn admin(&self) -> Result<Identity> {
        if let Some(identity) = read(&self.dir, "admin")?
            && !Validity::of(&identity.certificate)?.is_due(self.now())
        {
            return Ok(identity);
        }
        let identity = self.client("kubernetes-admin", "system:masters")?;
        write(&self.dir, "admin", &identity)?;
        Ok(identity)
    }

    /// A server's certificate for these host names and addresses.
    pub(crate) fn server(&self, name: &str, hosts: Vec<String>) -> Result<Identity> {
        let mut identity =
            self.leaf(name, "system:nodes", hosts, ExtendedKeyUsagePurpose::ServerAuth)?;
        // Shown with it: whoever has a hash of the authority learns by it which one is meant.
        identity.certificate.push_str(self.certificate());
        Ok(identity)
    }

    /// A client's certificate: user and group.
    pub(crate) fn client(&self, user: &str, group: &str) -> Result<Identity> {
        self.leaf(user, group, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn leaf(
        &self,
        name: &str,
        group: &str,
        hosts: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity> {
        let attempt = || format!("make a certificate for {name}");
        let mut params = CertificateParams::new(hosts).with_context(attempt)?;
        // Valid from when the authority is: a clock that is set back does not invalidate it.
        let until = self.now().plus(LEAF_DAYS).min(self.validity.until);
        validity::set(&mut params, self.validity.from, until);
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().with_context(attempt)?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(attempt)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A kubeconfig for the admin.
    pub(crate) fn kubeconfig(&self, server: &str) -> Result<String> {
        let admin = self.admin()?;
        let data = |pem: &str| STANDARD.encode(pem);
        Ok(format!(
            "apiVersion: v1
kind: Config
clusters:
- name: stanchion
  cluster:
    server: {server}
    certificate-authority-data: {}
users:
- name: admin
  user:
    client-certificate-data: {}
    client-key-data: {}
contexts:
- name: stanchion
  context:
    cluster: stanchion
    user: admin
current-context: stanchion
",
            data(self.certificate()),
            data(&admin.certificate),
            data(&admin.key),
        ))
    }
}

/// TLS in which both sides show a certificate of one authority, PEM.
pub(crate) fn mutual(
    authority: &str,
    own: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>> {
    let attempt = "set up mutual TLS";
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots.add(certificate).context(attempt)?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .context(attempt)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context(attempt)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(own);
    Ok(Arc::new(config))
}

/// The certificates in a PEM text.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes());
    all.collect::<Result<_, _>>().context("read a certificate")
}

fn new_authority(now: Timestamp) -> Result<Identity> {
    let attempt = "make the cluster's certificate authority";
    let mut params = CertificateParams::new(Vec::<String>::new()).context(attempt)?;
    params.distinguished_name.push(DnType::CommonName, "stanchion-ca");
    validity::set(&mut params, now.minus(BACKDATED), now.plus(AUTHORITY_DAYS));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate().context(attempt)?;
    let certificate = params.self_signed(&key).context(attempt)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

pub(crate) fn read(dir: &Path, name: &str) -> Result<Option<Identity>> {
    let file = |ending: &str| {
        let path = dir.join(format!("{name}.{ending}"));
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    };
    // The certificate is written last: without it there is no identity.
    match (file("crt")?, file("key")?) {
        (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
        _ => Ok(None),
    }
}

pub(crate) fn write(dir: &Path, name: &str, identity: &Identity) -> Result<()> {
    write_private(&dir.join(format!("{name}.key")), &identity.key)?;
    write_private(&dir.join(format!("{name}.crt")), &identity.certificate)
}

/// Writes a file that only its owner may read: whole or not at all, also while others write the same.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let attempt = || format!("write {}", path.display());
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(attempt)?;
    file.write_all(text.as_bytes()).with_context(attempt)?;
    file.sync_all().with_context(attempt)?;
    fs::rename(&temporary, path).with_context(attempt)
}

/// Leaves a file alone that says the same.
pub(crate) fn write_private_if_changed(path: &Path, text: &str) -> Result<()> {
    match fs::read_to_string(path) {
        Ok(there) if there == text => Ok(()),
        Ok(_) | Err(_) => write_private(path, text),
    }
}
