//! What a new node is told by a person: a bootstrap token, and by which authority it knows the server.
//!
//! The authority's certificate comes from the server itself, which shows it in the handshake; its hash comes with the
//! token, so nobody in between can show another one. Upstream: kubeadm's `--discovery-token-ca-cert-hash`.

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest, Sha256};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use x509_parser::prelude::FromDer;

/// A server that does not answer within this time is not there.
const WAIT: Duration = Duration::from_secs(10);

/// `abcdef.0123456789abcdef.<hash of the authority's key>`
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// What the server is shown.
    pub(crate) token: String,
    hash: [u8; 32],
}

impl Ticket {
    /// Reads a token of `stanchion token create`, or one of kubeadm's form and the hash beside it.
    pub(crate) fn read(token: &str, hash: Option<&str>) -> Result<Ticket> {
        let parts: Vec<&str> = token.trim().split('.').collect();
        let (id, secret, own) = match parts.as_slice() {
            [id, secret, own] => (id, secret, Some(*own)),
            [id, secret] => (id, secret, None),
            _ => bail!(
                "read the token: expected ID.SECRET.HASH as `stanchion token create` prints it"
            ),
        };
        let hash = match (hash, own) {
            (Some(hash), _) => hash.strip_prefix("sha256:").ok_or_else(|| {
                anyhow!("read --discovery-token-ca-cert-hash: expected sha256:HEX")
            })?,
            (None, Some(own)) => own,
            (None, None) => bail!(
                "read the token: it does not say by which authority to know the server; \
                 use one of `stanchion token create`, or --discovery-token-ca-cert-hash"
            ),
        };
        let hash = bytes(hash).context("read the authority's hash")?;
        Ok(Ticket { token: format!("{id}.{secret}"), hash })
    }

    /// Whether this is the authority that is meant, PEM.
    pub(crate) fn is_of(&self, ca: &str) -> Result<bool> {
        Ok(bytes(&hash_of(ca)?)? == self.hash)
    }

    /// The authority of the server at `host:port`, PEM, if it is the one that is meant.
    pub(crate) fn discover(&self, authority: &str) -> Result<String> {
        let attempt = || format!("ask {authority} for its authority");
        let pinned = Arc::new(Pinned { hash: self.hash, found: Mutex::default() });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .with_context(attempt)?
            .dangerous()
            .with_custom_certificate_verifier(pinned.clone())
            .with_no_client_auth();
        let host = authority.rsplit_once(':').map_or(authority, |it| it.0);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.with_context(attempt)?;
        let tcp = TcpStream::connect(authority).with_context(attempt)?;
        tcp.set_read_timeout(Some(WAIT)).with_context(attempt)?;
        tcp.set_write_timeout(Some(WAIT)).with_context(attempt)?;
        let tls = rustls::ClientConnection::new(Arc::new(config), name).with_context(attempt)?;
        let mut stream = rustls::StreamOwned::new(tls, tcp);
        // The answer does not matter, the handshake does.
        let ask = format!("GET /livez HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).with_context(attempt)?;
        let _some = stream.read(&mut [0; 64]).with_context(attempt)?;
        let found = pinned.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        found.map(|it| pem(&it)).ok_or_else(|| anyhow!("it showed none")).with_context(attempt)
    }
}

/// What a ticket says of an authority: the SHA-256 of its public key, as kubeadm has it.
pub(crate) fn hash_of(authority: &str) -> Result<String> {
    let all = crate::pki::certificates(authority)?;
    let first =
        all.first().ok_or_else(|| anyhow!("hash the authority: there is no certificate"))?;
    let hash = digest(first).ok_or_else(|| anyhow!("hash the authority: it cannot be read"))?;
    Ok(hash.iter().map(|it| format!("{it:02x}")).collect())
}

fn digest(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, read) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    Some(Sha256::digest(read.public_key().raw).into())
}

fn bytes(hex: &str) -> Result<[u8; 32]> {
    let wrong = || anyhow!("{hex:?} is not 64 hexadecimal digits");
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(wrong());
    }
    let mut all = [0; 32];
    for (n, byte) in all.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[n * 2..n * 2 + 2], 16).map_err(|_| wrong())?;
    }
    Ok(all)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|it| std::str::from_utf8(it).unwrap_or_default()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Believes a server whose certificate is signed by the authority with this hash.
#[derive(Debug)]
struct Pinned {
    hash: [u8; 32],
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let meant = intermediates.iter().find(|it| digest(it) == Some(self.hash));
        let meant = meant.ok_or_else(unknown)?.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(meant.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().map_err(|_| unknown())?;
        let verified = verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(meant);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = &provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = &provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Authority;

    #[test]
    fn a_ticket_names_the_authority_that_made_it() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let hash = hash_of(authority.certificate()).unwrap();
        let ticket = Ticket::read(&format!("abcdef.0123456789abcdef.{hash}\n"), None).unwrap();
        assert_eq!(ticket.token, "abcdef.0123456789abcdef");
        let beside = Ticket::read("abcdef.0123456789abcdef", Some(&format!("sha256:{hash}")));
        assert!(beside.unwrap() == ticket);
        assert!(ticket.is_of(authority.certificate()).unwrap());
        let pem = pem(&crate::pki::certificates(authority.certificate()).unwrap()[0]);
        assert_eq!(hash_of(&pem).unwrap(), hash);
        for wrong in ["abcdef.0123456789abcdef", "x", "a.b.c", "a.b.c.d"] {
            assert!(Ticket::read(wrong, None).is_err(), "{wrong}");
        }
    }

    /// Shows this identity to one client and says what that sends.
    fn overhear(identity: &crate::pki::Identity) -> (u16, std::thread::JoinHandle<Vec<u8>>) {
        use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
        let chain = crate::pki::certificates(&identity.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = std::net::TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = std::thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            let tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = rustls::StreamOwned::new(tls, tcp);
            let (mut heard, mut piece) = (Vec::new(), [0; 1024]);
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                heard.extend(&piece[..length]);
                if heard.ends_with(b"\r\n\r\n") {
                    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nok");
                    break;
                }
            }
            heard
        });
        (port, heard)
    }

    #[test]
    fn a_server_of_another_authority_hears_nothing_and_the_right_one_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let own = authority.server("kube-apiserver", vec!["localhost".to_owned()]).unwrap();
        let hash = hash_of(authority.certificate()).unwrap();
        let ask = |hash: &str| {
            let ticket = Ticket::read(&format!("abcdef.0123456789abcdef.{hash}"), None).unwrap();
            let (port, heard) = overhear(&own);
            let answer = ticket.discover(&format!("localhost:{port}"));
            (answer, String::from_utf8(heard.join().unwrap()).unwrap())
        };
        let (refused, heard) = ask(&"0".repeat(64));
        assert!(refused.is_err());
        assert_eq!(heard, "");
        let (found, heard) = ask(&hash);
        assert_eq!(hash_of(&found.unwrap()).unwrap(), hash);
        assert!(heard.starts_with("GET /livez ") && !heard.contains("0123456789abcdef"), "{heard}");
    }
}
