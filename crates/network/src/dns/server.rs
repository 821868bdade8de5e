//! Sockets: questions in, answers out, within limits. What is ours is answered at once; what has to be
//! asked for elsewhere waits on a task of its own.

use super::{
    Answer, Error, Zone, answer,
    answer::alias,
    forward::Forwarder,
    message::{self, Arrived, Reply, Request, Transport},
    resolv_conf::ResolvConf,
    short,
};
use client::Client;
use hickory_proto::{
    op::{Query, ResponseCode},
    rr::{Name, Record, RecordType},
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use stdx::{Backoff, Entropy, ShutdownSignal, SystemEntropy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
};

/// Questions waiting for a resolver elsewhere. Each holds a descriptor; one more is told to ask again
/// later (SERVFAIL), which also ends a loop of resolvers that ask each other.
const FORWARDS_MAX: usize = 256;

/// Open TCP connections. One more waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 128;

/// How long a TCP connection may say nothing.
const IDLE: Duration = Duration::from_secs(10);

/// Far more than one question needs; a connection that announces more is closed.
const QUESTION_BYTES_MAX: usize = 4096;

/// Aliases followed for one question; a longer chain is answered as far as it got.
const ALIASES_MAX: usize = 8;

/// How long others may take to know a name that is a pod's short one of ours: they are heard first, so that nothing
/// that exists is hidden, but where nobody answers the pod gets its answer before it asks again.
const OTHERS_WAIT: Duration = Duration::from_secs(1);

/// Tries to find one port that is free for both protocols, when any port will do.
const PORT_TRIES: usize = 16;

#[derive(Clone, Debug)]
pub struct Config {
    /// Each is served over UDP and TCP. Port 0 is any free one.
    pub listen: Vec<SocketAddr>,
    pub zone: Zone,
    /// The host's, usually `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

/// A DNS server that has its sockets and does not answer yet.
#[derive(Debug)]
pub struct Server {
    sockets: Vec<(UdpSocket, TcpListener)>,
    addresses: Vec<SocketAddr>,
    config: Config,
}

impl Server {
    /// Takes the addresses.
    ///
    /// # Errors
    /// [`Error::Listen`], with the address, the protocol and the cause.
    pub async fn bind(config: Config) -> Result<Server, Error> {
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        for address in &config.listen {
            let (address, pair) = bind(*address).await?;
            addresses.push(address);
            sockets.push(pair);
        }
        Ok(Server { sockets, addresses, config })
    }

    /// Where it listens, ports filled in.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Answers until shutdown begins.
    pub async fn serve(self, client: Arc<dyn Client>, mut shutdown: ShutdownSignal) {
        let resolvers = ResolvConf::new(self.config.resolv_conf, self.addresses);
        let desk = Arc::new(Desk {
            client,
            zone: self.config.zone,
            forwarder: Forwarder::new(resolvers),
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            entropy: SystemEntropy::default(),
        });
        let mut loops = JoinSet::new();
        for (udp, tcp) in self.sockets {
            loops.spawn(desk.clone().datagrams(Arc::new(udp)));
            loops.spawn(desk.clone().connections(tcp));
        }
        shutdown.wait().await;
        // Dropping the set ends the loops; what is being asked for elsewhere is still answered.
    }
}

async fn bind(address: SocketAddr) -> Result<(SocketAddr, (UdpSocket, TcpListener)), Error> {
    let failed = |protocol| move |source| Error::Listen { address, protocol, source };
    for _ in 1..PORT_TRIES {
        let udp = UdpSocket::bind(address).await.map_err(failed("udp"))?;
        let chosen = udp.local_addr().map_err(failed("udp"))?;
        match TcpListener::bind(chosen).await {
            Ok(tcp) => return Ok((chosen, (udp, tcp))),
            Err(error) if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(failed("tcp")(error)),
        }
    }
    Err(failed("tcp")(io::ErrorKind::AddrInUse.into()))
}

/// Where every question arrives, whatever carried it.
struct Desk {
    client: Arc<dyn Client>,
    zone: Zone,
    forwarder: Forwarder,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    entropy: SystemEntropy,
}

/// What can be said at once.
enum Said {
    All(Vec<u8>),
    /// The rest is known elsewhere: all of it, or where the last alias leads.
    Part(Box<Part>),
    Nothing,
}

/// What has to be completed.
struct Part {
    request: Request,
    /// The aliases so far.
    records: Vec<Record>,
    /// Where the last of them leads, or what was asked.
    question: Query,
    /// What the asker meant, if nobody else knows the name.
    meant: Option<Name>,
}

impl Desk {
    async fn datagrams(self: Arc<Desk>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; QUESTION_BYTES_MAX];
        let mut backoff = errors();
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(arrived) => arrived,
                Err(error) => {
                    tracing::warn!("receiving DNS questions: {error}");
                    stdx::sleep(backoff.failed()).await;
                    continue;
                }
            };
            backoff.succeeded();
            match self.say(&buffer[..length], Transport::Udp, from.ip()) {
                Said::All(bytes) => send(&socket, &bytes, from).await,
                Said::Part(part) => {
                    let Ok(place) = self.forwards.clone().try_acquire_owned() else {
                        let busy = Reply::failed(&part.request, ResponseCode::ServFail);
                        send(&socket, &busy.bytes(), from).await;
                        continue;
                    };
                    let (desk, socket) = (self.clone(), socket.clone());
                    let asked = buffer[..length].to_vec();
                    tokio::spawn(async move {
                        let bytes = desk.complete(&asked, *part, Transport::Udp).await;
                        send(&socket, &bytes, from).await;
                        drop(place);
                    });
                }
                Said::Nothing => {}
            }
        }
    }

    async fn connections(self: Arc<Desk>, listener: TcpListener) {
        let mut backoff = errors();
        // Connections end with the server: they are its children.
        let mut open = JoinSet::new();
        loop {
            while open.try_join_next().is_some() {}
            let Ok(place) = self.connections.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, from)) => {
                    backoff.succeeded();
                    let desk = self.clone();
                    open.spawn(async move {
                        if let Err(error) = desk.connection(stream, from.ip()).await {
                            tracing::debug!("answering DNS over TCP to {from}: {error}");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("accepting DNS connections: {error}");
                    stdx::sleep(backoff.failed()).await;
                }
            }
        }
    }

    /// One question after the other, until the asker is silent or gone.
    async fn connection(&self, mut stream: TcpStream, from: IpAddr) -> io::Result<()> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let mut buffer = vec![0; QUESTION_BYTES_MAX];
        loop {
            let length = match stdx::timeout(IDLE, stream.read_u16()).await {
                Some(Ok(length)) => usize::from(length),
                // Gone or silent between two questions is how a connection ends.
                None => return Ok(()),
                Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Some(Err(error)) => return Err(error),
            };
            if length > buffer.len() {
                return Err(io::Error::other(format!("a question of {length} bytes")));
            }
            let asked = &mut buffer[..length];
            stdx::timeout(IDLE, stream.read_exact(asked)).await.ok_or_else(late)??;
            let bytes = match self.say(asked, Transport::Tcp, from) {
                Said::All(bytes) => bytes,
                Said::Part(part) => match self.forwards.clone().try_acquire_owned() {
                    Ok(_place) => self.complete(asked, *part, Transport::Tcp).await,
                    Err(_) => Reply::failed(&part.request, ResponseCode::ServFail).bytes(),
                },
                Said::Nothing => return Ok(()),
            };
            let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes()[..], &bytes].concat();
            stdx::timeout(IDLE, stream.write_all(&framed)).await.ok_or_else(late)??;
        }
    }

    /// Answers from the latest World, as far as that goes.
    fn say(&self, bytes: &[u8], transport: Transport, from: IpAddr) -> Said {
        let request = match message::read(bytes, transport) {
            Arrived::Request(request) => request,
            Arrived::Refused(bytes) => return Said::All(bytes),
            Arrived::Ignored => return Said::Nothing,
        };
        let question = request.question.clone();
        self.follow(request, Vec::new(), question, Some(from))
    }

    /// From a question, through aliases, to an answer. `from` is who may have shortened the name.
    fn follow(
        &self,
        request: Request,
        mut records: Vec<Record>,
        mut question: Query,
        from: Option<IpAddr>,
    ) -> Said {
        let world = self.client.world();
        for _ in 0..=ALIASES_MAX {
            let said = answer(&world, &self.zone, &question);
            // Before the ledger is read nobody knows that a name does not exist.
            if world.revision == 0 && said != Answer::Elsewhere {
                return Said::All(Reply::failed(&request, ResponseCode::ServFail).bytes());
            }
            let mut reply = Reply::to(&request);
            match said {
                Answer::Elsewhere => {
                    let first = from.filter(|_| records.is_empty());
                    let meant =
                        first.and_then(|it| short::meant(&world, &self.zone, &question, it));
                    return Said::Part(Box::new(Part { request, records, question, meant }));
                }
                Answer::Alias(target) => {
                    records.push(alias(question.name(), target.clone()));
                    question.set_name(target);
                    continue;
                }
                Answer::Records { mut answers, additionals } => {
                    self.shuffle(&mut answers);
                    reply.message.answers = records.into_iter().chain(answers).collect();
                    reply.message.additionals = additionals;
                }
                Answer::NoData | Answer::NoName => {
                    if said == Answer::NoName {
                        reply.message.metadata.response_code = ResponseCode::NXDomain;
                    }
                    let authority = self.zone.authority(question.name(), world.revision);
                    reply.message.answers = records;
                    reply.message.add_authority(authority);
                }
            }
            return Said::All(reply.bytes());
        }
        let mut reply = Reply::to(&request);
        reply.message.answers = records;
        Said::All(reply.bytes())
    }

    /// Has the rest answered by the host's resolvers.
    async fn complete(&self, asked: &[u8], part: Part, transport: Transport) -> Vec<u8> {
        if !part.records.is_empty() {
            return self.append(part).await;
        }
        let Part { request, mut question, meant, .. } = part;
        let others = self.forwarder.pass(asked, &question, transport);
        let Some(meant) = meant else {
            let failed = || Reply::failed(&request, ResponseCode::ServFail).bytes();
            return others.await.unwrap_or_else(failed);
        };
        if let Some(Some(bytes)) = stdx::timeout(OTHERS_WAIT, others).await
            && message::is_known(&bytes)
        {
            return bytes;
        }
        let first = alias(question.name(), meant.clone());
        question.set_name(meant);
        match self.follow(request, vec![first], question, None) {
            Said::All(bytes) => bytes,
            Said::Part(rest) => self.append(*rest).await,
            Said::Nothing => Vec::new(),
        }
    }

    /// What the last alias leads to, behind the aliases.
    async fn append(&self, Part { request, records, question, .. }: Part) -> Vec<u8> {
        let Some(rest) = self.forwarder.ask(&question).await else {
            return Reply::failed(&request, ResponseCode::ServFail).bytes();
        };
        let mut reply = Reply::to(&request);
        reply.message.metadata.response_code = rest.metadata.response_code;
        reply.message.answers = records.into_iter().chain(rest.answers).collect();
        reply.message.authorities = rest.authorities;
        reply.bytes()
    }

    /// Askers take the first address: each gets another one.
    fn shuffle(&self, records: &mut [Record]) {
        let spread = |it: &Record| matches!(it.record_type(), RecordType::A | RecordType::AAAA);
        if !records.iter().all(spread) {
            return;
        }
        for last in (1..records.len()).rev() {
            // Below `last + 1`, so it fits where `last` does.
            let other = self.entropy.below(last as u64 + 1) as usize;
            records.swap(last, other);
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    // The asker may be gone; that is for it to care about.
    if let Err(error) = socket.send_to(bytes, to).await {
        tracing::debug!("answering DNS to {to}: {error}");
    }
}

fn errors() -> Backoff {
    Backoff::new(Duration::from_millis(10), Duration::from_secs(1))
}
