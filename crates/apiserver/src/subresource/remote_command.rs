//! Exec and attach for clients that speak SPDY: each stream becomes a channel of the node's WebSocket.
//!
//! Upstream: `k8s.io/cri-streaming/pkg/streaming/remotecommand/httpstream.go`.

use super::onward::CLOSE;
use crate::spdy::{Accepted, Receiver, Sender, Session};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use serde_json::Value;
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

/// The versions of the protocol, newest first; the last is the first one's name.
pub(super) const PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// How long a client may take to open its streams. Upstream's default.
const CREATION_MAX: Duration = Duration::from_secs(30);

/// A status is a sentence or two.
const OUTCOME_BYTES_MAX: usize = 64 * 1024;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CHANNELS: usize = 5;

/// What was asked for, and in which version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    pub(super) protocol: &'static str,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Wants {
    /// The channels that the client opens a stream for.
    fn channels(self) -> [bool; CHANNELS] {
        let sizes = matches!(self.protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
        [self.stdin, self.stdout, self.stderr && !self.tty, true, self.tty && sizes]
    }

    /// What the client is told at the end: since version 4 the whole status, before only what went wrong.
    fn outcome(self, status: Vec<u8>) -> Bytes {
        if self.protocol == PROTOCOLS[0] {
            return status.into();
        }
        let status: Value = serde_json::from_slice(&status).unwrap_or_default();
        match status["status"] == "Success" {
            true => Bytes::new(),
            false => status["message"].as_str().unwrap_or("unknown error").to_owned().into(),
        }
    }
}

type Streams = [Option<(Receiver, Sender)>; CHANNELS];

/// Joins the two until one of them is at its end.
pub(super) async fn join<C, N>(client: C, node: WebSocketStream<N>, wants: Wants)
where
    C: AsyncRead + AsyncWrite + Send + 'static,
    N: AsyncRead + AsyncWrite + Unpin,
{
    let mut session = Session::start(client);
    let Some(Some(streams)) = stdx::timeout(CREATION_MAX, collect(&mut session, wants)).await
    else {
        return tracing::debug!("timed out waiting for client to create streams");
    };
    let [stdin, stdout, stderr, error, resize] = streams;
    let (stdin, stdin_back) = stdin.unzip();
    let (resize, resize_back) = resize.unzip();
    let [stdout, stderr, error] = [stdout, stderr, error].map(|it| it.map(|(_, sender)| sender));
    let Some(error) = error else { return };
    let (sink, mut source) = node.split();
    let sink = Mutex::new(sink);
    let to_node = async {
        tokio::join!(carry(stdin, STDIN, &sink), carry(resize, RESIZE, &sink));
        std::future::pending::<()>().await;
    };
    let to_client = async {
        let mut status = Vec::new();
        loop {
            let mut data = match source.next().await {
                Some(Ok(Message::Binary(data))) if !data.is_empty() => data,
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => continue,
            };
            let channel = data.split_to(1)[0];
            let stream = match channel {
                STDOUT => &stdout,
                STDERR => &stderr,
                ERROR => {
                    let room = OUTCOME_BYTES_MAX - status.len();
                    status.extend_from_slice(&data[..data.len().min(room)]);
                    continue;
                }
                _ => continue,
            };
            if let Some(stream) = stream {
                // A client that closed one stream may still listen to the others.
                let _gone = stream.send(data).await;
            }
        }
        status
    };
    let status = tokio::select! {
        status = to_client => status,
        () = to_node => return,
        () = error.gone() => {
            // The process loses its streams, as when a terminal is closed.
            let _broken = sink.lock().await.close().await;
            return;
        }
    };
    if status.is_empty() {
        // The node went away in the middle: streams that are reset tell so.
        let all = [stdin_back, stdout, stderr, resize_back, Some(error)];
        for stream in all.into_iter().flatten() {
            stream.reset().await;
        }
        return session.end().await;
    }
    for stream in [stdin_back, stdout, stderr, resize_back].into_iter().flatten() {
        stream.finish().await;
    }
    let _gone = error.send(wants.outcome(status)).await;
    error.finish().await;
    session.end().await;
}

/// Every stream that the protocol has for what was asked; `None` when the client leaves before.
async fn collect(session: &mut Session, wants: Wants) -> Option<Streams> {
    let wanted = wants.channels();
    let mut streams: Streams = Default::default();
    while (0..CHANNELS).any(|it| wanted[it] && streams[it].is_none()) {
        let Accepted { headers, receiver, sender, .. } = session.accept().await?;
        let channel = match headers.one("streamtype") {
            "stdin" => STDIN,
            "stdout" => STDOUT,
            "stderr" => STDERR,
            "error" => ERROR,
            "resize" => RESIZE,
            // Dropped, and so reset.
            _ => continue,
        };
        let place = &mut streams[usize::from(channel)];
        if place.is_none() {
            *place = Some((receiver, sender));
        }
    }
    Some(streams)
}

/// From one of the client's streams to its channel; its end too.
async fn carry<N: AsyncRead + AsyncWrite + Unpin>(
    from: Option<Receiver>,
    channel: u8,
    to: &Mutex<SplitSink<WebSocketStream<N>, Message>>,
) {
    let Some(mut from) = from else { return };
    while let Some(piece) = from.next().await {
        let mut message = Vec::with_capacity(piece.len() + 1);
        message.push(channel);
        message.extend_from_slice(&piece);
        if to.lock().await.send(Message::binary(message)).await.is_err() {
            return;
        }
    }
    let _node_gone = to.lock().await.send(Message::binary(vec![CLOSE, channel])).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::testing::Client;
    use serde_json::json;
    use tokio::io::DuplexStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    type Node = WebSocketStream<DuplexStream>;

    const COMMAND: Wants =
        Wants { protocol: PROTOCOLS[0], stdin: true, stdout: true, stderr: true, tty: false };

    /// A client with its streams by name, and the node's end.
    async fn start(wants: Wants, streams: &[&str]) -> (Client, Vec<u32>, Node) {
        let (mut client, server) = Client::pair();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let node = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        tokio::spawn(join(server, near, wants));
        let mut numbers = Vec::new();
        for stream in streams {
            numbers.push(client.open(&[("streamtype", stream)]).await);
        }
        (client, numbers, node)
    }

    async fn next(node: &mut Node) -> Vec<u8> {
        node.next().await.unwrap().unwrap().into_data().to_vec()
    }

    async fn say(node: &mut Node, message: &[u8]) {
        node.send(Message::binary(message.to_vec())).await.unwrap();
    }

    #[tokio::test]
    async fn streams_become_channels_and_back() {
        let (mut client, streams, mut node) =
            start(COMMAND, &["error", "stdin", "stdout", "stderr"]).await;
        let [error, stdin, stdout, stderr] = streams[..] else { unreachable!() };
        client.say(stdin, b"typed").await;
        client.finish(stdin).await;
        assert_eq!(next(&mut node).await, b"\0typed");
        assert_eq!(next(&mut node).await, [CLOSE, STDIN]);
        let status = json!({"status": "Failure", "message": "code 7"}).to_string();
        say(&mut node, b"\x01").await;
        say(&mut node, b"\x01printed").await;
        say(&mut node, b"\x02complained").await;
        say(&mut node, format!("\x03{status}").as_bytes()).await;
        node.close(None).await.unwrap();
        client.until(|it| streams.iter().all(|stream| it.on(*stream).finished)).await;
        assert_eq!(client.on(stdout).text(), "printed");
        assert_eq!(client.on(stderr).text(), "complained");
        assert_eq!(client.on(error).text(), status);
    }

    #[tokio::test]
    async fn older_versions_hear_only_what_went_wrong() {
        for (protocol, status, heard) in [
            (PROTOCOLS[1], json!({"status": "Success"}), ""),
            (PROTOCOLS[1], json!({"status": "Failure", "message": "code 7"}), "code 7"),
            (PROTOCOLS[2], json!({"status": "Failure", "message": "code 7"}), "code 7"),
            (PROTOCOLS[3], json!("?"), "unknown error"),
        ] {
            let wants = Wants { protocol, stdin: false, stderr: false, ..COMMAND };
            let (mut client, streams, mut node) = start(wants, &["error", "stdout"]).await;
            say(&mut node, format!("\x03{status}").as_bytes()).await;
            node.close(None).await.unwrap();
            client.until(|it| it.on(streams[0]).finished).await;
            assert_eq!(client.on(streams[0]).text(), heard);
        }
    }

    #[tokio::test]
    async fn a_terminal_has_sizes_and_no_second_output() {
        let wants = Wants { tty: true, ..COMMAND };
        let (mut client, streams, mut node) =
            start(wants, &["stdin", "nonsense", "resize", "stdout", "error"]).await;
        client.say(streams[2], b"{\"Width\":80,\"Height\":24}\n").await;
        assert_eq!(next(&mut node).await, b"\x04{\"Width\":80,\"Height\":24}\n");
        client.until(|it| it.on(streams[1]).reset).await;
    }

    #[tokio::test]
    async fn a_client_that_leaves_takes_the_nodes_connection_with_it() {
        let (client, _, mut node) = start(COMMAND, &["error", "stdin", "stdout", "stderr"]).await;
        drop(client);
        while let Some(Ok(_)) = node.next().await {}
    }

    #[tokio::test]
    async fn a_node_that_vanishes_resets_the_streams() {
        let wants = Wants { stdin: false, ..COMMAND };
        let (mut client, streams, mut node) = start(wants, &["error", "stdout", "stderr"]).await;
        say(&mut node, b"\x01half a li").await;
        drop(node);
        client.until(|it| streams.iter().all(|stream| it.on(*stream).reset)).await;
        assert_eq!(client.on(streams[1]).text(), "half a li");
    }
}
