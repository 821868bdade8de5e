//! SHA-256 digests, and readers that compute them on the way.

use ring::digest::{Context, SHA256};
use std::{
    fmt,
    io::{self, Read},
    str::FromStr,
};

/// `sha256:` and 64 lower-case hex digits; the only algorithm that images use in practice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::from_hash(ring::digest::digest(&SHA256, bytes).as_ref())
    }

    /// The hex digits alone: names of files and directories.
    pub fn hex(&self) -> &str {
        &self.0
    }

    pub(super) fn of_context(context: Context) -> Digest {
        Digest::from_hash(context.finish().as_ref())
    }

    fn from_hash(hash: &[u8]) -> Digest {
        use fmt::Write as _;
        let mut hex = String::with_capacity(64);
        for byte in hash {
            write!(hex, "{byte:02x}").expect("writing to a String");
        }
        Digest(hex)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        let hex = text
            .strip_prefix("sha256:")
            .ok_or_else(|| format!("digest {text:?} is not a sha256 digest"))?;
        let lower_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if hex.len() != 64 || !hex.bytes().all(lower_hex) {
            return Err(format!("digest {text:?} is not 64 lower-case hex digits"));
        }
        Ok(Digest(hex.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Passes bytes through and hashes them.
pub(super) struct Hashing<R> {
    inner: R,
    context: Context,
    bytes: u64,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Hashing<R> {
        Hashing { inner, context: Context::new(&SHA256), bytes: 0 }
    }

    /// Reads what is left, up to `bytes_max` in total, and says what all of it hashes to.
    pub(super) fn finish(mut self, bytes_max: u64) -> io::Result<(Digest, R)> {
        let mut buffer = vec![0; 64 * 1024];
        while self.read(&mut buffer)? > 0 {
            if self.bytes > bytes_max {
                return Err(io::Error::other(format!("more than {bytes_max} bytes")));
            }
        }
        Ok((Digest::from_hash(self.context.finish().as_ref()), self.inner))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.context.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_hashes_what_it_passes_and_what_is_left() {
        let mut reader = Hashing::new(&b"hello"[..]);
        reader.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(reader.finish(5).unwrap().0, Digest::of(b"hello"));
        assert!(Hashing::new(&b"hello"[..]).finish(4).is_err());
    }

    #[test]
    fn only_lower_case_sha256_is_a_digest() {
        let text = Digest::of(b"").to_string();
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for bad in [&text.to_uppercase(), "sha256:../../etc", "sha512:00", &text[..70]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
