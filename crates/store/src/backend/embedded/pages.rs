//! redb's pages on a medium, each with a checksum that is verified on every read, since redb
//! itself verifies only in a full repair.
//!
//! Block 0 names the format. Then groups: one block of checksums, and the 1024 pages they are of.
//! A torn block of checksums is harmless: redb never writes over a page that its last durable
//! commit reaches, so for those pages the old and the new bytes of the block are the same.

use super::{header, medium::Medium};
use crate::StoreError;
use flate2::Crc;
use redb::{BackendError, StorageBackend};
use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    io,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

const PAGE: u64 = 4096;
/// One block of 4-byte checksums.
const GROUP: u64 = PAGE / 4;

/// Set in block 0 while redb moves pages together: its commits then are not those of a checkpoint,
/// and after a crash in between redb verifies every page by its own checksums.
const MOVING_OFFSET: u64 = 512;

#[derive(Clone, Debug)]
pub(super) struct Pages(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    medium: Arc<dyn Medium>,
    sums: Mutex<Sums>,
    syncs: AtomicU64,
    /// A page that fails its checksum is an error. Otherwise redb finds out by its own, which it
    /// verifies on all pages that it goes on with, and the page gets a checksum of what it holds.
    strict: AtomicBool,
    /// The first damage that was found; redb only remembers that there was some.
    damage: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Sums {
    groups: HashMap<u64, Box<[u32]>>,
    dirty: BTreeSet<u64>,
}

fn sums_at(group: u64) -> u64 {
    PAGE + group * (GROUP + 1) * PAGE
}

fn page_at(page: u64) -> u64 {
    sums_at(page / GROUP) + PAGE + page % GROUP * PAGE
}

/// Mixes in the number, so that a page in another's place is damage too. Never 0, which means
/// that the page was never written.
fn sum(page: u64, bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(&page.to_le_bytes());
    crc.update(bytes);
    crc.sum().max(1)
}

impl Pages {
    /// Takes over an empty medium.
    pub(super) fn create(medium: Arc<dyn Medium>, id: u64) -> Result<Pages, StoreError> {
        let attempt = |error| StoreError::io(format!("create {}", medium.path().display()), error);
        medium.set_len(PAGE).map_err(attempt)?;
        medium.write_at(0, &header::write(header::PAGES, id)).map_err(attempt)?;
        Ok(Pages::on(medium))
    }

    /// Also answers the ledger's id.
    pub(super) fn open(medium: Arc<dyn Medium>) -> Result<(Pages, u64), StoreError> {
        let id = header::read(&*medium, header::PAGES)?;
        Ok((Pages::on(medium), id))
    }

    fn on(medium: Arc<dyn Medium>) -> Pages {
        Pages(Arc::new(Shared {
            medium,
            sums: Mutex::default(),
            syncs: AtomicU64::new(0),
            strict: AtomicBool::new(true),
            damage: Mutex::default(),
        }))
    }

    pub(super) fn medium(&self) -> &Arc<dyn Medium> {
        &self.0.medium
    }

    pub(super) fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::Relaxed)
    }

    pub(super) fn set_strict(&self, strict: bool) {
        self.0.strict.store(strict, Ordering::Relaxed);
    }

    pub(super) fn damage(&self) -> Option<String> {
        self.0.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a crash fell into the moving of pages.
    pub(super) fn moving(&self) -> io::Result<bool> {
        let mut flag = [0];
        self.0.medium.read_at(MOVING_OFFSET, &mut flag)?;
        Ok(flag[0] != 0)
    }

    pub(super) fn set_moving(&self, moving: bool) -> io::Result<()> {
        self.0.medium.write_at(MOVING_OFFSET, &[u8::from(moving)])?;
        self.0.sync()
    }
}

impl Shared {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync(&self) -> io::Result<()> {
        {
            let mut sums = self.sums();
            for group in std::mem::take(&mut sums.dirty) {
                let block: Vec<u8> =
                    sums.groups[&group].iter().flat_map(|s| s.to_le_bytes()).collect();
                let written = self.medium.write_at(sums_at(group), &block);
                if written.is_err() {
                    sums.dirty.insert(group);
                }
                written?;
            }
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.medium.sync()
    }

    fn pages(&self) -> io::Result<u64> {
        let blocks = self.medium.len()? / PAGE - 1;
        Ok(blocks / (GROUP + 1) * GROUP + (blocks % (GROUP + 1)).saturating_sub(1))
    }

    fn verify(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        let start = (first % GROUP) as usize;
        let count = bytes.len() / PAGE as usize;
        let expected =
            self.sums().group(&*self.medium, first / GROUP)?[start..start + count].to_vec();
        for ((page, bytes), expected) in (first..).zip(bytes.chunks(PAGE as usize)).zip(expected) {
            let sound = if expected == 0 {
                bytes.iter().all(|byte| *byte == 0)
            } else {
                expected == sum(page, bytes)
            };
            if sound {
                continue;
            }
            if !self.strict.load(Ordering::Relaxed) {
                // The page may have reached the disk where its checksum has not.
                let mut sums = self.sums();
                sums.group(&*self.medium, page / GROUP)?[(page % GROUP) as usize] =
                    sum(page, bytes);
                sums.dirty.insert(page / GROUP);
                continue;
            }
            let detail = format!("page at byte {} fails its checksum", page_at(page));
            let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
            damage.get_or_insert(detail.clone());
            return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        }
        Ok(())
    }
}

impl Sums {
    fn group(&mut self, medium: &dyn Medium, group: u64) -> io::Result<&mut [u32]> {
        Ok(match self.groups.entry(group) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unread) => {
                let mut block = [0; PAGE as usize];
                if sums_at(group) + PAGE <= medium.len()? {
                    medium.read_at(sums_at(group), &mut block)?;
                }
                let sums = block.chunks_exact(4);
                let sums = sums.map(|s| u32::from_le_bytes(s.try_into().expect("four bytes")));
                unread.insert(sums.collect())
            }
        })
    }
}

/// Runs of pages that lie side by side on the medium: `(first page, bytes of the request)`.
fn runs(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let end = offset + length as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let group_end = (at / (GROUP * PAGE) + 1) * GROUP * PAGE;
            let stop = end.min(group_end);
            let run = (at / PAGE, (at - offset) as usize..(stop - offset) as usize);
            at = stop;
            run
        })
    })
}

/// redb's own header is page 0. It is written in place and in part, and has its own checksums.
fn is_header(offset: u64, length: usize) -> bool {
    offset + length as u64 <= PAGE
}

fn whole_pages(offset: u64, length: usize) -> io::Result<()> {
    if offset.is_multiple_of(PAGE) && (length as u64).is_multiple_of(PAGE) && offset > 0 {
        return Ok(());
    }
    let detail = format!("{length} bytes at {offset} are not whole pages");
    Err(io::Error::new(io::ErrorKind::InvalidInput, detail))
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.pages()? * PAGE)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if is_header(offset, out.len()) {
            return self.0.medium.read_at(page_at(0) + offset, out);
        }
        whole_pages(offset, out.len())?;
        for (page, part) in runs(offset, out.len()) {
            let out = &mut out[part];
            self.0.medium.read_at(page_at(page), out)?;
            self.0.verify(page, out)?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let pages = len.div_ceil(PAGE);
        let before = self.0.pages()?;
        let mut sums = self.0.sums();
        if pages < before {
            // What is cut off was never written, should the file grow again.
            let group = pages / GROUP;
            sums.groups.retain(|kept, _| *kept <= group);
            sums.dirty.retain(|kept| *kept <= group);
            sums.group(&*self.0.medium, group)?[(pages % GROUP) as usize..].fill(0);
            sums.dirty.insert(group);
        }
        let length = if pages == 0 { PAGE } else { page_at(pages - 1) + PAGE };
        // The block of checksums of the last, now empty, group stays.
        let length = length.max(sums.dirty.last().map_or(0, |group| sums_at(*group) + PAGE));
        self.0.medium.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if is_header(offset, data.len()) {
            return self.0.medium.write_at(page_at(0) + offset, data);
        }
        whole_pages(offset, data.len())?;
        for (first, part) in runs(offset, data.len()) {
            let data = &data[part];
            self.0.medium.write_at(page_at(first), data)?;
            let mut sums = self.0.sums();
            let group = first / GROUP;
            let entries = sums.group(&*self.0.medium, group)?;
            for (page, bytes) in (first..).zip(data.chunks(PAGE as usize)) {
                entries[(page % GROUP) as usize] = sum(page, bytes);
            }
            sums.dirty.insert(group);
        }
        Ok(())
    }

    // The directory's lock keeps other processes out.
    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
