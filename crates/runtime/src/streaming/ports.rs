//! Connections to ports of a pod: for each a channel of data and one for what went wrong, in one WebSocket.
//!
//! The first message on each channel is its port, two bytes, low byte first. A connection that cannot be made, or that
//! ends, leaves the others alone. In version 5 the client may close its half of a connection; in version 4 there is
//! no way to say so.
//! Upstream: staging/src/k8s.io/cri-streaming/pkg/streaming/portforward/websocket.go.

use super::{
    Processes,
    channels::{Incoming, Protocol},
    session::{IDLE_MAX, INPUT_WAITING_MAX, Outlet, PIECE, wait_for_close},
};
use futures_util::{StreamExt, future::join_all, stream::SplitStream};
use rpc::cri::PortForwardRequest;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::tcp::OwnedWriteHalf,
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Bytes, Message},
};
use tonic::Status;

/// A channel's number has one byte, and 255 says something else.
const PORTS_MAX: usize = 64;

/// Whether these can be forwarded in one session.
pub(super) fn check(ports: &[i32]) -> Result<(), Status> {
    if ports.is_empty() || ports.len() > PORTS_MAX {
        return Err(Status::invalid_argument(format!(
            "between 1 and {PORTS_MAX} ports can be forwarded by one connection, not {}",
            ports.len()
        )));
    }
    match ports.iter().find(|it| !(1..=65535).contains(*it)) {
        Some(port) => Err(Status::invalid_argument(format!("{port} is no port"))),
        None => Ok(()),
    }
}

pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    request: &PortForwardRequest,
    processes: &dyn Processes,
) {
    let (sink, mut source) = socket.split();
    let outlet = Outlet::new(sink, protocol);
    let (inputs, waiting): (Vec<_>, Vec<_>) =
        request.port.iter().map(|_| mpsc::channel(INPUT_WAITING_MAX)).unzip();
    // Checked when the URL was asked for.
    let ports = request.port.iter().filter_map(|it| u16::try_from(*it).ok());
    let forwards = ports.zip(waiting).zip(0u8..).map(|((port, waiting), index)| {
        let channel = index * 2;
        forward(
            Forward { sandbox: &request.pod_sandbox_id, port, channel },
            processes,
            waiting,
            &outlet,
        )
    });
    let pod_side = join_all(forwards);
    let gone = tokio::select! {
        _ended = pod_side => false,
        () = receive(&mut source, &outlet, inputs.into_iter().map(Some).collect()) => true,
        () = outlet.heartbeat() => true,
    };
    if gone {
        return;
    }
    if let Some(Ok(())) = stdx::timeout(IDLE_MAX, outlet.close()).await {
        wait_for_close(&mut source).await;
    }
}

/// One connection, and the first of its two channels.
struct Forward<'a> {
    sandbox: &'a str,
    port: u16,
    channel: u8,
}

async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
    what: Forward<'_>,
    processes: &dyn Processes,
    waiting: mpsc::Receiver<Bytes>,
    outlet: &Outlet<S>,
) {
    let Forward { sandbox, port, channel } = what;
    for channel in [channel, channel + 1] {
        if outlet.send(channel, &port.to_le_bytes()).await.is_err() {
            return;
        }
    }
    let failed = match processes.connect(sandbox, port).await {
        Ok(pod) => {
            let (mut from, to) = pod.into_split();
            let out = async {
                let mut piece = vec![0; PIECE];
                loop {
                    match from.read(&mut piece).await {
                        Ok(0) => return None,
                        Ok(read) if outlet.send(channel, &piece[..read]).await.is_err() => {
                            return None;
                        }
                        Ok(_) => {}
                        Err(error) => return Some(error.to_string()),
                    }
                }
            };
            let input = async {
                feed(to, waiting).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                failed = out => failed,
                () = input => None,
            }
        }
        Err(status) => Some(status.message().to_owned()),
    };
    if let Some(why) = failed {
        let why = format!("error forwarding port {port} to pod {sandbox}, uid : {why}");
        let _gone = outlet.send(channel + 1, why.as_bytes()).await;
    }
}

/// From the queue to the pod. When the queue ends, so does our half of the connection.
async fn feed(mut to: OwnedWriteHalf, mut waiting: mpsc::Receiver<Bytes>) {
    while let Some(data) = waiting.recv().await {
        if to.write_all(&data).await.is_err() {
            return;
        }
    }
    // Whoever cannot be told has closed already.
    let _closed = to.shutdown().await;
}

/// Takes messages until the client is gone, or silent for too long.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    source: &mut SplitStream<WebSocketStream<S>>,
    outlet: &Outlet<S>,
    mut inputs: Vec<Option<mpsc::Sender<Bytes>>>,
) {
    let last = u8::try_from(inputs.len() * 2 - 1).unwrap_or(u8::MAX - 1);
    loop {
        let Some(message) = stdx::timeout(IDLE_MAX, source.next()).await else {
            if outlet.was_active() {
                continue;
            }
            return;
        };
        let message = match message {
            Some(Ok(message @ (Message::Binary(_) | Message::Text(_)))) => message.into_data(),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(_)) | Err(_)) | None => return,
        };
        match outlet.protocol().incoming(message, last) {
            Incoming::Data(channel, data) if channel % 2 == 0 => {
                let input = &mut inputs[usize::from(channel / 2)];
                if let Some(queue) = input
                    && queue.send(data).await.is_err()
                {
                    *input = None;
                }
            }
            Incoming::Close(channel) if channel % 2 == 0 => inputs[usize::from(channel / 2)] = None,
            // Nothing is said to us on the channel of errors.
            Incoming::Data(..) | Incoming::Close(_) | Incoming::Nothing => {}
            Incoming::Violation => return,
        }
    }
}
