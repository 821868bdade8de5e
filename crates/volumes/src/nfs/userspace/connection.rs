//! Calls to an NFS server, version 3 over TCP, each as the user who asks. A server that does not answer is asked again,
//! over a new connection, as long as the mount is there (`hard`), or a few times (`soft`).

use nfs3_client::{
    Nfs3Client, Nfs3ConnectionBuilder, RpcError,
    io::{AsyncRead, AsyncWrite},
    net::Connector,
    nfs3_types::{
        nfs3::nfs_fh3,
        rpc::{auth_unix, opaque_auth},
        xdr_codec::Opaque,
    },
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// Users with a connection each; more of them, and all connect anew.
const USERS_MAX: usize = 64;
/// A server that lives takes a connection in a moment.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How soon it is seen that the process that waits for an answer is being killed.
const LOOK: Duration = Duration::from_secs(1);
/// Between two tries of a call: a server that is being restarted is found again soon.
const PAUSE: Duration = Duration::from_secs(1);

/// Who asks, as AUTH_SYS tells it: at most 16 groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// A user, and the process that waits for the answer: while it does it cannot be killed, so it is looked after.
#[derive(Clone, Debug, Default)]
pub(super) struct Asker {
    pub(super) user: User,
    pub(super) process: u32,
}

/// What the mount options say of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) path: String,
    pub(super) port: Option<u16>,
    pub(super) mount_port: Option<u16>,
    /// How long one try may take.
    pub(super) timeout: Duration,
    /// `soft`: so many tries; `hard`: none.
    pub(super) tries: Option<u32>,
}

pub(super) type Client = Nfs3Client<Stream>;

pub(super) struct Connections {
    server: Server,
    clients: HashMap<User, Client>,
    /// The process that waits just now.
    process: Arc<AtomicU32>,
    target: PathBuf,
    /// Whether anybody still waits: nobody does once it is not mounted.
    pub(super) is_wanted: fn(&Path) -> bool,
}

impl Connections {
    /// Asks the server for the directory; one try.
    pub(super) fn open(server: Server, target: &Path) -> io::Result<(Connections, nfs_fh3)> {
        let (root, process) = (User::default(), Arc::<AtomicU32>::default());
        let (client, handle) = connect(&server, &root, &process)?;
        let clients = HashMap::from([(root, client)]);
        let (target, is_wanted) = (target.to_owned(), super::is_mounted);
        Ok((Connections { server, clients, process, target, is_wanted }, handle))
    }

    /// Does `call` for the asker, again and again while it fails on the way. True beside the answer where an earlier try
    /// may have reached the server.
    pub(super) fn call<T>(
        &mut self,
        asker: &Asker,
        mut call: impl FnMut(&mut Client) -> Result<T, RpcError>,
    ) -> io::Result<(T, bool)> {
        self.process.store(asker.process, Relaxed);
        let (mut tried, mut again) = (0, false);
        loop {
            let error = match self.client(&asker.user) {
                Ok(client) => match call(client) {
                    Ok(answer) => return Ok((answer, again)),
                    Err(error) => match refusal(&error) {
                        Some(kind) => return Err(io::Error::new(kind, error)),
                        None => {
                            again = true;
                            io::Error::other(error)
                        }
                    },
                },
                Err(error) => error,
            };
            self.clients.remove(&asker.user);
            tried += 1;
            let given_up = self.server.tries.is_some_and(|most| tried >= most);
            if given_up || is_killed(asker.process) || !(self.is_wanted)(&self.target) {
                return Err(error);
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    fn client(&mut self, user: &User) -> io::Result<&mut Client> {
        if !self.clients.contains_key(user) {
            if self.clients.len() >= USERS_MAX {
                self.clients.clear();
            }
            let (client, _) = connect(&self.server, user, &self.process)?;
            self.clients.insert(user.clone(), client);
        }
        self.clients.get_mut(user).ok_or_else(|| io::Error::other("no connection"))
    }
}

/// What a server means that answers, and does not do it: it would answer the same again.
fn refusal(error: &RpcError) -> Option<io::ErrorKind> {
    match error {
        RpcError::Auth(_) => Some(io::ErrorKind::PermissionDenied),
        RpcError::RpcMismatch { .. }
        | RpcError::ProgUnavail
        | RpcError::ProgMismatch { .. }
        | RpcError::ProcUnavail
        | RpcError::GarbageArgs
        | RpcError::SystemErr => Some(io::ErrorKind::Other),
        RpcError::Io(_)
        | RpcError::Xdr(_)
        | RpcError::UnexpectedCall
        | RpcError::WrongLength
        | RpcError::UnexpectedXid
        | RpcError::NotFullyParsed { .. }
        | RpcError::FragmentedReply => None,
    }
}

/// Whether SIGKILL waits for this process (or thread): bit 8 of what is pending.
fn is_killed(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let masks = status
        .lines()
        .filter_map(|it| it.strip_prefix("SigPnd:").or_else(|| it.strip_prefix("ShdPnd:")));
    masks.filter_map(|it| u64::from_str_radix(it.trim(), 16).ok()).any(|it| it & (1 << 8) != 0)
}

fn connect(
    server: &Server,
    user: &User,
    process: &Arc<AtomicU32>,
) -> io::Result<(Client, nfs_fh3)> {
    let address = resolve(&server.host)?;
    let connector = TcpConnector { timeout: server.timeout, process: process.clone() };
    let credential = opaque_auth::auth_unix(&auth_unix {
        stamp: std::process::id(),
        machinename: Opaque::owned(b"stanchion".to_vec()),
        uid: user.uid,
        gid: user.gid,
        gids: user.groups.clone(),
    });
    let mut builder = Nfs3ConnectionBuilder::new(connector, address.to_string(), &server.path)
        .credential(credential);
    if let Some(port) = server.port {
        builder = builder.nfs3_port(port);
    }
    if let Some(port) = server.mount_port {
        builder = builder.mount_port(port);
    }
    let connection = now(builder.mount()).map_err(io::Error::other)?;
    let handle = connection.root_nfs_fh3();
    Ok((connection.into_nfs3_client(), handle))
}

fn resolve(host: &str) -> io::Result<IpAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let mut all = std::net::ToSocketAddrs::to_socket_addrs(&(host, 0))?;
    let none = || io::Error::new(io::ErrorKind::NotFound, format!("no address of {host}"));
    all.next().map(|it| it.ip()).ok_or_else(none)
}

/// Futures over blocking sockets are ready at their first poll.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

pub(super) struct Stream {
    stream: TcpStream,
    timeout: Duration,
    process: Arc<AtomicU32>,
}

impl AsyncRead for Stream {
    async fn async_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = Instant::now() + self.timeout;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= end {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    if is_killed(self.process.load(Relaxed)) {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                }
                other => return other,
            }
        }
    }
}

impl AsyncWrite for Stream {
    async fn async_write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self.stream.write(buffer)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        }
    }
}

struct TcpConnector {
    timeout: Duration,
    process: Arc<AtomicU32>,
}

impl TcpConnector {
    fn stream(&self, address: SocketAddr, from: Option<u16>) -> io::Result<Stream> {
        let (family, any) = match address {
            SocketAddr::V4(_) => (AddressFamily::INET, IpAddr::from([0; 4])),
            SocketAddr::V6(_) => (AddressFamily::INET6, IpAddr::from([0; 16])),
        };
        let kind = SocketType::STREAM;
        let socket =
            rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
        // Of connecting, too.
        let most = Some(self.timeout.min(CONNECT_MAX));
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, most)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LOOK))?;
        if let Some(port) = from {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &SocketAddr::new(any, port))?;
        }
        rustix::net::connect(&socket, &address)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(Stream { stream, timeout: self.timeout, process: self.process.clone() })
    }
}

impl Connector for TcpConnector {
    type Connection = Stream;

    async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        self.stream(address, None)
    }

    async fn connect_with_port(&self, address: SocketAddr, port: u16) -> io::Result<Stream> {
        match self.stream(address, Some(port)) {
            // The same four numbers a moment ago: another port will do.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Err(io::ErrorKind::AddrInUse.into())
            }
            other => other,
        }
    }
}
