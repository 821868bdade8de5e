//! HTTP/2 over TLS to one server: many requests and watches on few connections, opened when needed and opened again
//! when they break.

use super::failure;
use api::Failure;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server that does not take a connection within this time is not there.
const CONNECT: Duration = Duration::from_secs(10);
/// Longer than any request takes that is no watch.
const ANSWER: Duration = Duration::from_secs(30);
/// A connection over which nothing came for so long is asked whether it lives; upstream waits 30 s and 15 s, but a
/// node must have renewed its lease through another one by then.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(10);
/// Less than the hundred streams that servers allow on one connection.
const STREAMS_MAX: usize = 80;
/// Connections at once: as many watches as a node with a full house of pods has.
const CONNECTIONS_MAX: usize = 32;
/// More than any object.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Which server, and as whom.
#[derive(Clone)]
pub struct Way {
    /// `10.0.0.1:6443`
    pub authority: String,
    /// Offers `h2`; its resolver says which certificate is shown.
    pub tls: Arc<rustls::ClientConfig>,
    pub token: Option<String>,
}

/// A server, reached. Cheap to share.
pub struct Connection {
    way: Way,
    name: ServerName<'static>,
    open: Mutex<Vec<Open>>,
    opening: tokio::sync::Mutex<()>,
}

struct Open {
    sender: http2::SendRequest<Full<Bytes>>,
    /// As many as there are streams, and one.
    streams: Arc<()>,
}

/// One stream of a connection.
struct Turn {
    sender: http2::SendRequest<Full<Bytes>>,
    stream: Arc<()>,
}

/// An answer that is read as it comes.
pub(super) struct Stream {
    body: Incoming,
    rest: Vec<u8>,
    _stream: Arc<()>,
}

impl Connection {
    /// # Errors
    /// When the authority names no host.
    pub fn new(way: Way) -> Result<Connection, Failure> {
        let host = way.authority.rsplit_once(':').map_or(way.authority.as_str(), |it| it.0);
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host)
            .map_err(|error| Failure::bad_request(format!("{}: {error}", way.authority)))?;
        Ok(Connection { way, name, open: Mutex::default(), opening: Default::default() })
    }

    /// Sends one request and reads its answer; a refusal is a failure in the server's words.
    ///
    /// # Errors
    /// 503 when the server cannot be reached.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Bytes, Failure> {
        self.call_as(method, path, "application/json", body).await
    }

    pub(super) async fn call_as(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Option<Bytes>,
    ) -> Result<Bytes, Failure> {
        let answered = stdx::timeout(ANSWER, async {
            let (answer, _stream) = self.send(method, path, content_type, body).await?;
            let code = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
            Ok((code, body.map_err(|error| self.broken(&error))?.to_bytes()))
        });
        let (code, body) =
            answered.await.unwrap_or_else(|| Err(self.broken(&"no answer within 30s")))?;
        if (200..300).contains(&code) { Ok(body) } else { Err(failure::read(code, &body)) }
    }

    /// Opens a watch.
    pub(super) async fn stream(&self, path: &str) -> Result<Stream, Failure> {
        let sent = stdx::timeout(ANSWER, self.send("GET", path, "application/json", None));
        let sent = sent.await.unwrap_or_else(|| Err(self.broken(&"no answer within 30s")));
        let (answer, stream) = sent?;
        let code = answer.status().as_u16();
        if (200..300).contains(&code) {
            return Ok(Stream { body: answer.into_body(), rest: Vec::new(), _stream: stream });
        }
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect();
        let body = stdx::timeout(ANSWER, body).await;
        let body = body.and_then(Result::ok).map(|it| it.to_bytes()).unwrap_or_default();
        Err(failure::read(code, &body))
    }

    /// Lets go of every connection: what is open ends, what comes next shakes hands anew.
    pub fn renew(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Option<Bytes>,
    ) -> Result<(Response<Incoming>, Arc<()>), Failure> {
        let mut turn = self.turn().await?;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.way.authority))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "stanchion-node");
        if let Some(token) = &self.way.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| Failure::bad_request(format!("{method} {path}: {error}")))?;
        let answer =
            turn.sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        Ok((answer, turn.stream))
    }

    /// A free stream of an open connection, or of a new one.
    async fn turn(&self) -> Result<Turn, Failure> {
        if let Some(turn) = self.free() {
            return Ok(turn);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(turn) = self.free() {
            return Ok(turn);
        }
        if self.open.lock().unwrap_or_else(PoisonError::into_inner).len() >= CONNECTIONS_MAX {
            return Err(self.broken(&"every connection is busy"));
        }
        let connected = stdx::timeout(CONNECT, self.connect()).await;
        let sender = connected.unwrap_or_else(|| Err(self.broken(&"no connection within 10s")))?;
        let (stream, streams) = (Arc::new(()), Arc::new(()));
        let turn = Turn { sender: sender.clone(), stream: streams.clone() };
        drop(stream);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(Open { sender, streams });
        Ok(turn)
    }

    fn free(&self) -> Option<Turn> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|it| !it.sender.is_closed());
        let free = open.iter().find(|it| Arc::strong_count(&it.streams) <= STREAMS_MAX)?;
        Some(Turn { sender: free.sender.clone(), stream: free.streams.clone() })
    }

    async fn connect(&self) -> Result<http2::SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(&self.way.authority).await;
        let stream = stream.map_err(|error| self.broken(&error))?;
        stream.set_nodelay(true).map_err(|error| self.broken(&error))?;
        let connector = TlsConnector::from(self.way.tls.clone());
        let stream = connector.connect(self.name.clone(), stream).await;
        let stream = stream.map_err(|error| self.broken(&error))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection to the server broke: {error}");
            }
        });
        Ok(sender)
    }

    fn broken(&self, why: &dyn fmt::Display) -> Failure {
        Failure::unavailable(format!("reach https://{}: {why}", self.way.authority))
    }
}

impl Stream {
    /// The next line; none at the end.
    pub(super) async fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let broken = |why: &dyn fmt::Display| Failure::unavailable(format!("read a watch: {why}"));
        let mut searched = 0;
        loop {
            if let Some(at) = self.rest[searched..].iter().position(|it| *it == b'\n') {
                let rest = self.rest.split_off(searched + at + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, rest)));
            }
            searched = self.rest.len();
            if searched > BYTES_MAX {
                return Err(broken(&"a line is too long"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
