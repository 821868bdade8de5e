//! Header blocks: names and values with lengths before them, in one compressed stream per direction.
//!
//! Upstream: SPDY Protocol, Draft 3.1, section 2.6.10.

use super::{dictionary, frame::Broken};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// A few short names and numbers are all that anyone sends here.
const BLOCK_BYTES_MAX: usize = 16 * 1024;

/// Lower-case names and their values, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Headers {
    /// Empty when it is not there; the first when there are several.
    pub(crate) fn one(&self, name: &str) -> &str {
        let found = self.0.iter().find(|it| it.0.eq_ignore_ascii_case(name));
        found.map_or("", |it| it.1.split('\0').next().unwrap_or_default())
    }
}

/// Reads the blocks of one direction, all of them: each depends on those before it.
pub(super) struct Unpacker(Decompress);

impl Unpacker {
    pub(super) fn new() -> Unpacker {
        Unpacker(Decompress::new(true))
    }

    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, Broken> {
        let broken = |_| Broken("a header block cannot be decompressed");
        let mut out = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            let (read, wrote) = (self.0.total_in(), self.0.total_out());
            let status = self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync);
            rest = &rest[usize::try_from(self.0.total_in() - read).unwrap_or(rest.len())..];
            match status {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary::bytes()).map_err(broken)?;
                    continue;
                }
                Err(error) => return Err(broken(error)),
            }
            let moved = self.0.total_in() > read || self.0.total_out() > wrote;
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
            if !moved && out.len() < out.capacity() {
                return Err(Broken("a header block has an end in the middle"));
            }
            if out.len() > BLOCK_BYTES_MAX {
                return Err(Broken("a header block is too large"));
            }
            if out.len() == out.capacity() {
                out.reserve(out.len());
            }
        }
        parse(&out)
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, Broken> {
    let short = Broken("a header block is shorter than it says");
    let count = number(&mut block).ok_or(short)?;
    let mut headers = Headers::default();
    for _ in 0..count {
        let name = text(&mut block).ok_or(short)?;
        let value = text(&mut block).ok_or(short)?;
        headers.0.push((name.to_lowercase(), value));
    }
    Ok(headers)
}

fn number(block: &mut &[u8]) -> Option<usize> {
    let (four, rest) = block.split_first_chunk::<4>()?;
    *block = rest;
    usize::try_from(u32::from_be_bytes(*four)).ok()
}

fn text(block: &mut &[u8]) -> Option<String> {
    let length = number(block)?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Writes the blocks of one direction.
pub(super) struct Packer(Option<Compress>);

impl Packer {
    pub(super) fn new() -> Packer {
        let mut packer = Compress::new(Compression::best(), true);
        // Fails only for a stream that has begun.
        let known = packer.set_dictionary(&dictionary::bytes());
        Packer(known.is_ok().then_some(packer))
    }

    pub(super) fn write(&mut self, headers: &Headers) -> Result<Vec<u8>, Broken> {
        let broken = Broken("a header block cannot be compressed");
        let packer = self.0.as_mut().ok_or(broken)?;
        let mut block = Vec::new();
        let mut put = |bytes: &[u8]| block.extend_from_slice(bytes);
        let length = |it: usize| u32::try_from(it).unwrap_or_default().to_be_bytes();
        put(&length(headers.0.len()));
        for (name, value) in &headers.0 {
            put(&length(name.len()));
            put(name.as_bytes());
            put(&length(value.len()));
            put(value.as_bytes());
        }
        let mut out = Vec::with_capacity(block.len() + 64);
        let mut rest = block.as_slice();
        loop {
            let read = packer.total_in();
            packer.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(|_| broken)?;
            rest = &rest[usize::try_from(packer.total_in() - read).unwrap_or(rest.len())..];
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|it| (it.0.to_owned(), it.1.to_owned())).collect())
    }

    #[test]
    fn blocks_come_back_as_they_were_written_one_after_the_other() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        let long = "x".repeat(9000);
        for it in [
            headers(&[("streamtype", "error"), ("port", "80"), ("requestid", "0")]),
            headers(&[]),
            headers(&[("streamtype", "data"), ("port", "80"), ("long", &long)]),
        ] {
            let block = packer.write(&it).unwrap();
            assert_eq!(unpacker.read(&block).unwrap(), it);
        }
    }

    #[test]
    fn a_block_that_grows_without_end_is_refused() {
        let block = Packer::new().write(&headers(&[("a", &"x".repeat(1 << 20))])).unwrap();
        assert!(block.len() < 4096, "{}", block.len());
        assert_eq!(Unpacker::new().read(&block), Err(Broken("a header block is too large")));
    }

    #[test]
    fn a_block_that_lies_about_its_lengths_is_refused() {
        for block in [&[0, 0, 0, 1, 0, 0, 0, 9, b'a'][..], &[0, 0], &[255; 8]] {
            assert!(parse(block).is_err(), "{block:?}");
        }
        assert!(Unpacker::new().read(b"no zlib at all").is_err());
    }
}
