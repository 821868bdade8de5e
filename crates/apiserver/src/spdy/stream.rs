//! One stream: what comes in by it, and the way out.
//!
//! Windows: Go's SPDY has none; it neither tells what it has taken nor heeds what it is told. So a peer's windows are
//! heeded from the moment on that it names one, and everything is bounded by queues too: a reader who does not read
//! fills its stream's, then the connection's.

use super::{
    frame::{self, Reset},
    session::{Out, Outlet},
};
use bytes::Bytes;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::{Notify, mpsc};

/// What may be sent before a peer says more, unless it says otherwise.
pub(super) const WINDOW: i64 = 64 * 1024;

/// Data goes in frames of this size, so that streams take turns.
const PIECE: usize = 32 * 1024;

/// The peer is told that it may send more when this much was taken.
const TAKEN_MIN: u32 = 32 * 1024;

/// The stream was reset, or the connection is gone: what is sent now goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// How much may still be sent.
#[derive(Debug)]
pub(super) struct Credit {
    state: Mutex<State>,
    changed: Notify,
    heeded: Arc<AtomicBool>,
}

#[derive(Debug)]
struct State {
    window: i64,
    gone: bool,
}

impl Credit {
    pub(super) fn new(window: i64, heeded: Arc<AtomicBool>) -> Credit {
        let state = Mutex::new(State { window, gone: false });
        Credit { state, changed: Notify::new(), heeded }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn grow(&self, more: i64) {
        self.state().window += more;
        self.changed.notify_waiters();
    }

    pub(super) fn close(&self) {
        self.state().gone = true;
        self.changed.notify_waiters();
    }

    fn is_gone(&self) -> bool {
        self.state().gone
    }

    /// Waits until something may be sent: at most `wanted`.
    async fn take(&self, wanted: usize) -> Result<usize, Gone> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if state.gone {
                    return Err(Gone);
                }
                let allowed = match self.heeded.load(Ordering::Relaxed) {
                    true => usize::try_from(state.window).unwrap_or(0).min(wanted),
                    false => wanted,
                };
                if allowed > 0 {
                    // A piece is far below what i64 holds.
                    state.window -= i64::try_from(allowed).unwrap_or(0);
                    return Ok(allowed);
                }
            }
            changed.await;
        }
    }
}

/// What the peer sends on one stream.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(super) stream: u32,
    pub(super) pieces: mpsc::Receiver<Bytes>,
    pub(super) outlet: Outlet,
    pub(super) taken: u32,
}

impl Receiver {
    /// The next bytes; `None` when the peer has closed its half, reset the stream or left.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.recv().await?;
        self.taken = self.taken.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        if self.taken >= TAKEN_MIN {
            self.outlet.taken(self.stream, self.taken);
            self.taken = 0;
        }
        Some(piece)
    }
}

/// The way out by one stream. Dropped before [`Sender::finish`], it resets the stream.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(super) stream: u32,
    pub(super) outlet: Outlet,
    pub(super) credit: Arc<Credit>,
    pub(super) ended: bool,
}

impl Sender {
    /// Waits for room in the peer's windows and on the connection.
    pub(crate) async fn send(&self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let wanted = self.credit.take(data.len().min(PIECE)).await?;
            let allowed = self.outlet.credit.take(wanted).await?;
            // What the connection does not allow now, the stream keeps.
            self.credit.grow(i64::try_from(wanted - allowed).unwrap_or(0));
            let data = data.split_to(allowed);
            self.outlet.send(Out::Data { stream: self.stream, data, fin: false }).await?;
        }
        Ok(())
    }

    /// Closes our half: the peer reads the end.
    pub(crate) async fn finish(mut self) {
        self.ended = true;
        if !self.credit.is_gone() {
            let last = Out::Data { stream: self.stream, data: Bytes::new(), fin: true };
            // A peer that is gone needs no end.
            let _gone = self.outlet.send(last).await;
        }
    }

    /// Ends both halves, after what was sent.
    pub(crate) async fn reset(mut self) {
        self.ended = true;
        if !self.credit.is_gone() {
            let reset = Out::Frame(frame::reset(self.stream, Reset::Cancel));
            let _gone = self.outlet.send(reset).await;
        }
        self.outlet.forget(self.stream);
    }

    /// Resolves when nothing that is sent would arrive any more.
    pub(crate) async fn gone(&self) {
        loop {
            let changed = self.credit.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.credit.is_gone() {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.ended && !self.credit.is_gone() {
            self.outlet.give_up(self.stream);
        }
        self.outlet.closed(self.stream);
    }
}
