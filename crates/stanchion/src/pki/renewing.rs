//! A certificate that is made anew before it expires, while the process runs: whoever shakes hands asks for it,
//! and gets the next one once the last third of its life has begun. No timer, no file.

use super::{Authority, Identity, Validity, certificates};
use anyhow::{Context, Result};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

type Issue = Box<dyn Fn(&Authority) -> Result<Identity> + Send + Sync>;

pub(crate) struct Renewing {
    name: String,
    authority: Arc<Authority>,
    issue: Issue,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    validity: Validity,
}

impl Renewing {
    /// A server's, for these host names and addresses.
    pub(crate) fn server(
        authority: &Arc<Authority>,
        name: &str,
        hosts: Vec<String>,
    ) -> Result<Renewing> {
        let of = name.to_owned();
        Renewing::new(authority, name, move |it| it.server(&of, hosts.clone()))
    }

    /// A client's: user and group.
    pub(crate) fn client(authority: &Arc<Authority>, user: &str, group: &str) -> Result<Renewing> {
        let (name, group) = (user.to_owned(), group.to_owned());
        Renewing::new(authority, user, move |it| it.client(&name, &group))
    }

    fn new(
        authority: &Arc<Authority>,
        name: &str,
        issue: impl Fn(&Authority) -> Result<Identity> + Send + Sync + 'static,
    ) -> Result<Renewing> {
        let current = Mutex::new(Current::of(&issue(authority)?)?);
        let (name, authority) = (name.to_owned(), authority.clone());
        Ok(Renewing { name, authority, issue: Box::new(issue), current })
    }

    pub(super) fn now(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.validity.is_due(self.authority.now()) {
            match (self.issue)(&self.authority).and_then(|it| Current::of(&it)) {
                Ok(next) => {
                    // An authority that ends soon issues nothing that lasts longer: told of elsewhere.
                    if next.validity.until > current.validity.until {
                        tracing::info!(name = self.name, until = %next.validity.until, "renewed a certificate");
                        *current = next;
                    }
                }
                Err(error) => {
                    let error = stdx::one_line(error.as_ref());
                    tracing::warn!(name = self.name, error, "a certificate cannot be renewed");
                }
            }
        }
        current.key.clone()
    }
}

impl Current {
    fn of(identity: &Identity) -> Result<Current> {
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).context("read a key")?;
        let provider = rustls::crypto::ring::default_provider();
        let key = CertifiedKey::from_der(certificates(&identity.certificate)?, key, &provider);
        let key = Arc::new(key.context("use a certificate")?);
        Ok(Current { key, validity: Validity::of(&identity.certificate)? })
    }
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }
}

impl ResolvesClientCert for Renewing {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::LEAF_DAYS;
    use super::*;
    use rustls::{
        ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
        pki_types::{CertificateDer, ServerName, UnixTime},
        time_provider::TimeProvider,
    };
    use std::{
        sync::atomic::{AtomicI64, Ordering},
        time::Duration,
    };
    use stdx::{Clock, Timestamp};

    /// A clock that is set by hand.
    #[derive(Debug)]
    struct Hand(AtomicI64);

    impl Hand {
        fn set(&self, at: Timestamp) {
            self.0.store(at.0, Ordering::Relaxed);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
    }

    #[derive(Debug)]
    struct Wall(Arc<Hand>);

    impl TimeProvider for Wall {
        fn current_time(&self) -> Option<UnixTime> {
            let seconds = u64::try_from(self.0.now().seconds()).ok()?;
            Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
        }
    }

    struct House {
        _directory: tempfile::TempDir,
        clock: Arc<Hand>,
        authority: Arc<Authority>,
        server: Arc<ServerConfig>,
    }

    const START: Timestamp = Timestamp::from_seconds(1_795_255_970);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn house() -> House {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hand(AtomicI64::new(START.0)));
        let authority = Arc::new(Authority::open_at(directory.path(), clock.clone()).unwrap());
        let own = Renewing::server(&authority, "api", vec!["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(own));
        House { _directory: directory, clock, authority, server: Arc::new(server) }
    }

    /// Shakes hands as a client would whose clock is the house's; the certificate that it believed.
    fn handshake(house: &House) -> CertificateDer<'static> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(house.authority.certificate()).unwrap() {
            roots.add(certificate).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let wall = Arc::new(Wall(house.clock.clone()));
        let config = ClientConfig::builder_with_details(provider, wall)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = Connection::from(ClientConnection::new(Arc::new(config), name).unwrap());
        let mut server = Connection::from(ServerConnection::new(house.server.clone()).unwrap());
        while client.is_handshaking() || server.is_handshaking() {
            pass(&mut client, &mut server);
            pass(&mut server, &mut client);
        }
        client.peer_certificates().unwrap()[0].clone().into_owned()
    }

    fn pass(from: &mut Connection, to: &mut Connection) {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            to.read_tls(&mut rest).unwrap();
            to.process_new_packets().unwrap();
        }
    }

    #[test]
    fn a_server_shows_another_certificate_before_the_last_one_expires() {
        let house = house();
        let first = handshake(&house);
        house.clock.set(START.plus(LEAF_DAYS / 2));
        assert_eq!(handshake(&house), first, "half its life is left");
        // Three years, a look a month: never a handshake with one that has expired.
        let mut seen = vec![first];
        for month in 0..36 {
            house.clock.set(START.plus(DAY * 30 * month));
            let shown = handshake(&house);
            if !seen.contains(&shown) {
                seen.push(shown);
            }
        }
        assert!((4..=6).contains(&seen.len()), "{} certificates in three years", seen.len());
    }

    #[test]
    fn a_clock_that_is_set_back_invalidates_nothing() {
        let house = house();
        house.clock.set(START.plus(LEAF_DAYS));
        handshake(&house);
        house.clock.set(START.minus(DAY * 20));
        handshake(&house);
    }

    #[test]
    fn the_admin_is_the_same_until_it_is_due() {
        let house = house();
        let first = house.authority.admin().unwrap().certificate;
        assert_eq!(house.authority.admin().unwrap().certificate, first);
        house.clock.set(START.plus(LEAF_DAYS).minus(DAY * 100));
        let second = house.authority.admin().unwrap().certificate;
        assert_ne!(second, first);
        let until = Validity::of(&second).unwrap().until;
        assert!(until > START.plus(LEAF_DAYS), "{until}");
    }

    #[test]
    fn nothing_lasts_longer_than_the_authority() {
        let house = house();
        let end = house.authority.validity().until;
        house.clock.set(end.minus(DAY * 10));
        let late = house.authority.client("late", "group").unwrap();
        assert!(Validity::of(&late.certificate).unwrap().until <= end);
        handshake(&house);
    }
}
