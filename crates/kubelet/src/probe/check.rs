//! One check: a command, a request, a connection. Upstream: `pkg/probe/{exec,http,tcp}`.

use crate::runtime::Runtime;
use api::{
    core::v1::{Container, HTTPGetAction, Probe},
    k8s::apimachinery::pkg::util::intstr::IntOrString,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// Upstream: `maxRespBodyLength`.
const BODY_BYTES_MAX: usize = 10 * 1024;

#[derive(Clone, Debug)]
pub(crate) enum Check {
    Exec(Vec<String>),
    Http(Url),
    Tcp {
        host: String,
        port: u16,
    },
    /// It cannot be asked: why.
    Impossible(String),
}

/// Why a check did not succeed.
#[derive(Debug)]
pub(crate) struct Unhealthy {
    pub(crate) message: String,
    /// Nobody listens yet: worth asking again at once.
    pub(crate) soon: bool,
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
            return Check::Exec(exec.command.clone().unwrap_or_default());
        }
        if let Some(action) = &probe.http_get {
            return Url::of(action, container, address).map_or_else(Check::Impossible, Check::Http);
        }
        if let Some(action) = &probe.tcp_socket {
            let host = action.host.clone().filter(|it| !it.is_empty());
            return match port(&action.port, container) {
                Ok(port) => Check::Tcp { host: host.unwrap_or(address.to_owned()), port },
                Err(why) => Check::Impossible(why),
            };
        }
        Check::Impossible("gRPC probes are not supported by this node".to_owned())
    }

    pub(crate) async fn run(
        &self,
        runtime: &dyn Runtime,
        container_id: &str,
        timeout: Duration,
    ) -> Result<(), Unhealthy> {
        let late = |what: String| Unhealthy { message: what, soon: false };
        match self {
            Check::Exec(command) => {
                let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX).max(1);
                let ran = runtime.execute(container_id, command.clone(), seconds).await;
                match ran {
                    Ok((0, _)) => Ok(()),
                    Ok((_, output)) => {
                        let output = &output[..output.len().min(BODY_BYTES_MAX)];
                        Err(late(String::from_utf8_lossy(output).into_owned()))
                    }
                    Err(error) => Err(late(format!("command failed: {error}"))),
                }
            }
            Check::Http(url) => get(url, timeout).await.map_err(|message| {
                let soon = message.ends_with(REFUSED);
                Unhealthy { message, soon }
            }),
            Check::Tcp { host, port } => {
                let connect = TcpStream::connect((host.as_str(), *port));
                let target = format!("dial tcp {}", joined(host, *port));
                match stdx::timeout(timeout, connect).await {
                    Some(Ok(_)) => Ok(()),
                    Some(Err(error)) => {
                        let message = format!("{target}: {}", dial_error(&error));
                        let soon = message.ends_with(REFUSED);
                        Err(Unhealthy { message, soon })
                    }
                    None => Err(late(format!("{target}: i/o timeout"))),
                }
            }
            Check::Impossible(why) => Err(late(why.clone())),
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
    pub(crate) fn of(
        action: &HTTPGetAction,
        container: &Container,
        address: &str,
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
        let tls = action.scheme.as_deref() == Some("HTTPS");
        Ok(Url { tls, host, port, path, headers })
    }

    fn text(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", joined(&self.host, self.port), self.path)
    }
}

/// Asks once; an answer from 200 to 399 is a success.
pub(crate) async fn get(url: &Url, timeout: Duration) -> Result<(), String> {
    let failed = |why: String| format!("Get {:?}: {why}", url.text());
    match stdx::timeout(timeout, ask(url)).await {
        Some(Ok(status)) if (200..400).contains(&status) => Ok(()),
        Some(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {status}")),
        Some(Err(why)) => Err(failed(why)),
        None => Err(failed(
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        )),
    }
}

async fn ask(url: &Url) -> Result<u16, String> {
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

async fn exchange<I>(url: &Url, io: I) -> Result<u16, String>
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
    headers.entry("user-agent").or_insert(HeaderValue::from_static("kube-probe/1.36"));
    headers.entry("accept").or_insert(HeaderValue::from_static("*/*"));
    headers.entry("connection").or_insert(HeaderValue::from_static("close"));
    headers.entry("host").or_insert_with(|| default(&joined(&url.host, url.port)));
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        // The server has said what matters; its body is read so that it does not see a broken pipe.
        let _body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
        Ok(status)
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

fn joined(host: &str, port: u16) -> String {
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
