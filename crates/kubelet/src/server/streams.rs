//! Exec, attach and port-forward: the runtime says where the streams are; the connection is handed on to there, byte for byte.

use super::{
    Context, Query,
    answer::{Answer, text, whole},
};
use crate::runtime::{State, message};
use api::Object;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, upgrade};
use hyper_util::rt::TokioIo;
use std::path::Path;
use tokio::net::UnixStream;

/// A refusal is a sentence or two.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Order<'a> {
    pub(super) attach: bool,
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) container: &'a str,
}

pub(super) async fn answer(
    context: &Context,
    order: &Order<'_>,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let Some(pod) = context.pod(order.namespace, order.pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let runtime = &context.shared.runtime;
    let broken = |why: String| text(StatusCode::INTERNAL_SERVER_ERROR, why);
    let observed = match runtime.observe(pod.uid()).await {
        Ok(observed) => observed,
        Err(error) => return broken(error.to_string()),
    };
    let running = |it: &&crate::runtime::Container| it.state == State::Running;
    let Some(seen) = observed.latest(order.container).filter(running) else {
        return broken(format!("container not found ({:?})", order.container));
    };
    let flags = [query.flag("input"), query.flag("output"), query.flag("error"), query.flag("tty")];
    let flags = match flags {
        // A door may pass on its own words.
        [false, false, false, _] => {
            [query.flag("stdin"), query.flag("stdout"), query.flag("stderr"), flags[3]]
        }
        flags => flags,
    };
    let [stdin, stdout, stderr, tty] = flags;
    // A terminal has one output only.
    let stderr = stderr && !tty;
    let container_id = seen.id.clone();
    let url = match order.attach {
        true => {
            let request = message::AttachRequest { container_id, stdin, tty, stdout, stderr };
            runtime.attach(request).await
        }
        false => {
            let cmd = query.all("command");
            if cmd.is_empty() {
                return text(StatusCode::BAD_REQUEST, "you must specify at least 1 command");
            }
            let request = message::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr };
            runtime.exec(request).await
        }
    };
    let url = match url {
        Ok(url) => url,
        Err(error) => return broken(error.to_string()),
    };
    hand_on(&url, request).await.unwrap_or_else(broken)
}

pub(super) async fn port_forward(
    context: &Context,
    namespace: &str,
    pod: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let Some(pod) = context.pod(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let port = match ports(&query.all("port")) {
        Ok(ports) => ports,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let runtime = &context.shared.runtime;
    let broken = |why: String| text(StatusCode::INTERNAL_SERVER_ERROR, why);
    let observed = match runtime.observe(pod.uid()).await {
        Ok(observed) => observed,
        Err(error) => return broken(error.to_string()),
    };
    let Some(sandbox) = observed.sandbox().filter(|it| it.ready) else {
        return broken(format!("not able to find the sandbox of pod {:?}", pod.name()));
    };
    let asked = message::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port };
    match runtime.port_forward(asked).await {
        Ok(url) => hand_on(&url, request).await.unwrap_or_else(broken),
        Err(error) => broken(error.to_string()),
    }
}

/// `port=80&port=443,8443`
fn ports(asked: &[String]) -> Result<Vec<i32>, String> {
    if asked.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    let parse = |text: &str| match text.parse::<u16>() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(i32::from(port)),
        Err(error) => Err(format!("unable to parse {text:?} as a port: {error}")),
    };
    asked.iter().flat_map(|it| it.split(',')).map(parse).collect()
}

/// Sends the same request to the runtime's socket and, once both have agreed, copies bytes both ways.
async fn hand_on(url: &str, mut request: Request<Incoming>) -> Result<Answer, String> {
    let (socket, path) = split(url).ok_or_else(|| format!("streams at {url} cannot be reached"))?;
    let failed =
        |error: &dyn std::fmt::Display| format!("connect to the container's streams: {error}");
    let stream = UnixStream::connect(socket).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a container's streams");
        }
    });
    let mut onward = Request::builder().method(request.method()).uri(path);
    if let Some(headers) = onward.headers_mut() {
        headers.clone_from(request.headers());
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::HOST, http::HeaderValue::from_static("localhost"));
    }
    let onward = onward.body(Empty::<Bytes>::new()).map_err(|error| failed(&error))?;
    let mut answer = sender.send_request(onward).await.map_err(|error| failed(&error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
        let body = body.map(|it| it.to_bytes()).unwrap_or_default();
        return Ok(whole(status, "text/plain; charset=utf-8", body));
    }
    let (near, far) = (upgrade::on(&mut request), upgrade::on(&mut answer));
    tokio::spawn(async move {
        match tokio::try_join!(near, far) {
            Ok((near, far)) => {
                let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
                // However it ends, both ends are closed now.
                let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
            Err(error) => tracing::debug!(%error, "upgrade to a container's streams"),
        }
    });
    let (parts, _) = answer.into_parts();
    let mut agreed = Response::new(http_body_util::Empty::new().boxed_unsync());
    *agreed.status_mut() = parts.status;
    *agreed.headers_mut() = parts.headers;
    Ok(agreed)
}

/// `unix:///run/streaming.sock/exec/<token>` → the socket, and `/exec/<token>`.
fn split(url: &str) -> Option<(&Path, &str)> {
    let rest = url.strip_prefix("unix://")?;
    let token = rest.rfind('/')?;
    let kind = rest[..token].rfind('/')?;
    (kind > 0).then(|| (Path::new(&rest[..kind]), &rest[kind..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_with_commas_or_without() {
        let ports =
            |asked: &[&str]| ports(&asked.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        assert_eq!(ports(&["80", "443,8443"]), Ok(vec![80, 443, 8443]));
        assert_eq!(ports(&[]), Err("query parameter \"port\" is required".to_owned()));
        for wrong in ["0", "65536", "x", "", "80,"] {
            assert!(ports(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_url_is_a_socket_and_a_path() {
        let split = |url| split(url).map(|(socket, path)| (socket.display().to_string(), path));
        let expected = ("/run/a.sock".to_owned(), "/exec/t0");
        assert_eq!(split("unix:///run/a.sock/exec/t0"), Some(expected));
        assert_eq!(split("http://127.0.0.1/exec/t0"), None);
        assert_eq!(split("unix:///exec/t0"), None);
    }
}
