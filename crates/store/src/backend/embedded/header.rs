//! The first block of each file: what it is, in which format, of which ledger.

use super::{codec::Reader, medium::Medium};
use crate::StoreError;
use flate2::Crc;

pub(super) const BLOCK: usize = 4096;

/// Raised with every change that an older program would misread.
const VERSION: u32 = 1;

pub(super) const PAGES: &[u8; 16] = b"stanchion pages\n";
pub(super) const LOG: &[u8; 16] = b"stanchion log\n\0\0";

/// Magic, version, id, checksum of those.
const LENGTH: usize = 16 + 4 + 8 + 4;

pub(super) fn write(magic: &[u8; 16], id: u64) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK);
    block.extend(magic);
    block.extend(VERSION.to_le_bytes());
    block.extend(id.to_le_bytes());
    block.extend(checksum(&block).to_le_bytes());
    block.resize(BLOCK, 0);
    block
}

/// The ledger's id.
pub(super) fn read(medium: &dyn Medium, magic: &[u8; 16]) -> Result<u64, StoreError> {
    let path = medium.path();
    let corrupt =
        |detail: &str| StoreError::Corrupt { path: path.to_owned(), detail: detail.into() };
    let attempt = |error| StoreError::io(format!("read the header of {}", path.display()), error);
    if medium.len().map_err(attempt)? < BLOCK as u64 {
        return Err(corrupt("it is too short to have a header"));
    }
    let mut bytes = [0; LENGTH];
    medium.read_at(0, &mut bytes).map_err(attempt)?;
    let mut reader = Reader(&bytes);
    let short = || corrupt("its header is too short");
    if reader.take(16).ok_or_else(short)? != magic {
        return Err(corrupt("it does not begin as a ledger does"));
    }
    let version = reader.u32().ok_or_else(short)?;
    let id = reader.u64().ok_or_else(short)?;
    if reader.u32().ok_or_else(short)? != checksum(&bytes[..LENGTH - 4]) {
        return Err(corrupt("its header fails its checksum"));
    }
    if version > VERSION {
        let path = path.to_owned();
        return Err(StoreError::NewerVersion { path, found: version, known: VERSION });
    }
    Ok(id)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::embedded::medium::FileMedium;

    #[test]
    fn a_newer_format_is_refused_and_not_called_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let medium = FileMedium::open(&dir.path().join("pages"), true).unwrap();
        let mut block = write(PAGES, 7);
        block[16..20].copy_from_slice(&(VERSION + 1).to_le_bytes());
        let sum = checksum(&block[..LENGTH - 4]);
        block[LENGTH - 4..LENGTH].copy_from_slice(&sum.to_le_bytes());
        medium.write_at(0, &block).unwrap();
        let refused = read(&medium, PAGES).unwrap_err().to_string();
        let end = "pages has format version 2, this program knows up to 1";
        assert!(refused.ends_with(end), "{refused}");
    }
}
