//! The HTTP side: takes a token, upgrades the connection, and starts the session.

use super::{
    Order, Streaming,
    channels::Protocol,
    ports,
    session::{self, Wants},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{net::UnixStream, sync::Mutex};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

/// A client that connects and says nothing is let go.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// One message of input. Upstream's limit for what comes in one piece.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

type Answer = Response<Full<Bytes>>;

/// A session that is agreed on and begins when the answer is out.
struct Agreed {
    upgrade: OnUpgrade,
    protocol: Protocol,
    order: Order,
}

impl Streaming {
    /// Serves one connection: one request, and the session it upgrades to.
    pub(super) async fn converse(&self, stream: UnixStream) {
        let agreed = Arc::new(Mutex::new(None));
        let service = service_fn(|request: Request<Incoming>| {
            let agreed = agreed.clone();
            async move {
                let answer = match self.agree(request) {
                    Ok((session, answer)) => {
                        *agreed.lock().await = Some(session);
                        answer
                    }
                    Err(refusal) => *refusal,
                };
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!("streaming connection: {error}");
            return;
        }
        let Some(Agreed { upgrade, protocol, order }) = agreed.lock().await.take() else { return };
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config))
                .await;
        let processes = &self.0.processes;
        match order {
            Order::Exec(request) => {
                let wants = Wants {
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    attempted: "error executing command in container",
                    exit_code: true,
                };
                session::run(socket, protocol, wants, processes.exec(request)).await;
            }
            Order::Attach(request) => {
                let wants = Wants {
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    attempted: "error attaching to container",
                    exit_code: false,
                };
                session::run(socket, protocol, wants, processes.attach(request)).await;
            }
            Order::PortForward(request) => {
                ports::run(socket, protocol, &request, &**processes).await;
            }
        }
    }

    fn agree(&self, mut request: Request<Incoming>) -> Result<(Agreed, Answer), Box<Answer>> {
        let order = self.order(request.uri().path());
        let order = order.ok_or_else(|| refuse(StatusCode::NOT_FOUND, "404 page not found"))?;
        let headers = request.headers();
        let wants_websocket = has_token(headers, &header::CONNECTION, "upgrade")
            && has_token(headers, &header::UPGRADE, "websocket")
            && has_token(headers, &header::SEC_WEBSOCKET_VERSION, "13");
        let key = headers.get(header::SEC_WEBSOCKET_KEY);
        let (Some(key), true, &Method::GET) = (key, wants_websocket, request.method()) else {
            let reason = "unable to upgrade: this is not a WebSocket (version 13) request";
            return Err(refuse(StatusCode::BAD_REQUEST, reason));
        };
        let key = derive_accept_key(key.as_bytes());
        let wanted: Vec<&str> = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let wanted = wanted.join(",");
        let Some((name, protocol)) = Protocol::choose(&wanted) else {
            let ours = Protocol::ALL.map(|(name, _)| name).join(" ").trim_end().to_owned();
            let reason =
                format!("requested protocol(s) are not supported: [{wanted}]; supports [{ours}]");
            return Err(refuse(StatusCode::FORBIDDEN, reason));
        };
        let mut answer = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, key)
            .body(Full::default())
            .expect("all headers are valid");
        if !name.is_empty() {
            let name = header::HeaderValue::from_static(name);
            answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
        }
        let upgrade = hyper::upgrade::on(&mut request);
        Ok((Agreed { upgrade, protocol, order }, answer))
    }

    /// The order of `/exec/<token>`, `/attach/<token>` or `/portforward/<token>`; it is used up whatever comes of it.
    fn order(&self, path: &str) -> Option<Order> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let order = self.0.tokens.take(token)?;
        let fits = match &order {
            Order::Exec(_) => kind == "exec",
            Order::Attach(_) => kind == "attach",
            Order::PortForward(_) => kind == "portforward",
        };
        fits.then_some(order)
    }
}

fn has_token(headers: &HeaderMap, name: &header::HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
}

fn refuse(status: StatusCode, reason: impl Into<String>) -> Box<Answer> {
    let body = Full::new(Bytes::from(reason.into()));
    let answer = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain")
        .header(header::CONNECTION, "close");
    Box::new(answer.body(body).expect("all headers are valid"))
}
