//! The node's server, over real TLS on loopback.

use crate::fakes::{Node, with_volumes};
use api::Object;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use std::{io::Write, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener},
};

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, group: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, group);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }

    fn server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(self.roots(), provider.clone());
        let (chain, key) = self.leaf("system:nodes");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(chain, key);
        Arc::new(config.unwrap())
    }

    async fn get(&self, group: &str, port: u16, path: &str) -> (StatusCode, Incoming) {
        let request = Request::get(path).header("host", "n1").body(Empty::<Bytes>::new()).unwrap();
        let answer = self.send(group, port, request).await;
        (answer.status(), answer.into_body())
    }

    async fn send(
        &self,
        group: &str,
        port: u16,
        request: Request<Empty<Bytes>>,
    ) -> Response<Incoming> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (chain, key) = self.leaf(group);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TokioIo::new(connector.connect(name, stream).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.unwrap()
    }

    async fn text(&self, group: &str, port: u16, path: &str) -> (u16, String) {
        let (status, body) = self.get(group, port, path).await;
        let body = body.collect().await.unwrap().to_bytes();
        (status.as_u16(), String::from_utf8_lossy(&body).into_owned())
    }
}

#[tokio::test]
async fn tells_administrators_and_nobody_else_what_containers_print() {
    let authority = Authority::new();
    let node = Node::new();
    let pod = with_volumes(&node.client);
    node.client.put(pod);
    let running = node.start_with(Some(authority.server())).await;
    let port = running.kubelet.port().expect("a server");
    let pod = node.until_ready("web-0").await;
    let admin = "system:masters";
    assert_eq!(authority.text("system:nodes", port, "/healthz").await, (200, "ok".to_owned()));
    assert_eq!(authority.text("system:nodes", port, "/pods").await.0, 401);
    let (status, pods) = authority.text(admin, port, "/pods").await;
    assert!(status == 200 && pods.contains("web-0"), "{status} {pods}");
    let (status, summary) = authority.text(admin, port, "/stats/summary").await;
    assert!(status == 200 && summary.contains("\"pvcRef\":{\"name\":\"data\""), "{summary}");

    let log = node.runtime.observed(pod.uid()).containers[0].log_path.clone();
    let mut file = std::fs::OpenOptions::new().append(true).open(log).unwrap();
    writeln!(file, "2026-11-21T10:00:00.000000001Z stdout F one").unwrap();
    let path = "/containerLogs/default/web-0/app";
    assert_eq!(authority.text(admin, port, path).await, (200, "one\n".to_owned()));
    let (status, mut body) = authority.get(admin, port, &format!("{path}?follow=true")).await;
    assert_eq!(status, StatusCode::OK);
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "one\n");
    writeln!(file, "2026-11-21T10:00:01.000000001Z stdout F two").unwrap();
    let second = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(second, "two\n");
    node.runtime.exit(pod.uid(), "app", 0);
    assert!(body.frame().await.is_none(), "it ends with the container");

    let (status, why) = authority.text(admin, port, "/containerLogs/default/none/app").await;
    assert_eq!((status, why.as_str()), (404, "pod \"none\" does not exist"));
    let (status, _) = authority.text(admin, port, "/exec/default/web-0/nobody?command=x").await;
    assert_eq!(status, 500);
}

/// Agrees to one upgrade of `/exec/t1` and gives back what it gets, in capitals.
async fn shout(listener: UnixListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(
        head.starts_with("get /exec/t1 http/1.1") && head.contains("sec-websocket-key: k"),
        "{head}"
    );
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\n\r\n";
    stream.write_all(agreed.as_bytes()).await.unwrap();
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.unwrap();
    stream.write_all(&said.to_ascii_uppercase()).await.unwrap();
}

#[tokio::test]
async fn streams_of_a_command_are_handed_on_byte_for_byte() {
    let authority = Authority::new();
    let node = Node::new();
    let pod = with_volumes(&node.client);
    node.client.put(pod);
    let running = node.start_with(Some(authority.server())).await;
    let port = running.kubelet.port().expect("a server");
    node.until_ready("web-0").await;
    let socket = node.directory.path().join("s.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    *node.runtime.streams.lock().unwrap() = Some(format!("unix://{}/exec/t1", socket.display()));
    let shouting = tokio::spawn(shout(listener));
    let request = Request::get("/exec/default/web-0/app?command=sh&input=1&output=1")
        .header("host", "n1")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "k")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = authority.send("system:masters", port, request).await;
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["sec-websocket-accept"], "a");
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HELLO");
    shouting.await.unwrap();
    assert_eq!(stream.read(&mut heard).await.unwrap(), 0, "it ends with the command");
}
