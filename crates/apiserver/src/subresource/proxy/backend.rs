//! Where a proxied request goes: an address in the cluster, or a node's own server.

use crate::{node, server::Server, target::Target};
use api::{
    Failure,
    core::v1::{EndpointAddress, Endpoints, Node, Pod, Service},
};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use world::{ObjectKey, Typed, World};

/// A backend that does not answer within this time is not there.
const DIAL: Duration = Duration::from_secs(30);

pub(super) enum Backend {
    Direct { tls: bool, address: IpAddr, port: u16, host: String },
    Node(Typed<Node>),
}

/// `name`, `name:port` or `scheme:name:port`.
///
/// Upstream: `apimachinery/pkg/util/net/port_split.go`, SplitSchemeNamePort.
fn split(id: &str) -> Option<(bool, &str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (tls, name, port) = match parts.as_slice() {
        [name] => (false, *name, ""),
        [name, port] => (false, *name, *port),
        ["" | "http", name, port] => (false, *name, *port),
        ["https", name, port] => (true, *name, *port),
        _ => return None,
    };
    (!name.is_empty()).then_some((tls, name, port))
}

pub(super) async fn find(server: &Server, target: &Target) -> Result<Backend, Failure> {
    let view = server.fresh(None).await?;
    let id = target.name.as_str();
    let kind = target.kind.kind.as_str();
    let invalid =
        || Failure::bad_request(format!("invalid {} request {id:?}", kind.to_lowercase()));
    let (tls, name, port) = split(id).ok_or_else(invalid)?;
    let missing = || Failure::not_found(&target.kind, name);
    let key = ObjectKey::new(&target.namespace, name);
    match kind {
        "Pod" => {
            let pod: Typed<Pod> = view.world.get(&key).ok_or_else(missing)?;
            let address = pod.status.as_ref().and_then(|it| it.pod_ip.as_deref());
            let named = pod.spec.iter().flat_map(|it| &it.containers).flat_map(|it| &it.ports);
            let first = named.flatten().next().map(|it| it.container_port.to_string());
            let port = if port.is_empty() { first.unwrap_or_default() } else { port.to_owned() };
            direct(tls, address.unwrap_or_default(), &port)
        }
        "Service" => {
            let service: Typed<Service> = view.world.get(&key).ok_or_else(missing)?;
            let endpoints: Option<Typed<Endpoints>> = view.world.get(&key);
            let nobody =
                || Failure::unavailable(format!("no endpoints available for service {id:?}"));
            let port = service_port(&service, name, port)?;
            let endpoints = endpoints.ok_or_else(nobody)?;
            let mut all: Vec<(&str, i32)> = Vec::new();
            for subset in endpoints.subsets.iter().flatten() {
                let ports = subset.ports.iter().flatten();
                for number in ports.filter(|it| it.name.as_deref().unwrap_or_default() == port) {
                    let namespace = target.namespace.as_str();
                    let pods = subset.addresses.iter().flatten();
                    let pods = pods.filter(|it| is_of_pod(&view.world, namespace, it));
                    all.extend(pods.map(|it| (it.ip.as_str(), number.port)));
                }
            }
            let chosen = server.config.entropy.below(all.len().max(1) as u64);
            let chosen = usize::try_from(chosen).ok().and_then(|it| all.get(it));
            let (address, port) = chosen.ok_or_else(nobody)?;
            direct(tls, address, &port.to_string())
        }
        _ => {
            let node: Typed<Node> = view.world.cluster(name).ok_or_else(missing)?;
            let own = node::address(&node).map(|it| it.port().to_string()).unwrap_or_default();
            if port.is_empty() || port == own {
                return Ok(Backend::Node(node));
            }
            let addresses = node.status.iter().flat_map(|it| &it.addresses).flatten();
            let internal = addresses.filter(|it| it.type_ == "InternalIP").map(|it| &it.address);
            let address = internal.clone().next().map(String::as_str).unwrap_or_default();
            direct(tls, address, port)
        }
    }
}

/// Whether it is an address of a pod of this namespace: whoever writes Endpoints gets nowhere else by them.
fn is_of_pod(world: &World, namespace: &str, address: &EndpointAddress) -> bool {
    let target = address.target_ref.as_ref();
    let target = target.filter(|it| it.namespace.as_deref() == Some(namespace));
    let name = target.and_then(|it| it.name.as_deref()).unwrap_or_default();
    let pod = world.get::<Pod>(&ObjectKey::new(namespace, name));
    let Some(status) = pod.as_ref().and_then(|it| it.status.as_ref()) else { return false };
    let all = status.pod_ips.iter().flatten().map(|it| &it.ip).chain(&status.pod_ip);
    all.into_iter().any(|it| *it == address.ip)
}

/// The name of the port that was asked for by its name or number.
fn service_port(service: &Service, name: &str, port: &str) -> Result<String, Failure> {
    let Ok(number) = port.parse::<i64>() else { return Ok(port.to_owned()) };
    let mut ports = service.spec.iter().flat_map(|it| &it.ports).flatten();
    let found = ports.find(|it| i64::from(it.port) == number);
    let found = found.ok_or_else(|| {
        Failure::unavailable(format!("no service port {number} found for service {name:?}"))
    })?;
    Ok(found.name.clone().unwrap_or_default())
}

fn direct(tls: bool, address: &str, port: &str) -> Result<Backend, Failure> {
    let refused = || Failure::bad_request("address not allowed");
    let address: IpAddr = address.parse::<IpAddr>().map_err(|_| refused())?.to_canonical();
    // The door must not be a way to the machine it stands on.
    let local = match address {
        IpAddr::V4(it) => it.is_link_local(),
        IpAddr::V6(it) => it.is_unicast_link_local(),
    };
    if local || address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(refused());
    }
    let port = match port {
        "" if tls => 443,
        "" => 80,
        port => port.parse().map_err(|_| {
            Failure::unavailable(format!("error trying to reach service: {port:?} is no port"))
        })?,
    };
    let host = std::net::SocketAddr::new(address, port).to_string();
    Ok(Backend::Direct { tls, address, port, host })
}

impl Backend {
    /// What the backend calls itself in links.
    pub(super) fn host(&self) -> &str {
        match self {
            Backend::Direct { host, .. } => host,
            Backend::Node(_) => "",
        }
    }

    pub(super) async fn send(
        &self,
        server: &Server,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, Failure> {
        let (tls, address, port) = match self {
            Backend::Node(node) => return node::send(server.node_proxy()?, node, request).await,
            Backend::Direct { tls, address, port, .. } => (*tls, *address, *port),
        };
        let failed = |why: &dyn std::fmt::Display| {
            Failure::unavailable(format!("error trying to reach service: {why}"))
        };
        let dialed = |why: &dyn std::fmt::Display| {
            failed(&format!("dial tcp {}: {why}", std::net::SocketAddr::new(address, port)))
        };
        let stream = match stdx::timeout(DIAL, TcpStream::connect((address, port))).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Err(dialed(&"connect: connection refused"));
            }
            Some(Err(error)) => return Err(dialed(&error)),
            None => return Err(dialed(&"i/o timeout")),
        };
        let _without_delay = stream.set_nodelay(true);
        if !tls {
            return exchange(stream, request).await.map_err(|error| failed(&error));
        }
        let config = trusting().map_err(|error| failed(&error))?;
        let connect =
            TlsConnector::from(config).connect(ServerName::IpAddress(address.into()), stream);
        match stdx::timeout(DIAL, connect).await {
            Some(Ok(stream)) => exchange(stream, request).await.map_err(|error| failed(&error)),
            Some(Err(error)) => Err(failed(&error)),
            None => Err(dialed(&"TLS handshake timeout")),
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Incoming>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!("a connection to a backend broke: {error}");
        }
    });
    sender.send_request(request).await
}

/// Pods have certificates of their own making; upstream does not look at them either.
fn trusting() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let known = Arc::new(AnyCertificate(provider.signature_verification_algorithms));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(known)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_a_port_and_a_scheme() {
        assert_eq!(split("web"), Some((false, "web", "")));
        assert_eq!(split("web:80"), Some((false, "web", "80")));
        assert_eq!(split("http:web:"), Some((false, "web", "")));
        assert_eq!(split("https:web:tls"), Some((true, "web", "tls")));
        for wrong in ["", ":80", "ftp:web:80", "a:b:c:d"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_door_leads_nowhere_near_itself() {
        for address in
            ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "", "metadata"]
        {
            assert!(direct(false, address, "80").is_err(), "{address}");
        }
        assert_eq!(direct(true, "10.0.0.1", "").unwrap().host(), "10.0.0.1:443");
    }
}
