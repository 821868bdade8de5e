//! What files hold: read and written in calls of a size that every server takes.
//!
//! Writes ask to be on disk before the answer; a server that keeps them in memory all the same is told to commit them,
//! and has them again if it restarted in between. So nothing is left to do, or to fail, when a file is synced or closed.

use super::{Answer, Inner};
use crate::nfs::userspace::connection::{Asker, now};
use fuser::{Errno, INodeNo};
use nfs3_client::nfs3_types::{
    nfs3::{COMMIT3args, READ3args, WRITE3args, nfs_fh3, stable_how},
    xdr_codec::Opaque,
};

/// Bytes of a file in one call.
const FILE_BYTES: u32 = 128 << 10;

/// A server that restarts between a write and its commit, every time, is broken.
const WRITES_MAX: u32 = 3;

impl Inner {
    pub(super) fn read(
        &mut self,
        asker: &Asker,
        node: INodeNo,
        offset: u64,
        size: u32,
    ) -> Answer<Vec<u8>> {
        let file = self.handle(node)?;
        let mut data = Vec::new();
        while data.len() < size as usize {
            let left = size - u32::try_from(data.len()).unwrap_or(size);
            let arguments = READ3args {
                file: file.clone(),
                offset: offset + data.len() as u64,
                count: left.min(FILE_BYTES),
            };
            let part = self.call(asker, |it| now(it.read(&arguments)))?;
            data.extend_from_slice(&part.data);
            if part.eof {
                break;
            }
            // Neither bytes nor an end: to call it the end would cut the file short.
            if part.data.is_empty() {
                return Err(Errno::EIO);
            }
        }
        data.truncate(size as usize);
        Ok(data)
    }

    /// How many bytes were written: fewer than given where the server refused the rest.
    pub(super) fn write(
        &mut self,
        asker: &Asker,
        node: INodeNo,
        offset: u64,
        data: &[u8],
    ) -> Answer<u32> {
        let file = self.handle(node)?;
        let mut done = 0;
        while done < data.len() {
            let part = &data[done..data.len().min(done + FILE_BYTES as usize)];
            match self.write_part(asker, &file, offset + done as u64, part) {
                Ok(count) => done += count,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        u32::try_from(done).map_err(|_| Errno::EIO)
    }

    fn write_part(
        &mut self,
        asker: &Asker,
        file: &nfs_fh3,
        offset: u64,
        part: &[u8],
    ) -> Answer<usize> {
        let count = u32::try_from(part.len()).unwrap_or(FILE_BYTES);
        for _ in 0..WRITES_MAX {
            let written = self.call(asker, |it| {
                now(it.write(&WRITE3args {
                    file: file.clone(),
                    offset,
                    count,
                    stable: stable_how::FILE_SYNC,
                    data: Opaque::borrowed(part),
                }))
            })?;
            if written.count == 0 {
                return Err(Errno::EIO);
            }
            let count = written.count.min(count);
            if written.committed == stable_how::FILE_SYNC {
                return Ok(count as usize);
            }
            let arguments = COMMIT3args { file: file.clone(), offset, count };
            let committed = self.call(asker, |it| now(it.commit(&arguments)))?;
            if committed.verf == written.verf {
                return Ok(count as usize);
            }
        }
        Err(Errno::EIO)
    }
}
