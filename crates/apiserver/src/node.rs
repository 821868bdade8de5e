//! Reaching a node's own server: logs and streams of its containers.

use crate::{authn, server::Server};
use api::{
    Failure,
    core::v1::{Node, Pod},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, IpAddr, ServerName},
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use stdx::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// A two-way stream of bytes.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// How the door reaches a node's server.
pub trait NodeProxy: Send + Sync {
    /// Opens a connection on which HTTP/1.1 can be spoken at once.
    fn dial(
        &self,
        node: &str,
        address: SocketAddr,
    ) -> BoxFuture<'_, io::Result<Box<dyn Connection>>>;
}

/// TLS with a client certificate: both sides know each other.
pub struct TlsNodeProxy {
    connector: TlsConnector,
}

impl TlsNodeProxy {
    /// `own` is asked for the door's certificate at every handshake; `ca` signs those of nodes.
    pub fn new(
        own: Arc<dyn ResolvesClientCert>,
        ca: Vec<CertificateDer<'static>>,
    ) -> Result<TlsNodeProxy, crate::Error> {
        let wrong = |error: rustls::Error| crate::Error::Tls(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in ca {
            roots.add(certificate).map_err(wrong)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_root_certificates(roots)
            .with_client_cert_resolver(own);
        Ok(TlsNodeProxy { connector: TlsConnector::from(Arc::new(config)) })
    }
}

impl NodeProxy for TlsNodeProxy {
    /// A node says itself by which address it is reached, and an address may be another machine's by now: who answers
    /// is judged by the name that its certificate shows, or a volume is erased where it never was.
    fn dial(
        &self,
        node: &str,
        address: SocketAddr,
    ) -> BoxFuture<'_, io::Result<Box<dyn Connection>>> {
        let (node, expected) = (node.to_owned(), format!("system:node:{node}"));
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::IpAddress(IpAddr::from(address.ip()));
            let stream = self.connector.connect(name, stream).await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(|it| it.first());
            match shown.and_then(authn::user_of) {
                Some(user) if user.name == expected => {}
                Some(user) => {
                    let why = format!("{address} is not node {node} but {:?}", user.name);
                    return Err(io::Error::other(why));
                }
                None => return Err(io::Error::other(format!("{address} is not node {node}"))),
            }
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }
}

/// A node that does not answer within this time is not there.
const DIAL: Duration = Duration::from_secs(10);

/// Where the server of a pod's node listens.
pub(crate) fn address(node: &Node) -> Option<SocketAddr> {
    let status = node.status.as_ref()?;
    let internal = status.addresses.iter().flatten().find(|it| it.type_ == "InternalIP")?;
    let endpoint = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?;
    let port = u16::try_from(endpoint.port).ok()?;
    Some(SocketAddr::new(internal.address.parse().ok()?, port))
}

/// Sends one request to the server of the pod's node. The connection may be upgraded.
pub(crate) async fn send<B>(
    proxy: &dyn NodeProxy,
    node: &Node,
    request: Request<B>,
) -> Result<Response<Incoming>, Failure>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(500, "InternalError", format!("error dialing backend: {why}"))
    };
    let address =
        address(node).ok_or_else(|| failed(&format!("node {name} has no address or no server")))?;
    let stream = match stdx::timeout(DIAL, proxy.dial(name, address)).await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => return Err(failed(&format!("dial tcp {address}: {error}"))),
        None => return Err(failed(&format!("dial tcp {address}: i/o timeout"))),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!("a connection to a node broke: {error}");
        }
    });
    sender.send_request(request).await.map_err(|error| failed(&error))
}

/// More than any answer of a node to a loop.
const ANSWER_MAX: usize = 1024 * 1024;

impl Server {
    /// Posts to a node's own server: code and body of its answer.
    ///
    /// # Errors
    /// When there is no such node, or it cannot be reached or does not answer within `wait`.
    pub async fn ask_node(
        &self,
        name: &str,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<(u16, Bytes), Failure> {
        let view = self.ledger.view();
        let node = view.world.cluster::<Node>(name);
        let node = node.ok_or_else(|| Failure::not_found(api::kind_of::<Node>(), name))?;
        let request = Request::post(path)
            .header(http::header::HOST, name)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(Failure::internal)?;
        let asked = async {
            let answer = send(self.node_proxy()?, &node, request).await?;
            let code = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            Ok((code, body.map_err(Failure::internal)?.to_bytes()))
        };
        let late = || Err(Failure::unavailable(format!("node {name} does not answer")));
        stdx::timeout(wait, asked).await.unwrap_or_else(late)
    }
}

/// The container that is meant, by upstream's rules.
pub(crate) fn container(pod: &Pod, asked: &str) -> Result<String, Failure> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Err(Failure::bad_request("the pod has no spec")) };
    let init = spec.init_containers.iter().flatten().map(|it| it.name.as_str());
    let own = spec.containers.iter().map(|it| it.name.as_str());
    let debug = spec.ephemeral_containers.iter().flatten().map(|it| it.name.as_str());
    let all: Vec<&str> = init.chain(own).chain(debug).collect();
    match (asked, spec.containers.as_slice()) {
        ("", [only]) => Ok(only.name.clone()),
        ("", []) => {
            Err(Failure::bad_request(format!("a container name must be specified for pod {name}")))
        }
        ("", _) => Err(Failure::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
        (asked, _) if all.contains(&asked) => Ok(asked.to_owned()),
        (asked, _) => {
            Err(Failure::bad_request(format!("container {asked} is not valid for pod {name}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        sign::{CertifiedKey, SingleCertAndKey},
    };
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    struct Authority {
        certificate: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Authority {
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap().der().clone();
            Authority { certificate, issuer: Issuer::new(params, key) }
        }

        fn issue(&self, name: &str) -> Arc<SingleCertAndKey> {
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            let chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            let provider = rustls::crypto::ring::default_provider();
            let key = CertifiedKey::from_der(chain, key, &provider).unwrap();
            Arc::new(SingleCertAndKey::from(key))
        }
    }

    /// Shakes hands with one who comes.
    async fn serve(listener: &TcpListener, own: Arc<SingleCertAndKey>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(own);
        let (stream, _) = listener.accept().await.unwrap();
        let _shaken = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    }

    /// A machine died as n1 and came back as n2 with the address that it had: it was asked to delete n1's volumes, knew
    /// none of them, and said that they were gone.
    #[tokio::test]
    async fn whoever_has_the_address_of_a_node_is_not_the_node() {
        let authority = Authority::new();
        let door = authority.issue("kube-apiserver-kubelet-client");
        let proxy = TlsNodeProxy::new(door, vec![authority.certificate.clone()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (shown, expected) in [
            ("system:node:n1", Ok(())),
            ("system:node:n2", Err("is not node n1 but \"system:node:n2\"")),
            ("kube-apiserver", Err("is not node n1 but \"kube-apiserver\"")),
            ("n1", Err("is not node n1 but \"n1\"")),
        ] {
            let own = authority.issue(shown);
            let (dialed, ()) = tokio::join!(proxy.dial("n1", address), serve(&listener, own));
            let dialed = dialed.map(drop).map_err(|error| error.to_string());
            let expected = expected.map_err(|why| format!("{address} {why}"));
            assert_eq!(dialed, expected, "{shown}");
        }
    }
}
