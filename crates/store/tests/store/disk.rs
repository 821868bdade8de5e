//! A disk that loses power: what was written and not synced is dropped or torn, sector by sector,
//! as the seed decides.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};
use store::backend::Medium;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// xorshift64*: small, seeded, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % limit
    }
}

/// Several media that lose power together.
#[derive(Debug)]
pub(crate) struct Disk {
    files: Vec<Contents>,
    /// Writes, resizes and syncs until the power goes.
    remaining: u64,
    /// Bytes read so far, for each file.
    pub(crate) read: Vec<u64>,
    pub(crate) available: u64,
    /// Syncs that fail from now on, and lose what they were to keep; the next ones say that all is well.
    pub(crate) failing_syncs: u64,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Byte ranges written since the last sync.
    unsynced: Vec<(usize, usize)>,
}

#[derive(Clone, Debug)]
pub(crate) struct DiskFile {
    disk: Arc<Mutex<Disk>>,
    index: usize,
    path: PathBuf,
}

impl Disk {
    pub(crate) fn new(files: usize) -> Arc<Mutex<Disk>> {
        Disk::holding(vec![Vec::new(); files])
    }

    pub(crate) fn holding(files: Vec<Vec<u8>>) -> Arc<Mutex<Disk>> {
        let contents =
            |bytes: Vec<u8>| Contents { durable: bytes.clone(), current: bytes, unsynced: vec![] };
        let files: Vec<Contents> = files.into_iter().map(contents).collect();
        let read = vec![0; files.len()];
        Arc::new(Mutex::new(Disk {
            files,
            remaining: u64::MAX,
            read,
            available: 1 << 40,
            failing_syncs: 0,
        }))
    }

    pub(crate) fn cut_after(&mut self, operations: u64) {
        self.remaining = operations;
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.remaining == 0
    }

    /// What the files hold now, whether durable or not.
    pub(crate) fn current(&self) -> Vec<Vec<u8>> {
        self.files.iter().map(|file| file.current.clone()).collect()
    }

    /// What is found when the power is back.
    pub(crate) fn survives(&self, chance: &mut Chance) -> Vec<Vec<u8>> {
        self.files.iter().map(|file| file.survives(chance)).collect()
    }

    fn operate(&mut self) -> io::Result<()> {
        if self.remaining == 0 {
            return Err(io::Error::other("the power is off"));
        }
        self.remaining -= 1;
        Ok(())
    }
}

impl Contents {
    fn survives(&self, chance: &mut Chance) -> Vec<u8> {
        let mut found = self.durable.clone();
        if found.len() != self.current.len() && chance.below(2) == 0 {
            found.resize(self.current.len(), 0);
        }
        // Some cuts lose nearly all, some nearly nothing.
        let (luck, of) = (chance.below(5), 4);
        for (from, to) in &self.unsynced {
            let mut sector = from / SECTOR * SECTOR;
            while sector < *to {
                let (start, end) = (sector.max(*from), (sector + SECTOR).min(*to));
                if chance.below(of) < luck && end <= self.current.len() {
                    if found.len() < end {
                        found.resize(end, 0);
                    }
                    found[start..end].copy_from_slice(&self.current[start..end]);
                }
                sector += SECTOR;
            }
        }
        found
    }
}

impl DiskFile {
    pub(crate) fn of(disk: &Arc<Mutex<Disk>>, index: usize, name: &str) -> Arc<DiskFile> {
        Arc::new(DiskFile { disk: Arc::clone(disk), index, path: PathBuf::from(name) })
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }
}

impl Medium for DiskFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk().files[self.index].current.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.read[self.index] += out.len() as u64;
        let offset = offset as usize;
        let bytes = disk.files[self.index].current.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        // The write that the power cut interrupts may reach the disk too.
        let done = disk.operate();
        let file = &mut disk.files[self.index];
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        if file.current.len() < to {
            file.current.resize(to, 0);
        }
        if done.is_ok() {
            file.current[from..to].copy_from_slice(bytes);
            file.unsynced.push((from, to));
        }
        done
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        let file = &mut disk.files[self.index];
        let before = file.current.len();
        file.current.resize(length as usize, 0);
        if before < file.current.len() {
            // Also where the file was cut off before: zeros are found there, not what was.
            file.unsynced.push((before, length as usize));
        }
        file.unsynced.retain(|(from, _)| *from < length as usize);
        for (_, to) in &mut file.unsynced {
            *to = (*to).min(length as usize);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operate()?;
        if disk.failing_syncs > 0 {
            disk.failing_syncs -= 1;
            // As Linux does: the pages count as clean, and what was in them is gone from memory's view of the disk.
            disk.files[self.index].unsynced.clear();
            return Err(io::Error::other("input/output error"));
        }
        let Contents { durable, current, unsynced } = &mut disk.files[self.index];
        durable.resize(current.len(), 0);
        for (from, to) in unsynced.drain(..) {
            durable[from..to].copy_from_slice(&current[from..to]);
        }
        Ok(())
    }

    fn available(&self) -> io::Result<u64> {
        Ok(self.disk().available)
    }

    fn occupied(&self) -> io::Result<u64> {
        self.len()
    }
}
