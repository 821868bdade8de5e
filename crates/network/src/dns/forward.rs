//! Questions about the rest of the world, passed to the host's resolvers over the transport that they
//! came by. Bytes pass unread, so that whatever asker and resolver agree on goes through.

use super::{
    message::{self, Transport},
    resolv_conf::ResolvConf,
};
use hickory_proto::op::{Message, Query};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use stdx::{Entropy, SystemEntropy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

/// How long one resolver may take. Two of them fit into the five seconds after which the C library
/// asks again.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Datagrams that answer something else, while one waits for an answer. More look like a guess at
/// the identifier.
const STRANGERS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Forwarder {
    resolvers: ResolvConf,
    /// The resolver that answered last is asked first: a dead one costs its wait only once.
    best: AtomicUsize,
    entropy: SystemEntropy,
}

impl Forwarder {
    pub(crate) fn new(resolvers: ResolvConf) -> Forwarder {
        let entropy = SystemEntropy::default();
        Forwarder { resolvers, best: AtomicUsize::new(0), entropy }
    }

    /// The bytes with which a resolver answered `bytes`, a whole message that holds `question`. None
    /// where no resolver did.
    pub(crate) async fn pass(
        &self,
        bytes: &[u8],
        question: &Query,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let asked = u16::from_be_bytes([bytes[0], bytes[1]]);
        let (mut answer, _) = self.exchange(bytes.to_vec(), question, transport).await?;
        message::set_id(&mut answer, asked);
        Some(answer)
    }

    /// Asks on our own behalf; over TCP too, if the answer is long.
    pub(crate) async fn ask(&self, question: &Query) -> Option<Message> {
        let bytes = message::ask(question, 0)?;
        let (_, answer) = self.exchange(bytes.clone(), question, Transport::Udp).await?;
        if !answer.metadata.truncation {
            return Some(answer);
        }
        let whole = self.exchange(bytes, question, Transport::Tcp).await;
        Some(whole.map_or(answer, |(_, whole)| whole))
    }

    async fn exchange(
        &self,
        mut bytes: Vec<u8>,
        question: &Query,
        transport: Transport,
    ) -> Option<(Vec<u8>, Message)> {
        let resolvers = self.resolvers.servers();
        let best = self.best.load(Ordering::Relaxed);
        for place in 0..resolvers.len() {
            let place = (best + place) % resolvers.len();
            let resolver = resolvers[place];
            let mut id = [0; 2];
            self.entropy.fill(&mut id);
            let id = u16::from_be_bytes(id);
            message::set_id(&mut bytes, id);
            let asked = async {
                match transport {
                    Transport::Udp => over_udp(resolver, &bytes, id, question).await,
                    Transport::Tcp => over_tcp(resolver, &bytes, id, question).await,
                }
            };
            match stdx::timeout(ANSWER_WAIT, asked).await {
                Some(Ok(answer)) => {
                    self.best.store(place, Ordering::Relaxed);
                    return Some(answer);
                }
                Some(Err(error)) => tracing::debug!("asking {resolver} for {question}: {error}"),
                None => tracing::debug!("asking {resolver} for {question}: no answer in time"),
            }
        }
        None
    }
}

async fn over_udp(
    resolver: SocketAddr,
    bytes: &[u8],
    id: u16,
    question: &Query,
) -> io::Result<(Vec<u8>, Message)> {
    // A port of the kernel's choice for each question, which is half of what a forger must guess.
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    for _ in 0..STRANGERS_MAX {
        let length = socket.recv(&mut buffer).await?;
        if let Some(message) = message::answers(&buffer[..length], id, question) {
            buffer.truncate(length);
            return Ok((buffer, message));
        }
    }
    Err(io::Error::other("too many datagrams that answer something else"))
}

async fn over_tcp(
    resolver: SocketAddr,
    bytes: &[u8],
    id: u16,
    question: &Query,
) -> io::Result<(Vec<u8>, Message)> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let message = message::answers(&buffer, id, question)
        .ok_or_else(|| io::Error::other("the answer is to something else"))?;
    Ok((buffer, message))
}
