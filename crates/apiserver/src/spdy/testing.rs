//! A small client: opens streams, says what the test tells it, and collects what it hears.

use super::{
    frame::{self, FIN, Frame},
    headers::{Headers, Packer, Unpacker},
};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What was heard on one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) replied: bool,
    pub(crate) data: Vec<u8>,
    pub(crate) finished: bool,
    pub(crate) reset: bool,
}

impl Heard {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.data).unwrap()
    }
}

pub(crate) struct Client {
    pub(crate) io: DuplexStream,
    packer: Packer,
    unpacker: Unpacker,
    next: u32,
    pub(crate) heard: BTreeMap<u32, Heard>,
    pub(crate) pings: Vec<u32>,
    /// How much more each stream was allowed; 0 is the connection.
    pub(crate) allowed: BTreeMap<u32, u32>,
    pub(crate) farewell: bool,
}

impl Client {
    /// The client and what a server serves.
    pub(crate) fn pair() -> (Client, DuplexStream) {
        let (io, server) = tokio::io::duplex(64 * 1024);
        let client = Client {
            io,
            packer: Packer::new(),
            unpacker: Unpacker::new(),
            next: 1,
            heard: BTreeMap::new(),
            pings: Vec::new(),
            allowed: BTreeMap::new(),
            farewell: false,
        };
        (client, server)
    }

    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.open_as(stream, headers).await;
        stream
    }

    pub(crate) async fn open_as(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|it| (it.0.to_owned(), it.1.to_owned())).collect();
        let block = self.packer.write(&Headers(headers)).unwrap();
        self.write(&frame::syn_stream(stream, 0, &block)).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn say(&mut self, stream: u32, data: &[u8]) {
        self.write(&[&frame::data_head(stream, 0, data.len()), data].concat()).await;
    }

    pub(crate) async fn finish(&mut self, stream: u32) {
        self.write(&frame::data_head(stream, FIN, 0)).await;
    }

    /// Hears one frame; `false` when the server has closed the connection.
    pub(crate) async fn hear(&mut self) -> bool {
        let Ok(Some(frame)) = frame::read(&mut self.io).await else { return false };
        match frame {
            Frame::Data { stream, flags, length } => {
                let mut data = vec![0; length];
                self.io.read_exact(&mut data).await.unwrap();
                let heard = self.heard.entry(stream).or_default();
                assert!(heard.replied, "data before the reply");
                heard.data.extend(data);
                heard.finished |= flags & FIN != 0;
            }
            Frame::SynReply { stream, block, .. } => {
                self.unpacker.read(&block).unwrap();
                self.heard.entry(stream).or_default().replied = true;
            }
            Frame::Reset { stream } => self.heard.entry(stream).or_default().reset = true,
            Frame::Ping { id } => self.pings.push(id),
            Frame::WindowUpdate { stream, more } => {
                *self.allowed.entry(stream).or_default() += more
            }
            Frame::GoAway => self.farewell = true,
            other => panic!("a server does not say {other:?}"),
        }
        true
    }

    pub(crate) fn on(&self, stream: u32) -> Heard {
        self.heard.get(&stream).cloned().unwrap_or_default()
    }

    /// Hears until it is so.
    pub(crate) async fn until(&mut self, so: impl Fn(&Client) -> bool) {
        while !so(self) {
            assert!(self.hear().await, "the server closed the connection");
        }
    }
}
