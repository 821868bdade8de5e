//! A connection's two tasks: one reads frames and hands them to their streams, one writes what all streams say.
//!
//! Upstream: `k8s.io/streaming/pkg/httpstream/spdy/connection.go`, on moby's spdystream.

use super::{
    frame::{self, Broken, FIN, Frame, INITIAL_WINDOW, Reset, UNIDIRECTIONAL},
    headers::{Headers, Packer, Unpacker},
    stream::{Credit, Gone, Receiver, Sender, WINDOW},
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{Notify, mpsc},
    task::JoinHandle,
};

/// Streams that are open at one time: a thousand forwarded connections.
const STREAMS_MAX: usize = 2048;

/// Pieces that wait for one stream's reader, and how large each is at the most.
const PIECES_WAITING_MAX: usize = 16;
const PIECE: usize = 32 * 1024;

/// Frames of data that wait for the connection, and answers to control frames.
const DATA_WAITING_MAX: usize = 4;
const CONTROL_WAITING_MAX: usize = 64;

/// How much is written at once.
const WRITE: usize = 64 * 1024;

/// A connection without any traffic in either direction ends after this. Upstream's default.
const IDLE_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// The peer is asked for a sign of life when it was told nothing for so long. One that vanished while its input waited
/// to be read would not be noticed otherwise.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// How long the peer may take to close its side once we have said farewell.
const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// What the writer is given.
#[derive(Debug)]
pub(super) enum Out {
    Frame(Vec<u8>),
    Reply { stream: u32 },
    Data { stream: u32, data: Bytes, fin: bool },
}

/// A stream that the peer has opened.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: u32,
    pub(crate) headers: Headers,
    pub(crate) receiver: Receiver,
    pub(crate) sender: Sender,
}

/// What all streams of a connection share.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    data: mpsc::Sender<Out>,
    control: mpsc::Sender<Out>,
    /// The connection's own window.
    pub(super) credit: Arc<Credit>,
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    streams: Mutex<BTreeMap<u32, Entry>>,
    /// Whether the peer has named a window of a stream, and of the connection.
    heeded: [Arc<AtomicBool>; 2],
    /// What streams have to tell the peer and do not wait for: at most one line for each.
    owed: Mutex<BTreeMap<u32, Owed>>,
    owing: Notify,
    /// Something was written since this was last looked at.
    active: AtomicBool,
}

#[derive(Debug, Default)]
struct Owed {
    /// How much more the peer may send.
    more: u32,
    reset: bool,
}

#[derive(Debug)]
struct Entry {
    /// Gone when the peer has closed its half.
    pieces: Option<mpsc::Sender<Bytes>>,
    credit: Arc<Credit>,
    /// Our half is closed.
    closed: bool,
}

impl Table {
    fn streams(&self) -> MutexGuard<'_, BTreeMap<u32, Entry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        for entry in std::mem::take(&mut *self.streams()).into_values() {
            entry.credit.close();
        }
    }

    fn owed(&self) -> MutexGuard<'_, BTreeMap<u32, Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet {
    pub(super) async fn send(&self, out: Out) -> Result<(), Gone> {
        self.data.send(out).await.map_err(|_| Gone)
    }

    /// Before all data.
    async fn control(&self, out: Out) -> io::Result<()> {
        self.control.send(out).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Tells the peer that it may send so much more.
    pub(super) fn taken(&self, stream: u32, more: u32) {
        let mut owed = self.table.owed();
        for stream in [stream, 0] {
            let owed = owed.entry(stream).or_default();
            owed.more = owed.more.saturating_add(more);
        }
        self.table.owing.notify_one();
    }

    /// Tells the peer that nobody serves the stream any more.
    pub(super) fn give_up(&self, stream: u32) {
        self.table.owed().entry(stream).or_default().reset = true;
        self.table.owing.notify_one();
    }

    /// Both halves are closed.
    pub(super) fn forget(&self, stream: u32) {
        if let Some(entry) = self.table.streams().remove(&stream) {
            entry.credit.close();
        }
    }

    /// Our half is closed.
    pub(super) fn closed(&self, stream: u32) {
        let mut streams = self.table.streams();
        if let Some(entry) = streams.get_mut(&stream) {
            entry.closed = true;
            if entry.pieces.is_none() {
                streams.remove(&stream);
            }
        }
    }
}

/// A connection. Dropped before [`Session::end`], it is cut off.
pub(crate) struct Session {
    accepted: mpsc::Receiver<Accepted>,
    outlet: Option<Outlet>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Session {
    /// Serves a connection on which SPDY was agreed.
    pub(crate) fn start(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Session {
        let (from, to) = tokio::io::split(io);
        let (data, data_waiting) = mpsc::channel(DATA_WAITING_MAX);
        let (control, control_waiting) = mpsc::channel(CONTROL_WAITING_MAX);
        let (opened, accepted) = mpsc::channel(1);
        let heeded = [Arc::default(), Arc::default()];
        let credit = Arc::new(Credit::new(WINDOW, Arc::clone(&heeded[1])));
        let table = Arc::new(Table {
            streams: Mutex::default(),
            heeded,
            owed: Mutex::default(),
            owing: Notify::new(),
            active: AtomicBool::new(false),
        });
        let outlet = Outlet { data, control, credit, table: Arc::clone(&table) };
        let mut inlet = Inlet {
            from: BufReader::with_capacity(PIECE, from),
            unpacker: Unpacker::new(),
            outlet: outlet.clone(),
            opened,
            last: 0,
            window: WINDOW,
        };
        let reader = tokio::spawn(async move {
            if let Err(error) = inlet.run().await {
                tracing::debug!("a SPDY connection broke: {error}");
            }
            inlet.outlet.credit.close();
            inlet.outlet.table.close();
        });
        let writer = tokio::spawn(async move {
            if let Err(error) = write(to, control_waiting, data_waiting, &table).await {
                tracing::debug!("a SPDY connection broke: {error}");
            }
            // What cannot be written to is gone, also while nothing can be read.
            table.close();
        });
        Session { accepted, outlet: Some(outlet), reader, writer }
    }

    /// The next stream that the peer opens; `None` when the connection is gone.
    pub(crate) async fn accept(&mut self) -> Option<Accepted> {
        self.accepted.recv().await
    }

    /// Sends what is waiting and a farewell, and closes. All streams have been finished or dropped.
    pub(crate) async fn end(mut self) {
        let farewell = async {
            if let Some(outlet) = self.outlet.take() {
                // Streams that still come are not ours any more.
                self.accepted.close();
                // Whoever finished its streams hears so and leaves; the farewell is for who does not.
                let left = stdx::timeout(FAREWELL_MAX, &mut self.reader).await;
                let _gone = outlet.send(Out::Frame(frame::go_away(0))).await;
                if left.is_none() {
                    self.reader.abort();
                    let _cut = (&mut self.reader).await;
                }
            }
            // Ends when nobody is left who could say something.
            let _written = (&mut self.writer).await;
        };
        let _too_late = stdx::timeout(2 * FAREWELL_MAX, farewell).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

/// The reading side.
struct Inlet<R> {
    from: BufReader<R>,
    unpacker: Unpacker,
    outlet: Outlet,
    opened: mpsc::Sender<Accepted>,
    /// The highest stream so far.
    last: u32,
    /// How much the peer lets a new stream send.
    window: i64,
}

impl<R: AsyncRead + Unpin> Inlet<R> {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let frame = {
                let next = frame::read(&mut self.from);
                tokio::pin!(next);
                loop {
                    match stdx::timeout(IDLE_MAX, &mut next).await {
                        Some(frame) => break frame?,
                        None if self.outlet.table.active.swap(false, Ordering::Relaxed) => {}
                        None => return Ok(()),
                    }
                }
            };
            let Some(frame) = frame else { return Ok(()) };
            self.take(frame).await?;
        }
    }

    async fn take(&mut self, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Data { stream, flags, length } => self.data(stream, flags, length).await?,
            Frame::SynStream { stream, flags, block } => self.open(stream, flags, &block).await?,
            // Every block belongs to the one compressed stream.
            Frame::SynReply { block, .. } => drop(self.unpacker.read(&block)?),
            Frame::Headers { stream, flags, block } => {
                self.unpacker.read(&block)?;
                self.half_closed(stream, flags);
            }
            Frame::Reset { stream } => self.outlet.forget(stream),
            Frame::Settings { pairs } => self.settings(&pairs),
            Frame::Ping { id } if id % 2 == 1 => self.reply(frame::ping(id)).await?,
            Frame::WindowUpdate { stream, more } => self.window(stream, more)?,
            // After a farewell the peer opens no streams; those that are open go on.
            Frame::Ping { .. } | Frame::GoAway | Frame::Unknown => {}
        }
        Ok(())
    }

    /// The peer has to take our answers before it is heard again.
    async fn reply(&mut self, frame: Vec<u8>) -> io::Result<()> {
        self.outlet.control(Out::Frame(frame)).await
    }

    async fn open(&mut self, stream: u32, flags: u8, block: &[u8]) -> io::Result<()> {
        let headers = self.unpacker.read(block)?;
        if stream.is_multiple_of(2) {
            return Err(Broken("a client's streams have odd numbers").into());
        }
        if stream <= self.last {
            let why = match self.outlet.table.streams().contains_key(&stream) {
                true => Reset::InUse,
                false => Reset::Protocol,
            };
            return self.reply(frame::reset(stream, why)).await;
        }
        self.last = stream;
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
        let heeded = Arc::clone(&self.outlet.table.heeded[0]);
        let credit = Arc::new(Credit::new(self.window, heeded));
        if self.outlet.table.streams().len() >= STREAMS_MAX {
            return self.reply(frame::reset(stream, Reset::Refused)).await;
        }
        {
            let mut streams = self.outlet.table.streams();
            let pieces = (flags & FIN == 0).then_some(pieces);
            let credit = Arc::clone(&credit);
            // Our half of a stream that only the client may use is closed from the start.
            let closed = flags & UNIDIRECTIONAL != 0;
            streams.insert(stream, Entry { pieces, credit, closed });
        }
        self.outlet.control(Out::Reply { stream }).await?;
        let outlet = || self.outlet.clone();
        let receiver = Receiver { stream, pieces: waiting, outlet: outlet(), taken: 0 };
        let sender = Sender { stream, outlet: outlet(), credit, ended: false };
        // Nobody accepts any more: the stream is reset by being dropped.
        let _unwanted = self.opened.send(Accepted { stream, headers, receiver, sender }).await;
        Ok(())
    }

    /// In pieces, so that a frame of 16 MiB takes no more room than one.
    async fn data(&mut self, stream: u32, flags: u8, length: usize) -> io::Result<()> {
        let pieces = {
            let streams = self.outlet.table.streams();
            streams.get(&stream).and_then(|it| it.pieces.clone())
        };
        if pieces.is_none() {
            self.reply(frame::reset(stream, Reset::InvalidStream)).await?;
        }
        let mut left = length;
        while left > 0 {
            let mut piece = BytesMut::zeroed(left.min(PIECE));
            self.from.read_exact(&mut piece).await?;
            left -= piece.len();
            let size = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let taken = match &pieces {
                // Waits for the reader; meanwhile the whole connection does.
                Some(pieces) => pieces.send(piece.freeze()).await.is_ok(),
                None => false,
            };
            if !taken {
                // Nobody will read it, and so nobody will say that it was taken.
                self.outlet.taken(stream, size);
            }
        }
        self.half_closed(stream, flags);
        Ok(())
    }

    fn half_closed(&self, stream: u32, flags: u8) {
        if flags & FIN == 0 {
            return;
        }
        let mut streams = self.outlet.table.streams();
        if let Some(entry) = streams.get_mut(&stream) {
            entry.pieces = None;
            if entry.closed {
                streams.remove(&stream);
            }
        }
    }

    fn settings(&mut self, pairs: &[(u32, u32)]) {
        for (_, value) in pairs.iter().filter(|it| it.0 == INITIAL_WINDOW) {
            let window = i64::from(*value);
            let more = window - self.window;
            self.window = window;
            self.outlet.table.heeded[0].store(true, Ordering::Relaxed);
            self.outlet.table.streams().values().for_each(|it| it.credit.grow(more));
        }
    }

    fn window(&self, stream: u32, more: u32) -> io::Result<()> {
        if more == 0 {
            return Err(Broken("a window grows by nothing").into());
        }
        let which = usize::from(stream == 0);
        self.outlet.table.heeded[which].store(true, Ordering::Relaxed);
        match stream {
            0 => self.outlet.credit.grow(i64::from(more)),
            stream => {
                if let Some(entry) = self.outlet.table.streams().get(&stream) {
                    entry.credit.grow(i64::from(more));
                }
            }
        }
        Ok(())
    }
}

/// The writing side: control frames first, then data in the order in which it came.
async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut control: mpsc::Receiver<Out>,
    mut data: mpsc::Receiver<Out>,
    table: &Table,
) -> io::Result<()> {
    let mut packer = Packer::new();
    let mut bytes = Vec::with_capacity(WRITE + PIECE);
    let mut open = [true; 2];
    // Ours have even numbers.
    let mut number = 0u32;
    while open != [false; 2] {
        let first = tokio::select! {
            biased;
            out = control.recv(), if open[0] => {
                open[0] = out.is_some();
                out
            }
            () = table.owing.notified() => None,
            out = data.recv(), if open[1] => {
                open[1] = out.is_some();
                out
            }
            () = stdx::sleep(QUIET_MAX) => {
                number = number.wrapping_add(2) & 0x7fff_ffff;
                Some(Out::Frame(frame::ping(number)))
            }
        };
        if let Some(first) = first {
            put(&mut bytes, first, &mut packer)?;
        }
        for (stream, Owed { more, reset }) in std::mem::take(&mut *table.owed()) {
            if reset {
                bytes.extend_from_slice(&frame::reset(stream, Reset::Cancel));
            } else if more > 0 {
                bytes.extend_from_slice(&frame::window_update(stream, more));
            }
        }
        while bytes.len() < WRITE {
            let Ok(out) = control.try_recv().or_else(|_| data.try_recv()) else { break };
            put(&mut bytes, out, &mut packer)?;
        }
        to.write_all(&bytes).await?;
        to.flush().await?;
        bytes.clear();
        table.active.store(true, Ordering::Relaxed);
    }
    to.shutdown().await
}

fn put(bytes: &mut Vec<u8>, out: Out, packer: &mut Packer) -> Result<(), Broken> {
    match out {
        Out::Frame(frame) => bytes.extend_from_slice(&frame),
        Out::Reply { stream } => {
            bytes.extend_from_slice(&frame::syn_reply(stream, &packer.write(&Headers::default())?));
        }
        Out::Data { stream, data, fin } => {
            let flags = if fin { FIN } else { 0 };
            bytes.extend_from_slice(&frame::data_head(stream, flags, data.len()));
            bytes.extend_from_slice(&data);
        }
    }
    Ok(())
}
