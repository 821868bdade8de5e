//! One kept-alive TLS connection with the admin's certificate, as a client of the API has it.

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where the API is and who asks.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Access {
    /// Reads the kubeconfig that the server wrote: one cluster, one user.
    pub(crate) fn read(kubeconfig: &Path) -> Result<Access> {
        let attempt = || format!("read {}", kubeconfig.display());
        let text = std::fs::read_to_string(kubeconfig).with_context(attempt)?;
        let value = |name: &str| {
            let line = text.lines().find_map(|it| it.trim().strip_prefix(name));
            line.map(str::trim).ok_or_else(|| anyhow!("{}: no {name}", attempt()))
        };
        let pem = |name: &str| Ok::<_, anyhow::Error>(STANDARD.decode(value(name)?)?);
        let address = value("server: https://")?.parse().with_context(attempt)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem("certificate-authority-data:")?)?)?;
        let chain = vec![CertificateDer::from_pem_slice(&pem("client-certificate-data:")?)?];
        let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data:")?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Access { address, tls: Arc::new(tls) })
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await.context("connect to the API")?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, host: self.address.to_string() })
    }
}

pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Sends a request; its answer's body comes as it comes.
    pub(crate) async fn open(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<hyper::Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(body.into()))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and reads the whole answer, which must be a success.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<Bytes> {
        let answer = self.open(method.clone(), path, content_type, body).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    pub(crate) async fn read(&mut self, path: &str) -> Result<Bytes> {
        self.ask(Method::GET, path, JSON, Bytes::new()).await
    }

    pub(crate) async fn create(&mut self, path: &str, body: String) -> Result<Bytes> {
        self.ask(Method::POST, path, JSON, body).await
    }
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";

/// The lines of a watch.
pub(crate) struct Lines {
    body: Incoming,
    rest: Vec<u8>,
    /// Where in `rest` no line end was found so far.
    searched: usize,
}

impl Lines {
    pub(crate) async fn watch(access: &Access, path: &str) -> Result<Lines> {
        let mut connection = access.connect().await?;
        let answer = connection.open(Method::GET, path, JSON, Bytes::new()).await?;
        if !answer.status().is_success() {
            bail!("GET {path}: {}", answer.status());
        }
        Ok(Lines { body: answer.into_body(), rest: Vec::new(), searched: 0 })
    }

    pub(crate) async fn next(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = self.rest[self.searched..].iter().position(|it| *it == b'\n') {
                let rest = self.rest.split_off(self.searched + at + 1);
                self.searched = 0;
                return Ok(std::mem::replace(&mut self.rest, rest));
            }
            self.searched = self.rest.len();
            let frame = self.body.frame().await.context("the watch ended")??;
            if let Ok(data) = frame.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }
}
