//! A certificate of this node: asked for with a request that the server approves and signs, kept in the data dir, and
//! asked for again before it ends.
//!
//! Upstream: `client-go/util/certificate/certificate_manager.go` (1.36).

use crate::pki::{self, Identity, Validity};
use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use client::http::Connection;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use stdx::{Backoff, Clock, Entropy, SystemClock, SystemEntropy, Timestamp};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// How long a request may wait for somebody who approves it; then another one is made.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// After so long it is said that somebody has to.
const TOLD: Duration = Duration::from_secs(10);

/// The files of data dirs in which certificate and key lay apart.
const BEFORE: [&str; 2] = ["crt", "key"];

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// To be known to the API server.
    Client,
    /// To be known as the node's own server.
    Serving,
}

impl Use {
    fn file(self) -> &'static str {
        match self {
            Use::Client => "node-client",
            Use::Serving => "node-serving",
        }
    }

    /// Certificate and key in one file, as upstream's `kubelet-client-current.pem`: of two, a crash may leave one that
    /// is new and one that is old, and a node that has no certificate any more cannot ask for one.
    fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.file()).with_extension("pem")
    }

    fn read(self, dir: &Path) -> Result<Option<Identity>> {
        match super::read_if_there(&self.path(dir))? {
            // Whoever reads one of them passes over the other.
            Some(both) => Ok(Some(Identity { certificate: both.clone(), key: both })),
            None => pki::read(dir, self.file()),
        }
    }

    fn write(self, dir: &Path, identity: &Identity) -> Result<()> {
        let both = format!("{}\n{}", identity.certificate.trim_end(), identity.key);
        pki::write_private(&self.path(dir), &both)?;
        self.remove(dir, &BEFORE)
    }

    fn remove(self, dir: &Path, endings: &[&str]) -> Result<()> {
        for ending in endings {
            let path = dir.join(self.file()).with_extension(ending);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Certificate {
    dir: PathBuf,
    of: Use,
    node: String,
    hosts: Vec<String>,
    current: Mutex<Option<Current>>,
}

#[derive(Clone)]
struct Current {
    key: Arc<CertifiedKey>,
    validity: Validity,
    /// When the next one is asked for.
    renewed: Timestamp,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "until {}", self.validity.until)
    }
}

impl Certificate {
    /// The one of an earlier run, if it still holds and is for these hosts.
    pub(crate) fn open(
        dir: PathBuf,
        of: Use,
        node: &str,
        hosts: Vec<String>,
    ) -> Result<Certificate> {
        let certificate =
            Certificate { dir, of, node: node.to_owned(), hosts, current: Mutex::default() };
        if let Some(identity) = of.read(&certificate.dir)? {
            match Current::of(&identity) {
                Ok(it) if it.is_of(node, &certificate.hosts)? && it.validity.until > now() => {
                    *certificate.lock() = Some(it);
                }
                Ok(_) => {}
                Err(error) => {
                    let error = stdx::one_line(error.as_ref());
                    tracing::warn!("a certificate of this node is asked for again: {error}");
                }
            }
        }
        Ok(certificate)
    }

    /// Removes those of an earlier run.
    pub(crate) fn forget(dir: &Path) -> Result<()> {
        for of in [Use::Client, Use::Serving] {
            of.remove(dir, &["pem"])?;
            of.remove(dir, &BEFORE)?;
        }
        Ok(())
    }

    pub(crate) fn is_there(&self) -> bool {
        self.lock().is_some()
    }

    /// Asks until there is one.
    pub(crate) async fn obtain(&self, connection: &Connection) -> Result<()> {
        let identity = self.request(connection).await?;
        let current = Current::of(&identity)?;
        self.of.write(&self.dir, &identity)?;
        tracing::info!(of = ?self.of, until = %current.validity.until, "a certificate for this node");
        *self.lock() = Some(current);
        Ok(())
    }

    /// Asks for the first one where there is none, and for the next one each time that it is due, for ever.
    /// `renewed` hears of each.
    pub(crate) async fn keep(&self, connection: &Connection, renewed: impl Fn()) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        loop {
            let due = self.lock().as_ref().map_or(Timestamp::default(), |it| it.renewed);
            let wait = due.since(now());
            if !wait.is_zero() {
                // Clocks are set: it is looked at again and again.
                stdx::sleep(wait.min(Duration::from_secs(600))).await;
                continue;
            }
            match self.obtain(connection).await {
                Ok(()) => {
                    backoff.succeeded();
                    renewed();
                }
                Err(error) => {
                    let error = stdx::one_line(error.as_ref());
                    tracing::warn!(of = ?self.of, error, "get a certificate for this node");
                    stdx::sleep(backoff.failed()).await;
                }
            }
        }
    }

    async fn request(&self, connection: &Connection) -> Result<Identity> {
        let name = format!("system:node:{}", self.node);
        let attempt = || format!("ask for a certificate for {name}");
        let mut params = CertificateParams::new(self.hosts.clone()).with_context(attempt)?;
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        let key = KeyPair::generate().with_context(attempt)?;
        let request =
            params.serialize_request(&key).and_then(|it| it.pem()).with_context(attempt)?;
        let (signer, usage) = match self.of {
            Use::Client => ("kubernetes.io/kube-apiserver-client-kubelet", "client auth"),
            Use::Serving => ("kubernetes.io/kubelet-serving", "server auth"),
        };
        let body = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "csr-"},
            "spec": {
                "request": STANDARD.encode(request), "signerName": signer,
                "usages": ["digital signature", usage],
            },
        });
        let made = connection.call("POST", REQUESTS, Some(body.to_string().into())).await;
        let made: Value = serde_json::from_slice(&made.with_context(attempt)?)?;
        let own = made["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{REQUESTS}/{own}");
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let begun = now();
        let mut told = false;
        loop {
            let answer = connection.call("GET", &path, None).await.with_context(attempt)?;
            let answer: Value = serde_json::from_slice(&answer).with_context(attempt)?;
            let status = &answer["status"];
            if let Some(certificate) = status["certificate"].as_str() {
                let pem = STANDARD.decode(certificate).with_context(attempt)?;
                let certificate = String::from_utf8(pem).with_context(attempt)?;
                return Ok(Identity { certificate, key: key.serialize_pem() });
            }
            let conditions = status["conditions"].as_array().into_iter().flatten();
            for it in conditions {
                if matches!(it["type"].as_str(), Some("Denied" | "Failed")) {
                    let why = it["message"].as_str().unwrap_or_default();
                    bail!("{}: request {own} is refused: {why}", attempt());
                }
            }
            let waited = now().since(begun);
            if waited > PATIENCE {
                bail!("{}: nobody has approved request {own}", attempt());
            }
            if waited > TOLD && !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    "certificate request {own} waits for somebody: kubectl certificate approve {own}"
                );
            }
            stdx::sleep(backoff.failed()).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> Option<Arc<CertifiedKey>> {
        self.lock().as_ref().map(|it| it.key.clone())
    }
}

fn now() -> Timestamp {
    SystemClock.now()
}

impl Current {
    fn of(identity: &Identity) -> Result<Current> {
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).context("read a key")?;
        let provider = rustls::crypto::ring::default_provider();
        let chain = pki::certificates(&identity.certificate)?;
        let key = CertifiedKey::from_der(chain, key, &provider).context("use a certificate")?;
        let validity = Validity::of(&identity.certificate)?;
        Ok(Current {
            key: Arc::new(key),
            validity,
            renewed: due(validity, now(), &SystemEntropy::default()),
        })
    }

    fn is_of(&self, node: &str, hosts: &[String]) -> Result<bool> {
        let first = self.key.cert.first().ok_or_else(|| anyhow!("read a certificate: none"))?;
        let (_, read) = x509_parser::parse_x509_certificate(first).context("read a certificate")?;
        let wanted = format!("system:node:{node}");
        let is_own = read.subject().iter_common_name().any(|it| it.as_str() == Ok(&wanted));
        let names = read.subject_alternative_name().context("read a certificate")?;
        let names = names.map_or(0, |it| it.value.general_names.len());
        // The server checks names one by one; a node whose address changed has another number only by chance.
        let all = hosts.iter().all(|host| {
            let name = rustls::pki_types::ServerName::try_from(host.as_str());
            let parsed = rustls::server::ParsedCertificate::try_from(first);
            match (name, parsed) {
                (Ok(name), Ok(parsed)) => {
                    rustls::client::verify_server_name(&parsed, &name).is_ok()
                }
                _ => false,
            }
        });
        Ok(is_own && all && names == hosts.len())
    }
}

/// Upstream's: after 70 to 90 percent of a life.
fn due(validity: Validity, seen: Timestamp, entropy: &dyn Entropy) -> Timestamp {
    let life = validity.until.since(validity.from);
    let part = 700 + u32::try_from(entropy.below(200)).unwrap_or(0);
    let due = validity.from.plus(life / 1000 * part);
    // One that is backdated by much is good for as long as it still lasts.
    match due > seen {
        true => due,
        false => seen.plus(validity.until.since(seen) / 1000 * part),
    }
}

impl ResolvesClientCert for Certificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.shown()
    }

    fn has_certs(&self) -> bool {
        self.is_there()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Authority;

    fn open(dir: &Path) -> Certificate {
        Certificate::open(dir.to_owned(), Use::Client, "n1", Vec::new()).unwrap()
    }

    /// The key was replaced, the node crashed, and the certificate was still the old one: nothing that it could show.
    #[test]
    fn a_renewal_that_breaks_off_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let (dir, authority) = (directory.path(), Authority::open(directory.path()).unwrap());
        let issue = || authority.client("system:node:n1", "system:nodes").unwrap();
        let (first, second) = (issue(), issue());
        Use::Client.write(dir, &first).unwrap();
        let shown = open(dir).shown().expect("the one of an earlier run").cert.clone();
        // All that a write does before it is done: nothing of it is read.
        std::fs::write(dir.join("node-client.tmp"), &second.key).unwrap();
        assert_eq!(open(dir).shown().unwrap().cert, shown);
        Use::Client.write(dir, &second).unwrap();
        assert_ne!(open(dir).shown().unwrap().cert, shown);
        Certificate::forget(dir).unwrap();
        assert!(!open(dir).is_there());
    }

    #[test]
    fn certificate_and_key_in_two_files_are_read_until_the_next_renewal() {
        let directory = tempfile::tempdir().unwrap();
        let (dir, authority) = (directory.path(), Authority::open(directory.path()).unwrap());
        let issue = || authority.client("system:node:n1", "system:nodes").unwrap();
        pki::write(dir, "node-client", &issue()).unwrap();
        let shown = open(dir).shown().expect("the one of two files").cert.clone();
        Use::Client.write(dir, &issue()).unwrap();
        assert_ne!(open(dir).shown().unwrap().cert, shown);
        assert!(!dir.join("node-client.key").exists() && !dir.join("node-client.crt").exists());
        Certificate::forget(dir).unwrap();
        assert!(!open(dir).is_there());
    }

    #[test]
    fn the_next_one_is_asked_for_when_most_of_its_life_is_over() {
        let entropy = SystemEntropy::default();
        let from = Timestamp::from_seconds(1_000_000);
        let year = Validity { from, until: from.plus(Duration::from_secs(1000)) };
        for _ in 0..100 {
            let at = due(year, from, &entropy).since(from).as_secs();
            assert!((700..=900).contains(&at), "{at}");
            let late = from.plus(Duration::from_secs(950));
            let at = due(year, late, &entropy);
            assert!(at > late && at < year.until);
        }
    }
}
