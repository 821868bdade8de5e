//! One check: a command, a request, a connection. Upstream: `pkg/probe/{exec,http,tcp,grpc}`.

use super::check_grpc;
use crate::{plan::human, runtime::Runtime, spec::expansion::expand};
use api::{
    core::v1::{Container, HTTPGetAction, Probe},
    k8s::apimachinery::pkg::util::intstr::IntOrString,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use std::{collections::BTreeMap, time::Duration};
use tokio::net::TcpStream;

/// Upstream: `maxRespBodyLength`.
const BODY_BYTES_MAX: usize = 10 * 1024;

/// As Go's client.
const REDIRECTS_MAX: usize = 10;

/// What the cause of a TLS handshake with a server that speaks plain HTTP contains.
pub(crate) const NOT_TLS: &str = "server gave HTTP response to HTTPS client";

#[derive(Clone, Debug)]
pub(crate) enum Check {
    Exec(Vec<String>),
    Http(Url),
    Tcp {
        host: String,
        port: u16,
    },
    Grpc {
        host: String,
        port: u16,
        service: String,
    },
    /// It cannot be asked: why.
    Impossible(String),
}

/// A check that succeeded.
#[derive(Debug, Default)]
pub(crate) struct Healthy {
    /// And still there is something to say.
    pub(crate) warning: Option<String>,
}

/// Why a check did not succeed.
#[derive(Debug)]
pub(crate) struct Unhealthy {
    pub(crate) message: String,
    /// Nobody listens yet: worth asking again at once.
    pub(crate) soon: bool,
    /// It could not be made at all: it is told, and does not count.
    pub(crate) errored: bool,
}

/// The variables that the spec writes out: probes know no others.
fn written(container: &Container) -> BTreeMap<String, String> {
    let own = container.env.iter().flatten();
    own.filter_map(|it| Some((it.name.clone(), it.value.clone()?))).collect()
}

#[derive(Clone, Debug)]
pub(crate) struct Url {
    tls: bool,
    host: String,
    port: u16,
    path: String,
    headers: HeaderMap,
}

impl Check {
    pub(crate) fn of(probe: &Probe, container: &Container, address: &str) -> Check {
        if let Some(exec) = &probe.exec {
            let known = written(container);
            let command = exec.command.iter().flatten();
            return Check::Exec(command.map(|it| expand(it, &known)).collect());
        }
        if let Some(action) = &probe.http_get {
            let url = Url::of(action, container, address, "probe");
            return url.map_or_else(Check::Impossible, Check::Http);
        }
        if let Some(action) = &probe.tcp_socket {
            let host = action.host.clone().filter(|it| !it.is_empty());
            return match port(&action.port, container) {
                Ok(port) => Check::Tcp { host: host.unwrap_or(address.to_owned()), port },
                Err(why) => Check::Impossible(why),
            };
        }
        if let Some(action) = &probe.grpc {
            return match u16::try_from(action.port).ok().filter(|it| *it > 0) {
                Some(port) => Check::Grpc {
                    host: address.to_owned(),
                    port,
                    service: action.service.clone().unwrap_or_default(),
                },
                None => Check::Impossible(format!("invalid port number: {}", action.port)),
            };
        }
        Check::Impossible("missing probe handler".to_owned())
    }

    pub(crate) async fn run(
        &self,
        runtime: &dyn Runtime,
        container_id: &str,
        timeout: Duration,
    ) -> Result<Healthy, Unhealthy> {
        let late = |what: String| Unhealthy { message: what, soon: false, errored: false };
        match self {
            Check::Exec(command) => {
                let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX).max(1);
                let ran = runtime.execute(container_id, command.clone(), seconds).await;
                match ran {
                    Ok((0, _)) => Ok(Healthy::default()),
                    Ok((_, output)) => {
                        let output = &output[..output.len().min(BODY_BYTES_MAX)];
                        Err(late(String::from_utf8_lossy(output).into_owned()))
                    }
                    Err(error) if error.is_late => {
                        let (command, after) = (command.join(" "), human(timeout));
                        Err(late(format!("command timed out: {command:?} timed out after {after}")))
                    }
                    // It was not asked: neither healthy nor not.
                    Err(error) => Err(Unhealthy { errored: true, ..late(error.to_string()) }),
                }
            }
            Check::Http(url) => match get(url, timeout).await {
                Ok((status, _)) if !(200..400).contains(&status) => {
                    Err(late(format!("HTTP probe failed with statuscode: {status}")))
                }
                Ok((status, body)) => {
                    let text = || format!("Probe terminated redirects, Response body: {body}");
                    Ok(Healthy { warning: (status >= 300).then(text) })
                }
                Err(message) => {
                    let soon = message.ends_with(REFUSED);
                    Err(Unhealthy { message, soon, errored: false })
                }
            },
            Check::Grpc { host, port, service } => {
                let asked = check_grpc::ask(host, *port, service, timeout).await;
                asked.map(|()| Healthy::default()).map_err(late)
            }
            Check::Tcp { host, port } => {
                let connect = TcpStream::connect((host.as_str(), *port));
                let target = format!("dial tcp {}", joined(host, *port));
                match stdx::timeout(timeout, connect).await {
                    Some(Ok(_)) => Ok(Healthy::default()),
                    Some(Err(error)) => {
                        let message = format!("{target}: {}", dial_error(&error));
                        let soon = message.ends_with(REFUSED);
                        Err(Unhealthy { message, soon, errored: false })
                    }
                    None => Err(late(format!("{target}: i/o timeout"))),
                }
            }
            Check::Impossible(why) => Err(Unhealthy { errored: true, ..late(why.clone()) }),
        }
    }
}

const REFUSED: &str = "connect: connection refused";

/// As Go words it.
fn dial_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => REFUSED.to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        _ => error.to_string(),
    }
}

impl Url {
    /// `purpose`: who asks, as servers are told.
    pub(crate) fn of(
        action: &HTTPGetAction,
        container: &Container,
        address: &str,
        purpose: &str,
    ) -> Result<Url, String> {
        let port = port(&action.port, container)?;
        let host = action.host.clone().filter(|it| !it.is_empty()).unwrap_or(address.to_owned());
        let mut path = action.path.clone().unwrap_or_default();
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        let mut headers = HeaderMap::new();
        for header in action.http_headers.iter().flatten() {
            let name = HeaderName::from_bytes(header.name.as_bytes());
            let name = name.map_err(|_| format!("invalid header name {:?}", header.name))?;
            let value = HeaderValue::from_str(&header.value);
            headers.append(
                name,
                value.map_err(|_| format!("invalid value of header {:?}", header.name))?,
            );
        }
        if !headers.contains_key("user-agent") {
            let agent = HeaderValue::from_str(&format!("kube-{purpose}/1.36"));
            headers.insert("user-agent", agent.map_err(|error| error.to_string())?);
        }
        match headers.get("accept") {
            None => drop(headers.insert("accept", HeaderValue::from_static("*/*"))),
            // Told to accept nothing in particular: nothing is said.
            Some(empty) if empty.is_empty() => drop(headers.remove("accept")),
            Some(_) => {}
        }
        let tls = action.scheme.as_deref() == Some("HTTPS");
        Ok(Url { tls, host, port, path, headers })
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// The same without TLS, and without what only TLS may carry.
    pub(crate) fn without_tls(&self) -> Url {
        let mut plain = Url { tls: false, ..self.clone() };
        plain.headers.remove("authorization");
        plain
    }

    pub(crate) fn host(&self) -> String {
        joined(&self.host, self.port)
    }

    /// Where a redirect leads, if that is on the same host.
    fn redirected(&self, location: &str) -> Option<Url> {
        let (tls, rest) = match location.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return None,
            None if location.starts_with('/') => {
                return Some(Url { path: location.to_owned(), ..self.clone() });
            }
            // Relative to where we are.
            None => {
                let base = self.path.split('?').next().unwrap_or("/");
                let base = &base[..base.rfind('/').map_or(0, |it| it + 1)];
                return Some(Url { path: format!("{base}{location}"), ..self.clone() });
            }
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let authority: http::uri::Authority = authority.parse().ok()?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        (host == self.host).then(|| Url { tls, host, port, path, ..self.clone() })
    }

    fn text(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", joined(&self.host, self.port), self.path)
    }
}

/// Asks, follows redirects on the same host, and tells the status and the beginning of the body.
pub(crate) async fn get(url: &Url, timeout: Duration) -> Result<(u16, String), String> {
    match stdx::timeout(timeout, follow(url)).await {
        Some(answer) => answer,
        None => Err(format!(
            "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            url.text()
        )),
    }
}

async fn follow(url: &Url) -> Result<(u16, String), String> {
    let mut at = url.clone();
    for _ in 0..REDIRECTS_MAX {
        let failed = |why: String| format!("Get {:?}: {why}", at.text());
        let answer = ask(&at).await.map_err(failed)?;
        let next = answer.location.as_deref().and_then(|it| at.redirected(it));
        match next {
            Some(next) if matches!(answer.status, 301 | 302 | 303 | 307 | 308) => at = next,
            Some(_) | None => return Ok((answer.status, answer.body)),
        }
    }
    Err(format!("Get {:?}: stopped after 10 redirects", at.text()))
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

async fn ask(url: &Url) -> Result<Answer, String> {
    let target = joined(&url.host, url.port);
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = stream.map_err(|error| format!("dial tcp {target}: {}", dial_error(&error)))?;
    let _no_delay = stream.set_nodelay(true);
    if url.tls {
        let stream = super::check_tls::wrap(stream, &url.host).await?;
        return exchange(url, TokioIo::new(stream)).await;
    }
    exchange(url, TokioIo::new(stream)).await
}

async fn exchange<I>(url: &Url, io: I) -> Result<Answer, String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(io).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let mut request =
        Request::get(&url.path).body(Empty::new()).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    for (name, value) in &url.headers {
        headers.append(name, value.clone());
    }
    let default =
        |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("*/*"));
    headers.entry("connection").or_insert(HeaderValue::from_static("close"));
    headers.entry("host").or_insert_with(|| default(&joined(&url.host, url.port)));
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let location = answer.headers().get("location").and_then(|it| it.to_str().ok());
        let location = location.map(str::to_owned);
        // Read so that the server does not see a broken pipe, too.
        let mut body = Vec::new();
        let mut frames = answer.into_body();
        while let Some(Ok(frame)) = frames.frame().await {
            body.extend(frame.into_data().unwrap_or_default());
            if body.len() >= BODY_BYTES_MAX {
                body.truncate(BODY_BYTES_MAX);
                break;
            }
        }
        Ok(Answer { status, location, body: String::from_utf8_lossy(&body).into_owned() })
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            // The connection may end with the answer already given.
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

pub(super) fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|it| it.name.as_ref() == Some(name));
            match (named, name.parse::<i32>()) {
                (Some(port), _) => port.container_port,
                (None, Ok(number)) => number,
                (None, Err(_)) => return Err(format!("couldn't find port: {name}")),
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|it| *it > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}
