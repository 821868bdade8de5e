//! Names that go or move. The server knows no open files: one that loses its last name while it is open here, by a removal
//! or by another file that takes its place, gets a hidden name until it is closed.

use super::{Answer, Inner, place};
use crate::nfs::userspace::{
    connection::{Asker, now},
    nodes::Hidden,
};
use fuser::{Errno, INodeNo};
use nfs3_client::nfs3_types::nfs3::{REMOVE3args, RENAME3args, RMDIR3args, nfs_fh3};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

impl Inner {
    fn remove(&mut self, asker: &Asker, parent: &nfs_fh3, name: &OsStr) -> Answer<()> {
        let arguments = REMOVE3args { object: place(parent, name) };
        let told = self.call_once(asker, |it| now(it.remove(&arguments)));
        match told.may_be_own(Errno::ENOENT) {
            true => Ok(()),
            false => told.answer.map(|_| ()),
        }
    }

    pub(super) fn rmdir(&mut self, asker: &Asker, parent: INodeNo, name: &OsStr) -> Answer<()> {
        let directory = self.handle(parent)?;
        let arguments = RMDIR3args { object: place(&directory, name) };
        let told = self.call_once(asker, |it| now(it.rmdir(&arguments)));
        match told.may_be_own(Errno::ENOENT) {
            true => Ok(()),
            false => told.answer.map(|_| ()),
        }
    }

    pub(super) fn unlink(&mut self, asker: &Asker, parent: INodeNo, name: &OsStr) -> Answer<()> {
        let directory = self.handle(parent)?;
        let (handle, _) = self.find(asker, &directory, name)?;
        if self.nodes.is_hidden(&handle) {
            // It goes by itself, and whoever has it open keeps it until then.
            return Err(Errno::EBUSY);
        }
        match self.nodes.open_number(&handle) {
            None => self.remove(asker, &directory, name),
            Some(number) => self.hide(asker, number, &handle, &directory, name).map(|_| ()),
        }
    }

    /// The name that it has now.
    fn hide(
        &mut self,
        asker: &Asker,
        number: u64,
        handle: &nfs_fh3,
        directory: &nfs_fh3,
        name: &OsStr,
    ) -> Answer<OsString> {
        let hidden = OsString::from(format!(".nfs{number:016x}{:08x}", std::process::id()));
        self.shift(asker, handle, (directory, name), (directory, &hidden))?;
        let name = hidden.as_bytes().to_vec();
        self.nodes.hide(number, Hidden { directory: directory.clone(), name });
        Ok(hidden)
    }

    /// The file is closed: its hidden name goes with the last who had it open.
    pub(super) fn release(&mut self, asker: &Asker, node: INodeNo) -> Answer<()> {
        match self.nodes.closed(node.0) {
            Some(hidden) => self.remove(asker, &hidden.directory, OsStr::from_bytes(&hidden.name)),
            None => Ok(()),
        }
    }

    pub(super) fn rename(
        &mut self,
        asker: &Asker,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
    ) -> Answer<()> {
        let (old, new) = (self.handle(from.0)?, self.handle(to.0)?);
        let (moved, _) = self.find(asker, &old, from.1)?;
        let mut kept = None;
        if self.nodes.has_open() {
            match self.find(asker, &new, to.1) {
                Ok((replaced, _)) if replaced != moved => {
                    if let Some(number) = self.nodes.open_number(&replaced) {
                        let hidden = self.hide(asker, number, &replaced, &new, to.1)?;
                        kept = Some((number, replaced, hidden));
                    }
                }
                Err(error) if error.code() != libc::ENOENT => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        let done = self.shift(asker, &moved, (&old, from.1), (&new, to.1));
        if let (Err(_), Some((number, replaced, hidden))) = (&done, kept) {
            // Nothing took its place: it has its name back, or keeps the hidden one and goes when it is closed.
            if self.shift(asker, &replaced, (&new, &hidden), (&new, to.1)).is_ok() {
                self.nodes.show(number);
            }
        }
        done
    }

    /// Gives `file` another name, once.
    fn shift(
        &mut self,
        asker: &Asker,
        file: &nfs_fh3,
        from: (&nfs_fh3, &OsStr),
        to: (&nfs_fh3, &OsStr),
    ) -> Answer<()> {
        let arguments = RENAME3args { from: place(from.0, from.1), to: place(to.0, to.1) };
        let told = self.call_once(asker, |it| now(it.rename(&arguments)));
        if told.may_be_own(Errno::ENOENT) {
            let is_there = self.find(asker, to.0, to.1).is_ok_and(|it| it.0 == *file);
            return if is_there { Ok(()) } else { Err(Errno::ENOENT) };
        }
        told.answer.map(|_| ())
    }
}
