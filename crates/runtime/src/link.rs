//! The connection to one shim: requests with their replies, and the exits that it tells of.

mod program;

pub(crate) use program::Program;

use crate::error::{Attempt, Error, Result};
use shim::{
    frame::{self, Inbox},
    protocol::{Envelope, Exit, Message, Reply, Request},
    wire::Wire,
};
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{mpsc, oneshot},
};

/// Requests that may wait to be written to one shim.
const WAITING_MAX: usize = 256;

/// What a shim says unasked.
#[derive(Debug)]
pub(crate) enum Notice {
    Exited {
        container: String,
        exit: Exit,
    },
    /// The shim is gone.
    Closed,
}

/// Cheap to clone; closed when the last clone and all requests are gone.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
}

#[derive(Debug)]
struct Shared {
    sandbox: String,
    next: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    replies: HashMap<u64, oneshot::Sender<(Reply, Vec<OwnedFd>)>>,
    execs: HashMap<u64, oneshot::Sender<i32>>,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Link {
    /// Reconnects to the shim that listens in `directory`; an error of kind NotFound or ConnectionRefused means that
    /// it is gone.
    pub(crate) fn connect(directory: &Path) -> io::Result<StdUnixStream> {
        // A socket's path has at most 107 bytes; a descriptor's path is short.
        let opened = File::open(directory)?;
        StdUnixStream::connect(format!("/proc/self/fd/{}/shim.sock", opened.as_raw_fd()))
    }

    pub(crate) fn new(
        sandbox: &str,
        socket: StdUnixStream,
        notices: impl Fn(Notice) + Send + 'static,
    ) -> Result<Link> {
        let attempted = || format!("talk to the shim of sandbox {sandbox}");
        socket.set_nonblocking(true).attempt(attempted)?;
        let socket = Arc::new(UnixStream::from_std(socket).attempt(attempted)?);
        let (outgoing, queue) = mpsc::channel(WAITING_MAX);
        let shared = Arc::new(Shared {
            sandbox: sandbox.to_owned(),
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
        });
        tokio::spawn(write(Arc::clone(&socket), queue));
        tokio::spawn(read(socket, Arc::clone(&shared), notices));
        Ok(Link { shared, outgoing })
    }

    /// Sends one request and waits for its reply.
    pub(crate) async fn request(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>)> {
        let number = self.number();
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            if waiting.closed {
                return Err(self.gone());
            }
            waiting.replies.insert(number, sender);
        }
        let body = Envelope { number, request: request.to_bytes() }.to_bytes();
        let bytes = frame::encode(&body, descriptors.len());
        self.outgoing.send(Outgoing { bytes, descriptors }).await.map_err(|_| self.gone())?;
        let (reply, descriptors) = receiver.await.map_err(|_| self.gone())?;
        Ok((reply, descriptors))
    }

    /// A number for an exec, and where its exit code will arrive.
    pub(crate) fn expect_exec(&self) -> (u64, oneshot::Receiver<i32>) {
        let number = self.number();
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting().execs.insert(number, sender);
        (number, receiver)
    }

    pub(crate) fn forget_exec(&self, exec: u64) {
        self.shared.waiting().execs.remove(&exec);
    }

    fn number(&self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn gone(&self) -> Error {
        Error::SandboxGone(self.shared.sandbox.clone())
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task of its own, so that a caller that loses interest cannot leave half a frame behind.
async fn write(socket: Arc<UnixStream>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing { bytes, descriptors }) = queue.recv().await {
        let mut sent = 0;
        while sent < bytes.len() {
            let passed: Vec<i32> = if sent == 0 {
                descriptors.iter().map(AsRawFd::as_raw_fd).collect()
            } else {
                vec![]
            };
            let send = || frame::send(socket.as_fd(), &bytes[sent..], &passed);
            match socket.async_io(Interest::WRITABLE, send).await {
                Ok(count) => sent += count,
                Err(_) => return,
            }
        }
    }
}

async fn read(socket: Arc<UnixStream>, shared: Arc<Shared>, notices: impl Fn(Notice)) {
    let mut inbox = Inbox::default();
    while let Ok(true) = socket.async_io(Interest::READABLE, || inbox.receive(socket.as_fd())).await
    {
        while let Ok(Some((body, descriptors))) = inbox.take() {
            match Message::from_bytes(&body) {
                Some(Message::Reply(reply)) => {
                    if let Some(sender) = shared.waiting().replies.remove(&reply.number) {
                        // The asker may have lost interest.
                        let _unheard = sender.send((reply, descriptors));
                    }
                }
                Some(Message::Exited(exited)) => {
                    notices(Notice::Exited { container: exited.container, exit: exited.exit });
                }
                Some(Message::ExecExited(exited)) => {
                    if let Some(sender) = shared.waiting().execs.remove(&exited.exec) {
                        let _unheard = sender.send(exited.code);
                    }
                }
                None => tracing::warn!(sandbox = shared.sandbox, "the shim said something unknown"),
            }
        }
    }
    *shared.waiting() = Waiting { closed: true, ..Waiting::default() };
    notices(Notice::Closed);
}
