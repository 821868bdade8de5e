//! The write-ahead log: what was acknowledged since the last checkpoint of the pages.
//!
//! One preallocated file that is written over from the start after each checkpoint. A group of
//! commits is one frame, and a frame is begun only after the one before it is durable: so a frame
//! that fails its checksum was never acknowledged, unless a sound one follows it.

use super::{
    codec::Reader,
    header::{self, BLOCK},
    medium::Medium,
};
use crate::StoreError;
use flate2::Crc;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// How much may pile up between checkpoints: replayed in well under the 0.1 s of a start, and few
/// enough checkpoints (one in some 10,000 small puts) that they do not show in the rate.
const CAPACITY: u64 = 4 << 20;

/// What the log's file takes, always.
pub(super) const FILE_BYTES: u64 = BLOCK as u64 + CAPACITY;

/// Frames begin at multiples of this, so that a sound frame behind a damaged one is found.
const ALIGN: u64 = 64;

const MAGIC: u32 = 0x676f_6c73;
const HEAD: usize = 40;

pub(super) struct Log {
    medium: Arc<dyn Medium>,
    id: u64,
    generation: u64,
    sequence: u64,
    position: u64,
    syncs: Arc<AtomicU64>,
}

impl Log {
    /// Takes over an empty medium, for the first generation. Writes zeros, not holes: a sync that allocates blocks costs
    /// the filesystem's journal too.
    pub(super) fn create(medium: Arc<dyn Medium>, id: u64) -> Result<(), StoreError> {
        let attempt = |error| StoreError::io(format!("create {}", medium.path().display()), error);
        medium.write_at(0, &header::write(header::LOG, id)).map_err(attempt)?;
        medium.write_at(BLOCK as u64, &vec![0; CAPACITY as usize]).map_err(attempt)?;
        let mut log = Log::at_start(Arc::clone(&medium), id, 1);
        log.append(&[]).map_err(attempt)
    }

    fn at_start(medium: Arc<dyn Medium>, id: u64, generation: u64) -> Log {
        Log { medium, id, generation, sequence: 0, position: 0, syncs: Arc::default() }
    }

    /// Reads what was acknowledged since the checkpoint that began `generation`.
    pub(super) fn open(
        medium: Arc<dyn Medium>,
        id: u64,
        generation: u64,
    ) -> Result<(Log, Vec<Vec<u8>>), StoreError> {
        let path = medium.path().to_owned();
        let corrupt = |detail: String| StoreError::Corrupt { path: path.clone(), detail };
        let attempt = |error| StoreError::io(format!("read {}", path.display()), error);
        if header::read(&*medium, header::LOG)? != id {
            return Err(corrupt("it is the log of another ledger".into()));
        }
        let length = medium.len().map_err(attempt)?;
        if length != FILE_BYTES {
            return Err(corrupt(format!(
                "it has {length} bytes, {} were written",
                BLOCK as u64 + CAPACITY
            )));
        }
        let mut bytes = vec![0; CAPACITY as usize];
        medium.read_at(BLOCK as u64, &mut bytes).map_err(attempt)?;

        let mut log = Log::at_start(medium, id, generation);
        let mut payloads = Vec::new();
        while let Some(frame) = log.frame(&bytes, log.position) {
            if frame.generation > generation {
                let detail = "the pages are older than the log: a checkpoint is missing";
                return Err(corrupt(detail.into()));
            }
            if frame.generation < generation || frame.sequence != log.sequence {
                break;
            }
            payloads.push(frame.payload.to_vec());
            log.advance(frame.payload.len());
        }
        let rest = (log.position..CAPACITY).step_by(ALIGN as usize);
        for frame in rest.filter_map(|at| log.frame(&bytes, at)) {
            if frame.generation >= generation {
                let detail = format!(
                    "acknowledged writes at byte {} fail their checksum",
                    BLOCK as u64 + log.position
                );
                return Err(corrupt(detail));
            }
        }
        Ok((log, payloads))
    }

    pub(super) fn syncs(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.syncs)
    }

    pub(super) fn fits(&self, payload: usize) -> bool {
        self.position + framed(payload) <= CAPACITY
    }

    /// Whether nothing was appended since the last checkpoint.
    pub(super) fn is_fresh(&self) -> bool {
        self.sequence <= 1
    }

    /// Returns once the payload survives a power cut.
    pub(super) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        self.write(payload)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.medium.sync()
    }

    /// Starts over, once the pages hold everything. The empty first frame proves that pages of an
    /// older generation are not the newest. It is durable before the next one is begun, as all.
    pub(super) fn restart(&mut self, generation: u64) -> io::Result<()> {
        assert!(generation > self.generation, "checkpoints only go forward");
        (self.generation, self.sequence, self.position) = (generation, 0, 0);
        self.append(&[])
    }

    fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        assert!(self.fits(payload.len()), "the caller asks first");
        let mut frame = Vec::with_capacity(framed(payload.len()) as usize);
        frame.extend(MAGIC.to_le_bytes());
        frame.extend([0; 4]);
        frame.extend((payload.len() as u64).to_le_bytes());
        frame.extend(self.generation.to_le_bytes());
        frame.extend(self.sequence.to_le_bytes());
        frame.extend(self.id.to_le_bytes());
        frame.extend(payload);
        let sum = checksum(&frame[8..]);
        frame[4..8].copy_from_slice(&sum.to_le_bytes());
        self.medium.write_at(BLOCK as u64 + self.position, &frame)?;
        self.advance(payload.len());
        Ok(())
    }

    fn advance(&mut self, payload: usize) {
        self.position += framed(payload);
        self.sequence += 1;
    }

    fn frame<'a>(&self, bytes: &'a [u8], at: u64) -> Option<Frame<'a>> {
        let bytes = bytes.get(at as usize..)?;
        let mut reader = Reader(bytes);
        if reader.u32()? != MAGIC {
            return None;
        }
        let sum = reader.u32()?;
        let length = usize::try_from(reader.u64()?).ok()?;
        let generation = reader.u64()?;
        let sequence = reader.u64()?;
        let id = reader.u64()?;
        let payload = reader.take(length)?;
        let sound = id == self.id && sum == checksum(&bytes[8..HEAD + length]);
        sound.then_some(Frame { generation, sequence, payload })
    }
}

struct Frame<'a> {
    generation: u64,
    sequence: u64,
    payload: &'a [u8],
}

fn framed(payload: usize) -> u64 {
    ((HEAD + payload) as u64).next_multiple_of(ALIGN)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}
