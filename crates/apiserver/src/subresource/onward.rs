//! From the door to a node: one WebSocket for one command or one forwarded connection.

use super::log;
use crate::{node, server::Server};
use api::{Failure, core::v1::Node};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

/// What nodes are spoken to in: the first byte of a message names its channel, 255 closes one.
pub(super) const PROTOCOL: &str = "v5.channel.k8s.io";

/// As much as a node takes in one message.
pub(super) const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Followed by the number of a channel on which nothing more will come.
pub(super) const CLOSE: u8 = 255;

pub(super) type Onward = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// Asks the node for `path`, and for a WebSocket there. A refusal is the node's, in its words.
pub(super) async fn open(server: &Server, node: &Node, path: &str) -> Result<Onward, Failure> {
    let mut key = [0; 16];
    server.config.entropy.fill(&mut key);
    let request = Request::get(path)
        .header(header::HOST, "node")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, STANDARD.encode(key))
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(Failure::internal)?;
    let answer = node::send(server.node_proxy()?, node, request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(log::refusal(answer).await);
    }
    let far = hyper::upgrade::on(answer).await.map_err(Failure::internal)?;
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(far), Role::Client, Some(config())).await)
}
