//! Bounds what the tar reader keeps in memory: the names and attributes before an entry.
//!
//! It reads them as a whole, however long the archive says they are.

use std::{
    cell::Cell,
    io::{self, Read, Seek, SeekFrom},
    rc::Rc,
};

/// Between two entries: long names, attributes, padding. The kernel takes names up to 4 KiB and
/// attributes up to 64 KiB each.
const HEAD_BYTES_MAX: u64 = 8 << 20;

/// How much may be read before the next entry is there.
#[derive(Clone, Debug)]
pub(super) struct Budget(Rc<Cell<u64>>);

impl Budget {
    pub(super) fn new() -> Budget {
        Budget(Rc::new(Cell::new(u64::MAX)))
    }

    /// Runs `next`, which looks for an entry, within the budget.
    pub(super) fn spend<T>(&self, next: impl FnOnce() -> T) -> T {
        self.0.set(HEAD_BYTES_MAX);
        let found = next();
        self.0.set(u64::MAX);
        found
    }
}

/// A reader that keeps to a budget.
pub(super) struct Guarded<R> {
    inner: R,
    budget: Budget,
}

impl<R> Guarded<R> {
    pub(super) fn new(inner: R, budget: &Budget) -> Guarded<R> {
        Guarded { inner, budget: budget.clone() }
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.budget.0.get();
        if left != u64::MAX {
            let left = left.checked_sub(read as u64).ok_or_else(|| {
                let text = format!("more than {HEAD_BYTES_MAX} bytes between two entries");
                io::Error::new(io::ErrorKind::FileTooLarge, text)
            })?;
            self.budget.0.set(left);
        }
        Ok(read)
    }
}

impl<R: Seek> Seek for Guarded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
