//! A stream into parts. Only after the last one is it known that all were right.

use super::{
    BackupError, MAGIC, PART_BYTES_MAX, VERSION,
    digest::{LENGTH, Summed},
    part::{self, END, HEAD, Head, Part},
};
use std::io::{self, BufReader, Read};

pub struct Reader<R: Read> {
    input: zstd::Decoder<'static, Summed<BufReader<R>>>,
    head: Head,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads as far as the head.
    pub fn open(input: R) -> Result<Reader<R>, BackupError> {
        let mut input = Summed::new(BufReader::new(input));
        let mut begin = [0; MAGIC.len() + 4];
        match input.read_exact(&mut begin) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(BackupError::Foreign);
            }
            other => other.map_err(|source| BackupError::Io { attempted: "read it", source })?,
        }
        let (magic, version) = begin.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(BackupError::Foreign);
        }
        let found = u32::from_le_bytes(version.try_into().expect("four bytes"));
        if found > VERSION {
            return Err(BackupError::Newer { found, known: VERSION });
        }
        // One frame and nothing behind it: what follows is looked at by hand.
        let input = zstd::Decoder::with_buffer(input)
            .map_err(|source| BackupError::Io { attempted: "decompress it", source })?
            .single_frame();
        let program = String::new();
        let head = Head { revision: crate::Revision::ZERO, made: stdx::Timestamp(0), program };
        let mut reader = Reader { input, head, ended: false };
        let (tag, payload) = reader.raw()?;
        reader.head = Some(tag)
            .filter(|tag| *tag == HEAD)
            .and_then(|_| part::head(&payload))
            .ok_or_else(|| BackupError::damaged("it does not begin with its head"))?;
        Ok(reader)
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next part; `None` once the end is reached and the checksum holds.
    #[allow(clippy::should_implement_trait, reason = "an iterator would go on after an error")]
    pub fn next(&mut self) -> Result<Option<Part>, BackupError> {
        if self.ended {
            return Ok(None);
        }
        let (tag, payload) = self.raw()?;
        if tag != END {
            return part::part(tag, &payload).map(Some);
        }
        // The stream ends here: it is read until it says so itself.
        if self.input.read(&mut [0]).map_err(broken)? > 0 {
            return Err(BackupError::damaged("something follows its end"));
        }
        let sum = self.input.get_ref().so_far();
        let mut end = Vec::new();
        self.input.get_mut().rest(&mut end).map_err(broken)?;
        match end.len() {
            0..LENGTH => return Err(BackupError::damaged("it was cut short")),
            LENGTH if end == sum => {}
            LENGTH => return Err(BackupError::damaged("it fails its checksum")),
            _ => return Err(BackupError::damaged("something follows its end")),
        }
        self.ended = true;
        Ok(None)
    }

    fn raw(&mut self) -> Result<(u8, Vec<u8>), BackupError> {
        let mut begin = [0; 5];
        self.input.read_exact(&mut begin).map_err(broken)?;
        let length = u32::from_le_bytes(begin[1..].try_into().expect("four bytes")) as usize;
        if length > PART_BYTES_MAX {
            return Err(BackupError::damaged(format!("a part of {length} bytes")));
        }
        let mut payload = vec![0; length];
        self.input.read_exact(&mut payload).map_err(broken)?;
        Ok((begin[0], payload))
    }
}

/// zstd says what is wrong with its stream as an IO error.
fn broken(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::damaged("it was cut short"),
        _ => BackupError::damaged(error.to_string()),
    }
}
