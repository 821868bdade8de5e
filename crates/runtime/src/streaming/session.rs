//! One session: moves bytes between a WebSocket and a process until the process ends or the client goes.
//!
//! Nothing is buffered beyond a few pieces: a slow reader slows the writer down, in both directions.
//! Upstream: staging/src/k8s.io/cri-streaming/pkg/streaming/remotecommand/{exec,attach,websocket}.go.

use super::{
    Process, Streams,
    channels::{ERROR, Incoming, Protocol, RESIZE, STDERR, STDIN, STDOUT},
    descriptor::Descriptor,
    outcome,
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex, mpsc},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Bytes, Message, protocol::CloseFrame, protocol::frame::coding::CloseCode},
};
use tonic::Status;

/// Output travels in pieces of this size; the client's buffer is as large.
pub(super) const PIECE: usize = 32 * 1024;

/// Messages of input that wait for the process to read.
pub(super) const INPUT_WAITING_MAX: usize = 16;

/// A connection without any traffic in either direction ends after this. Upstream's default.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// The client is asked for a sign of life this often. One that vanished while its input waits to be read would not be
/// noticed otherwise.
pub(super) const PING_PERIOD: Duration = Duration::from_secs(30);

/// How long a client may be silent before its half of the closing: it may still have much to read.
pub(super) const FAREWELL_MAX: Duration = Duration::from_secs(60);

/// What the client asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    /// The phrase that an error starts with.
    pub(super) attempted: &'static str,
    /// An attached container's exit code is not the session's.
    pub(super) exit_code: bool,
}

/// The way to the client, shared by all who have something to say.
pub(super) struct Outlet<S> {
    sink: Mutex<SplitSink<WebSocketStream<S>, Message>>,
    protocol: Protocol,
    /// Something was sent since this was last looked at.
    active: AtomicBool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Outlet<S> {
    pub(super) fn new(
        sink: SplitSink<WebSocketStream<S>, Message>,
        protocol: Protocol,
    ) -> Outlet<S> {
        Outlet { sink: Mutex::new(sink), protocol, active: AtomicBool::new(false) }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether something was sent since this was last asked.
    pub(super) fn was_active(&self) -> bool {
        self.active.swap(false, Ordering::Relaxed)
    }

    pub(super) async fn send(&self, channel: u8, data: &[u8]) -> io::Result<()> {
        let message = self.protocol.outgoing(channel, data);
        self.sink.lock().await.send(message).await.map_err(io::Error::other)?;
        self.active.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Returns when the client cannot be reached any more.
    pub(super) async fn heartbeat(&self) {
        loop {
            stdx::sleep(PING_PERIOD).await;
            if self.sink.lock().await.send(Message::Ping(Bytes::new())).await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn close(&self) -> io::Result<()> {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.sink.lock().await.send(Message::Close(Some(frame))).await.map_err(io::Error::other)
    }
}

/// The process's streams, ready for use.
struct Ends {
    stdin: Option<Arc<Descriptor>>,
    stdout: Option<Arc<Descriptor>>,
    stderr: Option<Arc<Descriptor>>,
    terminal: Option<Arc<Descriptor>>,
}

impl Ends {
    fn new(streams: Streams, wants: Wants) -> io::Result<Ends> {
        let open = |wanted: bool, descriptor: Option<_>| -> io::Result<_> {
            let descriptor = descriptor.filter(|_| wanted);
            Ok(descriptor.map(Descriptor::new).transpose()?.map(Arc::new))
        };
        match streams {
            Streams::Pipes { stdin, stdout, stderr } => Ok(Ends {
                stdin: open(wants.stdin, stdin)?,
                stdout: open(wants.stdout, stdout)?,
                stderr: open(wants.stderr, stderr)?,
                terminal: None,
            }),
            Streams::Terminal(master) => {
                let terminal = Arc::new(Descriptor::new(master)?);
                Ok(Ends {
                    stdin: wants.stdin.then(|| terminal.clone()),
                    stdout: wants.stdout.then(|| terminal.clone()),
                    stderr: None,
                    terminal: Some(terminal),
                })
            }
            Streams::SharedTerminal { master, output } => {
                let terminal = Arc::new(Descriptor::new(master)?);
                Ok(Ends {
                    stdin: wants.stdin.then(|| terminal.clone()),
                    stdout: open(wants.stdout, Some(output))?,
                    stderr: None,
                    terminal: Some(terminal),
                })
            }
        }
    }
}

/// Runs a session to its end. `start` starts the process once the client is there.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    wants: Wants,
    start: impl Future<Output = Result<Process, Status>>,
) {
    let (sink, mut source) = socket.split();
    let outlet = Outlet::new(sink, protocol);
    // Clients wait for a first message on the first channel that they read.
    let first = match (wants.stdout, wants.stderr) {
        (true, _) => STDOUT,
        (false, true) => STDERR,
        (false, false) => ERROR,
    };
    if outlet.send(first, b"").await.is_err() {
        return;
    }
    let started = start.await.and_then(|process| {
        let ends = Ends::new(process.streams, wants)
            .map_err(|error| Status::internal(format!("prepare the streams: {error}")))?;
        Ok((ends, process.exit))
    });
    let outcome = match started {
        Err(status) => Some(outcome::failed(wants.attempted, status.message())),
        Ok((ends, exit)) => {
            let (input, waiting) = mpsc::channel(INPUT_WAITING_MAX);
            let input = ends.stdin.is_some().then_some(input);
            let process_side = async {
                tokio::join!(
                    deliver(ends.stdout, STDOUT, &outlet),
                    deliver(ends.stderr, STDERR, &outlet)
                );
                match exit.await {
                    Ok(code) => outcome::exited(if wants.exit_code { code } else { 0 }),
                    Err(status) => outcome::failed(wants.attempted, status.message()),
                }
            };
            let client_side = async {
                // What the client sent before it left is still for the process.
                tokio::join!(
                    receive(&mut source, &outlet, input, ends.terminal),
                    feed(ends.stdin, waiting)
                );
            };
            tokio::select! {
                biased;
                outcome = process_side => Some(outcome),
                () = client_side => None,
                () = outlet.heartbeat() => None,
            }
        }
    };
    let Some(outcome) = outcome else { return };
    let words = async {
        if let Some(words) = outlet.protocol.farewell(outcome) {
            outlet.send(ERROR, words.as_bytes()).await?;
        }
        outlet.close().await
    };
    // A client may take its time over what is on its way to it.
    if let Some(Ok(())) = stdx::timeout(IDLE_MAX, words).await {
        wait_for_close(&mut source).await;
    }
}

/// Until the client has closed too, it may not have read everything. As long as it reads it pings.
pub(super) async fn wait_for_close<S: AsyncRead + AsyncWrite + Unpin>(
    source: &mut futures_util::stream::SplitStream<WebSocketStream<S>>,
) {
    while let Some(Some(Ok(_))) = stdx::timeout(FAREWELL_MAX, source.next()).await {}
}

/// From the process to the client, until one of them is at its end. Then our end closes.
async fn deliver<S: AsyncRead + AsyncWrite + Unpin>(
    from: Option<Arc<Descriptor>>,
    channel: u8,
    outlet: &Outlet<S>,
) {
    let Some(from) = from else { return };
    let mut piece = vec![0; PIECE];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        if outlet.send(channel, &piece[..read]).await.is_err() {
            return;
        }
    }
}

/// From the queue to the process. When the queue ends, so does the process's input.
async fn feed(to: Option<Arc<Descriptor>>, mut waiting: mpsc::Receiver<Bytes>) {
    let Some(to) = to else { return };
    while let Some(data) = waiting.recv().await {
        if to.write_all(&data).await.is_err() {
            // The process reads no more; what it is sent is lost, as in a pipe.
            return;
        }
    }
}

/// Takes messages until the client is gone, or silent for too long.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    source: &mut futures_util::stream::SplitStream<WebSocketStream<S>>,
    outlet: &Outlet<S>,
    mut input: Option<mpsc::Sender<Bytes>>,
    terminal: Option<Arc<Descriptor>>,
) {
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
        match outlet.protocol.incoming(message, RESIZE) {
            Incoming::Data(STDIN, data) => {
                if let Some(queue) = &input
                    && queue.send(data).await.is_err()
                {
                    input = None;
                }
            }
            Incoming::Data(RESIZE, data) => {
                if let Some(terminal) = &terminal {
                    resize(terminal, &data);
                }
            }
            Incoming::Close(STDIN) => input = None,
            Incoming::Data(..) | Incoming::Close(_) | Incoming::Nothing => {}
            Incoming::Violation => return,
        }
    }
}

/// `{"Width":80,"Height":24}`, possibly several.
fn resize(terminal: &Descriptor, sizes: &[u8]) {
    let sizes = serde_json::Deserializer::from_slice(sizes).into_iter::<serde_json::Value>();
    for size in sizes.map_while(Result::ok) {
        let number = |key: &str| size[key].as_u64().and_then(|number| u16::try_from(number).ok());
        if let (Some(columns), Some(rows)) = (number("Width"), number("Height"))
            && let Err(error) = terminal.resize(columns, rows)
        {
            tracing::debug!("resize a terminal: {error}");
        }
    }
}
