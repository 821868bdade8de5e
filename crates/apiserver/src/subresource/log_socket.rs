//! A log for clients that ask for it through a WebSocket: each piece is a message.
//!
//! Upstream: `k8s.io/streaming/pkg/httpstream/wsstream/stream.go`.

use super::{
    negotiate::{switch_to_web_socket, web_socket_protocols},
    onward,
};
use crate::answer::Answer;
use api::Failure;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, protocol::Role},
};

type Frame = fn(Bytes) -> Message;

/// How pieces are written, by the name of the subprotocol; a client may name none.
const PROTOCOLS: [(&str, Frame); 3] =
    [("", Message::Binary), ("binary.k8s.io", Message::Binary), ("base64.binary.k8s.io", text)];

/// How long a client may take for its half of the closing.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

fn text(piece: Bytes) -> Message {
    Message::text(STANDARD.encode(piece))
}

/// Makes the client's connection a WebSocket and sends it `log`; nothing was printed where there is none.
pub(super) fn pass_on(
    mut request: Request<Incoming>,
    log: Option<Incoming>,
) -> Result<Answer, Failure> {
    let mut named = web_socket_protocols(request.headers());
    if named.is_empty() {
        named.push("");
    }
    let known = |name: &&str| PROTOCOLS.into_iter().find(|(ours, _)| ours == name);
    let Some((protocol, form)) = named.iter().find_map(known) else {
        let why = format!("unable to upgrade: requested protocol(s) are not supported: {named:?}");
        return Err(Failure::bad_request(why));
    };
    let answer = switch_to_web_socket(request.headers(), protocol)?;
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match client.await {
            Ok(client) => {
                let (client, config) = (TokioIo::new(client), Some(onward::config()));
                let socket = WebSocketStream::from_raw_socket(client, Role::Server, config).await;
                send(socket, log, form).await;
            }
            Err(error) => tracing::debug!("upgrading a log: {error}"),
        }
    });
    Ok(answer)
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    log: Option<Incoming>,
    form: fn(Bytes) -> Message,
) {
    let (mut sink, mut source) = socket.split();
    let pieces = async {
        // Clients learn from the first message that there is a log.
        sink.send(form(Bytes::new())).await?;
        let Some(mut log) = log else { return sink.close().await };
        while let Some(Ok(frame)) = log.frame().await {
            if let Ok(piece) = frame.into_data() {
                sink.send(form(piece)).await?;
            }
        }
        sink.close().await
    };
    let mut leaves = async || while let Some(Ok(_)) = source.next().await {};
    let sent: Option<Result<(), tungstenite::Error>> = tokio::select! {
        sent = pieces => Some(sent),
        () = leaves() => None,
    };
    if let Some(Ok(())) = sent {
        // Until the client has closed too, it may not have read everything.
        let _too_late = stdx::timeout(FAREWELL_MAX, leaves()).await;
    }
}
