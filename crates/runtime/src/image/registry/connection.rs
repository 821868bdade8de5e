//! One request to a registry over a connection of its own, with deadlines and redirects.

use super::{PullError, Registries, Registry, Result, settings::is_loopback};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A host that does not answer a connection in this time is not there. TCP repeats after 1, 3 and 7 s.
const CONNECT_PATIENCE: Duration = Duration::from_secs(8);

/// Registries look up blobs in far-away stores before they say anything.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Without a single byte for so long, a download is dead.
pub(super) const PIECE_PATIENCE: Duration = Duration::from_secs(60);

/// Blobs are behind one redirect, sometimes two.
const REDIRECTS_MAX: u32 = 5;

/// Tokens, manifests and configs. Registries cap manifests at 4 MiB.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// What is asked.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Ask {
    pub(super) fn get(url: Uri) -> Ask {
        Ask { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

impl Registries {
    /// Asks, and follows redirects; who is asked elsewhere does not see the authorization.
    pub(super) async fn send(
        &self,
        registry: &Registry,
        mut ask: Ask,
    ) -> Result<Response<Incoming>> {
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send_once(registry, &ask).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = response.headers().get(header::LOCATION).and_then(|it| it.to_str().ok());
            let next = target.and_then(|target| resolve(&ask.url, target)).ok_or_else(|| {
                PullError::Unfit(format!("{} redirects to nowhere", host_of(&ask.url)))
            })?;
            if ask.url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(PullError::Unfit(format!(
                    "{} redirects from https to {}, without TLS",
                    host_of(&ask.url),
                    host_of(&next)
                )));
            }
            if next.authority() != ask.url.authority() {
                ask.headers.remove(header::AUTHORIZATION);
            }
            ask.url = next;
        }
        Err(PullError::Unfit(format!("{} redirects without end", host_of(&ask.url))))
    }

    async fn send_once(&self, registry: &Registry, ask: &Ask) -> Result<Response<Incoming>> {
        let host = host_of(&ask.url);
        let tls = ask.url.scheme_str() == Some("https");
        let attempted = format!("reach {}://{host}", if tls { "https" } else { "http" });
        let failed = |source: io::Error| PullError::unreachable(attempted.clone(), source);
        let name = ask.url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = ask.url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = stdx::timeout(CONNECT_PATIENCE, async {
            let stream = TcpStream::connect((name.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            if !tls {
                return Ok::<_, io::Error>(Box::new(stream) as Box<dyn Stream>);
            }
            let config = self.tls(registry).map_err(io::Error::other)?;
            let server = name.clone().try_into().map_err(io::Error::other)?;
            let connector = tokio_rustls::TlsConnector::from(config);
            Ok(Box::new(connector.connect(server, stream).await?) as Box<dyn Stream>)
        });
        let slow = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        let stream = stream.await.ok_or_else(|| failed(slow()))?.map_err(&failed)?;
        let broken = |error: hyper::Error| failed(io::Error::other(error));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(&broken)?;
        // It ends with the response's body, or when that is dropped.
        tokio::spawn(connection);
        let path = ask.url.path_and_query().map_or("/", |it| it.as_str());
        let mut request = Request::builder().method(ask.method.clone()).uri(path);
        if let Some(headers) = request.headers_mut() {
            headers.extend(ask.headers.clone());
            let host =
                HeaderValue::from_str(&host).map_err(|error| failed(io::Error::other(error)))?;
            headers.insert(header::HOST, host);
            headers.insert(header::USER_AGENT, HeaderValue::from_static("stanchion"));
        }
        let request = request
            .body(Full::new(ask.body.clone()))
            .map_err(|error| failed(io::Error::other(error)))?;
        let response = stdx::timeout(ANSWER_PATIENCE, sender.send_request(request)).await;
        response.ok_or_else(|| failed(slow()))?.map_err(&broken)
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A small body as a whole.
pub(super) async fn document(host: &str, response: Response<Incoming>) -> Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect();
    let attempted = || format!("read an answer of {host}");
    let slow = || io::Error::new(io::ErrorKind::TimedOut, "nothing more came");
    match stdx::timeout(PIECE_PATIENCE, body).await {
        None => Err(PullError::unreachable(attempted(), slow())),
        Some(Err(error)) => Err(PullError::unreachable(attempted(), io::Error::other(error))),
        Some(Ok(body)) => Ok(body.to_bytes()),
    }
}

/// An answer that is no success, in the words that the registry finds for it.
pub(super) async fn refusal(host: &str, response: Response<Incoming>) -> PullError {
    let status = response.status();
    let said = match document(host, response).await {
        Ok(body) => said(&body),
        Err(_) => String::new(),
    };
    match status {
        StatusCode::NOT_FOUND => PullError::NotFound(said),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            PullError::Denied(format!("{host} answers {status}{said}"))
        }
        status => PullError::Answer { host: host.to_owned(), status, said },
    }
}

/// `: manifest unknown`, from the JSON that registries explain themselves with; empty if it is none.
fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(serde::Deserialize)]
    struct Error {
        #[serde(default)]
        code: String,
        message: Option<String>,
    }
    /// Enough for a sentence; the rest is for the registry's log.
    const CHARACTERS_MAX: usize = 200;
    let Ok(parsed) = serde_json::from_slice::<Errors>(body) else { return String::new() };
    let Some(error) = parsed.errors.into_iter().next() else { return String::new() };
    let text = error.message.filter(|it| !it.is_empty()).unwrap_or(error.code);
    let plain: String = text.chars().filter(|c| !c.is_control()).take(CHARACTERS_MAX).collect();
    if plain.is_empty() { plain } else { format!(": {plain}") }
}

/// Host and, where it is said, port.
pub(super) fn host_of(url: &Uri) -> String {
    url.authority().map_or_else(String::new, |it| it.as_str().to_owned())
}

/// Whether secrets may be sent there: over TLS, or to this machine.
pub(super) fn is_private(url: &Uri) -> bool {
    url.scheme_str() == Some("https") || is_loopback(&host_of(url))
}

/// Where a redirect leads: a whole URL, or a path on the same host.
fn resolve(from: &Uri, target: &str) -> Option<Uri> {
    if let Ok(url) = target.parse::<Uri>()
        && matches!(url.scheme_str(), Some("http" | "https"))
        && url.authority().is_some_and(|it| !it.as_str().contains('@'))
    {
        return Some(url);
    }
    if !target.starts_with('/') || target.starts_with("//") {
        return None;
    }
    format!("{}://{}{target}", from.scheme_str()?, from.authority()?).parse().ok()
}
