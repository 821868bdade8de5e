//! Every byte of a file, summed up as it passes.

use sha2::{Digest, Sha256};
use std::io::{self, BufRead, Read, Write};

/// Bytes of the sum at the file's end.
pub(super) const LENGTH: usize = 32;

/// Sums up what is written through it, or taken from it.
pub(super) struct Summed<T> {
    inner: T,
    sum: Sha256,
}

impl<T> Summed<T> {
    pub(super) fn new(inner: T) -> Summed<T> {
        Summed { inner, sum: Sha256::new() }
    }

    pub(super) fn so_far(&self) -> [u8; LENGTH] {
        self.sum.clone().finalize().into()
    }
}

impl<W: Write> Summed<W> {
    /// The sum goes last, and is not part of itself.
    pub(super) fn end(mut self) -> io::Result<()> {
        let sum = self.so_far();
        self.inner.write_all(&sum)?;
        self.inner.flush()
    }
}

impl<R: BufRead> Summed<R> {
    /// What follows, without taking it into the sum.
    pub(super) fn rest(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        Read::by_ref(&mut self.inner).take(LENGTH as u64 + 1).read_to_end(bytes)
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: BufRead> Read for Summed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.sum.update(&bytes[..read]);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Summed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Ok(bytes) = self.inner.fill_buf() {
            self.sum.update(&bytes[..count]);
        }
        self.inner.consume(count);
    }
}
