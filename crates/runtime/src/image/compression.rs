//! Sees by the first bytes how a stream is compressed, and undoes it.

use std::io::{self, BufRead, BufReader, Read};

/// zstd windows up to this are accepted: 128 MiB, what the zstd program takes without a flag.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The plain bytes of `reader`, whether it is gzip, zstd or plain already.
pub(super) enum Plain<R: Read> {
    As(BufReader<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<R>>>),
}

impl<R: Read> Plain<R> {
    pub(super) fn new(reader: R) -> io::Result<Plain<R>> {
        let mut reader = BufReader::with_capacity(256 * 1024, reader);
        let start = reader.fill_buf()?;
        if start.starts_with(&GZIP) {
            Ok(Plain::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(reader))))
        } else if start.starts_with(&ZSTD) {
            let mut decoder = zstd::Decoder::with_buffer(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Ok(Plain::Zstd(Box::new(decoder)))
        } else {
            Ok(Plain::As(reader))
        }
    }

    pub(super) fn is_compressed(&self) -> bool {
        !matches!(self, Plain::As(_))
    }

    pub(super) fn into_inner(self) -> R {
        match self {
            Plain::As(reader) => reader.into_inner(),
            Plain::Gzip(decoder) => decoder.into_inner().into_inner(),
            Plain::Zstd(decoder) => decoder.finish().into_inner(),
        }
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Plain::As(reader) => reader.read(buffer),
            Plain::Gzip(decoder) => decoder.read(buffer),
            Plain::Zstd(decoder) => decoder.read(buffer),
        }
    }
}
