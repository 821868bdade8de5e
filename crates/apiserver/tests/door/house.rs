//! A server of its own for each test, and a client that speaks HTTPS to it.

use apiserver::{Config, NodeProxy, Server, Tls};
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc};
use stdx::{Shutdown, SystemClock, SystemEntropy};
use store::{Store, backend::Memory};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

pub(crate) fn config() -> Config {
    Config {
        service_cidr: "10.96.0.0/12".to_owned(),
        admission_enabled: Default::default(),
        admission_disabled: Default::default(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::default()),
        version: "v1.36.0+stanchion".to_owned(),
        node_proxy: None,
        access: Default::default(),
        patience: Default::default(),
    }
}

pub(crate) fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::new(Arc::new(SystemClock)))
}

pub(crate) async fn open() -> Arc<Server> {
    open_on(memory()).await
}

pub(crate) async fn open_on(store: Arc<dyn Store>) -> Arc<Server> {
    let server = apiserver::open(store, config()).await.expect("a ledger in memory opens");
    settle(&server, false).await;
    server
}

/// What a controller would make: the account of the namespace `default`.
pub(crate) async fn settle(server: &Arc<Server>, mounts: bool) {
    let account = object(serde_json::json!({
        "metadata": {"name": "default", "namespace": "default"},
        // Tests that are not about tokens see the pods that they wrote.
        "automountServiceAccountToken": mounts,
    }));
    let create = world::Change::create::<api::core::v1::ServiceAccount>(account);
    match server.client("system:test").write(vec![create]).await {
        Err(failure) if !failure.is_already_exists() => panic!("{failure}"),
        _ => {}
    }
}

/// An object from its JSON.
pub(crate) fn object<T: api::Kind>(json: Value) -> T {
    let mut json = json;
    json["apiVersion"] = T::API_VERSION.into();
    json["kind"] = T::KIND.into();
    api::codec::from_value(&json).expect("a well-formed object")
}

/// A server on a port of its own. Ends when dropped.
pub(crate) struct Door {
    pub(crate) server: Arc<Server>,
    pub(crate) store: Arc<dyn Store>,
    address: SocketAddr,
    /// The authority, the admin's certificate and the admin's key, as PEM.
    identity: [String; 3],
    admin: TlsConnector,
    nobody: TlsConnector,
    guest: TlsConnector,
    _shutdown: Shutdown,
}

pub(crate) enum Who {
    Admin,
    /// A certificate of no group.
    Guest,
    /// No certificate.
    Nobody,
}

pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
    pub(crate) bytes: Bytes,
}

impl Reply {
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().filter_map(|it| it.to_str().ok()).collect()
    }

    #[track_caller]
    pub(crate) fn is(self, code: u16) -> Reply {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";

impl Door {
    pub(crate) async fn open() -> Door {
        Door::open_with(None).await
    }

    pub(crate) async fn open_on(store: Arc<dyn Store>) -> Door {
        Door::begin(store, None).await
    }

    /// With the roles that every cluster has.
    pub(crate) async fn open_guarded(access: apiserver::Access) -> Door {
        let access = apiserver::Access { default_roles: true, ..access };
        Door::begin_as(memory(), Config { access, ..config() }, true).await
    }

    /// With less patience than usual.
    pub(crate) async fn open_impatient(patience: apiserver::Patience) -> Door {
        Door::begin_as(memory(), Config { patience, ..config() }, false).await
    }

    pub(crate) async fn open_with(node_proxy: Option<Arc<dyn NodeProxy>>) -> Door {
        Door::begin(memory(), node_proxy).await
    }

    async fn begin(store: Arc<dyn Store>, node_proxy: Option<Arc<dyn NodeProxy>>) -> Door {
        Door::begin_as(store, Config { node_proxy, ..config() }, false).await
    }

    async fn begin_as(store: Arc<dyn Store>, config: Config, mounts: bool) -> Door {
        let server = apiserver::open(store.clone(), config).await.expect("opens");
        settle(&server, mounts).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");

        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let own = own.signed_by(&key, &issuer).unwrap();
        let tls = Tls::from_pem(
            own.pem().as_bytes(),
            key.serialize_pem().as_bytes(),
            ca.pem().as_bytes(),
        );
        let client = |name: &str, group: Option<&str>| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            if let Some(group) = group {
                params.distinguished_name.push(DnType::OrganizationName, group);
            }
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = params.signed_by(&key, &issuer).unwrap();
            let pem = [ca.pem(), certificate.pem(), key.serialize_pem()];
            (connector(ca.der().clone(), Some((certificate.der().clone(), key))), pem)
        };
        let (admin, identity) = client("admin", Some("system:masters"));
        let (shutdown, signal) = Shutdown::new();
        tokio::spawn(server.clone().serve(vec![listener], tls.unwrap(), signal));
        Door {
            identity,
            admin,
            guest: client("guest", None).0,
            nobody: connector(ca.der().clone(), None),
            server,
            store,
            address,
            _shutdown: shutdown,
        }
    }

    /// What kubectl needs to come in as admin.
    pub(crate) fn kubeconfig(&self) -> Value {
        let [ca, certificate, key] =
            self.identity.each_ref().map(|it| base64::engine::general_purpose::STANDARD.encode(it));
        let server = format!("https://{}", self.address);
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "door",
            "clusters": [{"name": "door", "cluster": {
                "server": server, "certificate-authority-data": ca,
            }}],
            "contexts": [{"name": "door", "context": {"cluster": "door", "user": "admin"}}],
            "users": [{"name": "admin", "user": {
                "client-certificate-data": certificate, "client-key-data": key,
            }}],
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, JSON, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call("POST", path, JSON, &body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.call("PUT", path, JSON, &body.to_string()).await
    }

    pub(crate) async fn patch(&self, path: &str, content_type: &str, body: Value) -> Reply {
        self.call("PATCH", path, content_type, &body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, JSON, "").await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, kind: &str, body: &str) -> Reply {
        self.call_as(Who::Admin, method, path, &[("content-type", kind)], body.as_bytes()).await
    }

    /// As somebody else, whom the admin may be taken for.
    pub(crate) async fn acting(
        &self,
        user: &str,
        groups: &[&str],
        method: &str,
        path: &str,
        body: &Value,
    ) -> Reply {
        let mut headers = vec![("content-type", JSON), ("impersonate-user", user)];
        headers.extend(groups.iter().map(|it| ("impersonate-group", *it)));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call_as(Who::Admin, method, path, &headers, body.as_bytes()).await
    }

    /// With a bearer token and no certificate.
    pub(crate) async fn bearing(&self, token: &str, method: &str, path: &str) -> Reply {
        let bearer = format!("Bearer {token}");
        self.call_as(Who::Nobody, method, path, &[("authorization", &bearer)], b"").await
    }

    pub(crate) async fn call_as(
        &self,
        who: Who,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let answer = self.send(who, method, path, headers, body).await;
        let (code, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.into_body().collect().await.expect("a whole body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Reply { code, headers, body, text, bytes }
    }

    async fn send(
        &self,
        who: Who,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> http::Response<Incoming> {
        let connector = match who {
            Who::Admin => &self.admin,
            Who::Guest => &self.guest,
            Who::Nobody => &self.nobody,
        };
        let stream = TcpStream::connect(self.address).await.expect("the door is open");
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = connector.connect(name, stream).await.expect("a handshake");
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.expect("HTTP");
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder().method(method).uri(path).header("host", "door");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body));
        sender.send_request(request.body(body).unwrap()).await.expect("an answer")
    }

    /// A bare connection.
    pub(crate) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the door is open")
    }

    /// A connection as admin on which nothing has been said.
    pub(crate) async fn tls(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        self.admin.connect(name, self.tcp().await).await.expect("a handshake")
    }

    /// A connection that both sides agreed to use for something else.
    pub(crate) async fn upgrade(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> TokioIo<hyper::upgrade::Upgraded> {
        let answer = self.send(Who::Admin, "GET", path, headers, b"").await;
        assert_eq!(answer.status(), 101);
        TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"))
    }

    /// The lines of a watch as they come.
    pub(crate) async fn watch(&self, path: &str) -> Lines {
        self.watch_as(path, JSON).await
    }

    /// The bytes of an answer as they come.
    pub(crate) async fn stream(&self, path: &str, accept: &str) -> http::Response<Incoming> {
        self.send(Who::Admin, "GET", path, &[("accept", accept)], b"").await
    }

    pub(crate) async fn watch_as(&self, path: &str, accept: &str) -> Lines {
        let answer = self.send(Who::Admin, "GET", path, &[("accept", accept)], b"").await;
        assert_eq!(answer.status(), 200);
        Lines { body: answer.into_body(), rest: Vec::new() }
    }
}

pub(crate) struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next event; `None` when the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|it| *it == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("one JSON document a line"));
            }
            let frame = self.body.frame().await?.expect("an unbroken stream");
            if let Ok(data) = frame.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }

    /// `ADDED a`: the type and the name of the next event.
    pub(crate) async fn told(&mut self) -> String {
        let event = self.next().await.expect("the watch goes on");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        format!("{} {name}", event["type"].as_str().unwrap_or_default()).trim().to_owned()
    }
}

fn connector(
    ca: CertificateDer<'static>,
    own: Option<(CertificateDer<'static>, KeyPair)>,
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}
