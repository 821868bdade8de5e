//! Directories, in as many answers as they need: the server's cookies are the kernel's offsets.

use super::{Answer, Inner};
use crate::nfs::userspace::{
    connection::{Asker, now},
    words::kind,
};
use fuser::{FileHandle, FileType, INodeNo};
use nfs3_client::nfs3_types::nfs3::{Nfs3Option, READDIRPLUS3args, cookieverf3};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

/// Bytes of a directory in one answer.
const DIRECTORY_BYTES: u32 = 32 << 10;

impl Inner {
    /// Gives entries until `add` (number, cookie, kind, name) says that the answer is full; the kernel comes again with
    /// the last cookie that it was given.
    pub(super) fn list(
        &mut self,
        asker: &Asker,
        node: INodeNo,
        open: FileHandle,
        mut cookie: u64,
        mut add: impl FnMut(INodeNo, u64, FileType, &OsStr) -> bool,
    ) -> Answer<()> {
        let dir = self.handle(node)?;
        loop {
            let cookieverf = match cookie {
                0 => cookieverf3::default(),
                _ => self.verifiers.get(&open.0).copied().unwrap_or_default(),
            };
            let arguments = READDIRPLUS3args {
                dir: dir.clone(),
                cookie,
                cookieverf,
                dircount: DIRECTORY_BYTES / 4,
                maxcount: DIRECTORY_BYTES,
            };
            let page = self.call(asker, |it| now(it.readdirplus(&arguments)))?;
            self.verifiers.insert(open.0, page.cookieverf);
            let entries = page.reply.entries.into_inner();
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                cookie = entry.cookie;
                let name = OsStr::from_bytes(entry.name.as_ref());
                let what = match &entry.name_attributes {
                    Nfs3Option::Some(known) => kind(known.type_),
                    Nfs3Option::None => {
                        // Of what lies on another filesystem of the server, or went meanwhile.
                        let found = self.find(asker, &dir, name);
                        let found = found.and_then(|(it, known)| self.known(asker, &it, known));
                        match found {
                            Ok(known) => kind(known.type_),
                            Err(_) => continue,
                        }
                    }
                };
                // Zero would hide it.
                let number = INodeNo(entry.fileid.max(1));
                if add(number, entry.cookie, what, name) {
                    return Ok(());
                }
            }
            if page.reply.eof {
                return Ok(());
            }
        }
    }
}
