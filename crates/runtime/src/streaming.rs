//! Exec, attach and port-forward for people: streams over one WebSocket, on a unix socket of the node.
//!
//! CRI's Exec, Attach and PortForward answer with a URL that works once, for a minute:
//! `unix://<absolute path of the socket>/exec/<token>` (or `attach`, or `portforward`). The last two segments are
//! the path to ask for, all before them is the socket: see [`split_url`]. Whoever has the URL connects to
//! the socket, sends an ordinary HTTP/1.1 WebSocket upgrade for that path, and passes bytes both ways
//! afterwards; every server on the way may do the same without looking into them.
//! Upstream: staging/src/k8s.io/cri-streaming/pkg/streaming/server.go.

mod channels;
mod descriptor;
mod outcome;
mod ports;
mod session;
#[cfg(test)]
mod tests;
mod tokens;
mod upgrade;

use futures_util::FutureExt;
use rpc::cri::{AttachRequest, ExecRequest, PortForwardRequest};
use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use stdx::{BoxFuture, Clock, Entropy, ShutdownSignal};
use tokio::{
    net::{TcpStream, UnixListener},
    sync::Semaphore,
};
use tonic::Status;

/// Sessions at one time; more wait to be accepted. Twice upstream's limit of unanswered URLs.
const SESSIONS_MAX: usize = 2000;

/// What runs processes in containers. A stream that a request does not want is /dev/null for a command
/// that is started, and `None` in the answer.
pub trait Processes: Send + Sync + 'static {
    /// Starts a command in a running container.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Process, Status>>;

    /// Joins the streams of the container's own process. `exit` resolves when they have ended.
    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Process, Status>>;

    /// Connects to a port on the loopback interface of a pod.
    fn connect<'a>(
        &'a self,
        sandbox: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<TcpStream, Status>>;
}

/// A process and our ends of its streams. Dropping it closes them, and kills nothing: the process reads
/// the end of its input, and is told by SIGPIPE or SIGHUP when nobody takes its output any more.
pub struct Process {
    pub streams: Streams,
    /// The exit code; 128 + the signal for one that was killed. An error if it cannot be known.
    pub exit: BoxFuture<'static, Result<i32, Status>>,
}

/// Our ends: pipes, sockets or the master of a terminal. They become non-blocking, which everybody who
/// has the same open file notices.
pub enum Streams {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    },
    Terminal(OwnedFd),
    /// A terminal that somebody else reads: input and size go to the master, output comes copied.
    SharedTerminal {
        master: OwnedFd,
        output: OwnedFd,
    },
}

/// Hands out URLs and serves them.
#[derive(Clone)]
pub struct Streaming(Arc<Inner>);

struct Inner {
    socket: PathBuf,
    tokens: tokens::Tokens,
    processes: Arc<dyn Processes>,
}

/// What a token stands for.
#[derive(Clone, Debug)]
enum Order {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(PortForwardRequest),
}

impl Streaming {
    /// `socket` is an absolute path below the data dir, at most 100 bytes long.
    pub fn new(
        socket: PathBuf,
        processes: Arc<dyn Processes>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Streaming {
        Streaming(Arc::new(Inner {
            socket,
            tokens: tokens::Tokens::new(clock, entropy),
            processes,
        }))
    }

    /// The URL for CRI's Exec.
    pub fn exec(&self, request: ExecRequest) -> Result<String, Status> {
        let (tty, stdin) = (request.tty, request.stdin);
        check(&request.container_id, tty, stdin, request.stdout, request.stderr)?;
        self.url("exec", Order::Exec(request))
    }

    /// The URL for CRI's Attach.
    pub fn attach(&self, request: AttachRequest) -> Result<String, Status> {
        let (tty, stdin) = (request.tty, request.stdin);
        check(&request.container_id, tty, stdin, request.stdout, request.stderr)?;
        self.url("attach", Order::Attach(request))
    }

    /// The URL for CRI's PortForward.
    pub fn port_forward(&self, request: PortForwardRequest) -> Result<String, Status> {
        if request.pod_sandbox_id.is_empty() {
            return Err(Status::invalid_argument("missing required pod_sandbox_id"));
        }
        ports::check(&request.port)?;
        self.url("portforward", Order::PortForward(request))
    }

    /// Listens on the socket, which only its owner may use, in place of a former server's.
    pub fn bind(&self) -> std::io::Result<UnixListener> {
        let socket = &self.0.socket;
        // Made beside and moved: at no moment can others connect.
        let mut beside = socket.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&beside, socket)?;
        Ok(listener)
    }

    /// Serves until shutdown begins; sessions that are open then end with it.
    pub async fn serve(&self, listener: UnixListener, mut shutdown: ShutdownSignal) {
        let places = Arc::new(Semaphore::new(SESSIONS_MAX));
        let mut sessions = tokio::task::JoinSet::new();
        loop {
            let place =
                places.clone().acquire_owned().await.expect("the semaphore is never closed");
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.wait() => break,
            };
            while sessions.join_next().now_or_never().flatten().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let this = self.clone();
                    sessions.spawn(async move {
                        this.converse(stream).await;
                        drop(place);
                    });
                }
                Err(error) => tracing::warn!("accept on {}: {error}", self.0.socket.display()),
            }
        }
        sessions.shutdown().await;
    }

    fn url(&self, kind: &str, order: Order) -> Result<String, Status> {
        let token = self.0.tokens.insert(order)?;
        Ok(format!("unix://{}/{kind}/{token}", self.0.socket.display()))
    }
}

/// The socket and the path to ask it for, of a URL from CRI's Exec or Attach.
pub fn split_url(url: &str) -> Option<(&Path, &str)> {
    let rest = url.strip_prefix("unix://")?;
    let token = rest.rfind('/')?;
    let kind = rest[..token].rfind('/')?;
    (kind > 0).then(|| (Path::new(&rest[..kind]), &rest[kind..]))
}

fn check(
    container: &str,
    tty: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
) -> Result<(), Status> {
    if container.is_empty() {
        return Err(Status::invalid_argument("missing required container_id"));
    }
    if tty && stderr {
        return Err(Status::invalid_argument("tty and stderr cannot both be true"));
    }
    if !stdin && !stdout && !stderr {
        return Err(Status::invalid_argument("one of stdin, stdout, or stderr must be set"));
    }
    Ok(())
}
