//! New names in a directory: files, directories, links, pipes and sockets.
//!
//! Each is made once, also where the answer to the first call was lost: a file by a mark that the server keeps with it
//! until its attributes are set, the others by a look at what is in the way.

use super::{Answer, Inner, Told, place};
use crate::nfs::userspace::connection::{Asker, now};
use fuser::{Errno, FileAttr, INodeNo};
use nfs3_client::nfs3_types::nfs3::{
    CREATE3args, CREATE3resok, LINK3args, MKDIR3args, MKNOD3args, Nfs3Option, READLINK3args,
    REMOVE3args, SETATTR3args, SYMLINK3args, createhow3, createverf3, fattr3, ftype3, mknoddata3,
    nfs_fh3, post_op_attr, post_op_fh3, sattr3, set_atime, set_mtime, symlinkdata3,
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};
use stdx::{Entropy, SystemEntropy};

impl Inner {
    fn made(
        &mut self,
        asker: &Asker,
        parent: &nfs_fh3,
        name: &OsStr,
        handle: post_op_fh3,
        known: post_op_attr,
    ) -> Answer<FileAttr> {
        match handle {
            Nfs3Option::Some(handle) => self.entry(asker, handle, known),
            Nfs3Option::None => self.lookup(asker, parent, name),
        }
    }

    /// What is in the way of a call that was sent again, if it is what that call would have made.
    fn own(
        &mut self,
        asker: &Asker,
        parent: &nfs_fh3,
        name: &OsStr,
        is_own: impl FnOnce(&mut Inner, &nfs_fh3, &fattr3) -> bool,
    ) -> Answer<FileAttr> {
        let (handle, known) = self.find(asker, parent, name)?;
        let known = self.known(asker, &handle, known)?;
        match is_own(self, &handle, &known) {
            true => self.entry(asker, handle, Nfs3Option::Some(known)),
            false => Err(Errno::EEXIST),
        }
    }

    /// A file that is opened at once.
    pub(super) fn create(
        &mut self,
        asker: &Asker,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Answer<FileAttr> {
        let directory = self.handle(parent)?;
        let known = match flags & libc::O_EXCL {
            0 => {
                let mut new = with_mode(mode);
                if flags & libc::O_TRUNC != 0 {
                    // Of a file that somebody else made meanwhile.
                    new.size = Nfs3Option::Some(0);
                }
                let made = self.create_as(asker, &directory, name, createhow3::UNCHECKED(new));
                let made = made.answer?;
                self.made(asker, &directory, name, made.obj, made.obj_attributes)?
            }
            _ => self.create_new(asker, &directory, name, mode)?,
        };
        self.nodes.opened(known.ino.0);
        Ok(known)
    }

    fn create_as(
        &mut self,
        asker: &Asker,
        directory: &nfs_fh3,
        name: &OsStr,
        how: createhow3,
    ) -> Told<CREATE3resok> {
        let arguments = CREATE3args { where_: place(directory, name), how };
        self.call_once(asker, |it| now(it.create(&arguments)))
    }

    /// A file that was not there.
    fn create_new(
        &mut self,
        asker: &Asker,
        directory: &nfs_fh3,
        name: &OsStr,
        mode: u32,
    ) -> Answer<FileAttr> {
        let mut mark = createverf3::default();
        SystemEntropy::default().fill(&mut mark.0);
        let told = self.create_as(asker, directory, name, createhow3::EXCLUSIVE(mark));
        let made = match told.answer {
            // A server without room for marks.
            Err(error) if error.code() == libc::EOPNOTSUPP => {
                let how = createhow3::GUARDED(with_mode(mode));
                let made = self.create_as(asker, directory, name, how).answer?;
                return self.made(asker, directory, name, made.obj, made.obj_attributes);
            }
            other => other?,
        };
        let handle = match made.obj {
            Nfs3Option::Some(handle) => handle,
            Nfs3Option::None => self.find(asker, directory, name)?.0,
        };
        // The mark lies where the times are.
        let new_attributes = sattr3 {
            atime: set_atime::SET_TO_SERVER_TIME,
            mtime: set_mtime::SET_TO_SERVER_TIME,
            ..with_mode(mode)
        };
        let arguments =
            SETATTR3args { object: handle.clone(), new_attributes, guard: Nfs3Option::None };
        if let Err(error) = self.call(asker, |it| now(it.setattr(&arguments))) {
            let arguments = REMOVE3args { object: place(directory, name) };
            // Best effort: what was asked for is not there, and the caller is told why.
            let _gone = self.call(asker, |it| now(it.remove(&arguments)));
            return Err(error);
        }
        self.entry(asker, handle, Nfs3Option::None)
    }

    pub(super) fn mkdir(
        &mut self,
        asker: &Asker,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
    ) -> Answer<FileAttr> {
        let directory = self.handle(parent)?;
        let arguments = MKDIR3args { where_: place(&directory, name), attributes: with_mode(mode) };
        let told = self.call_once(asker, |it| now(it.mkdir(&arguments)));
        if told.may_be_own(Errno::EEXIST) {
            return self.own(asker, &directory, name, |_, _, it| it.type_ == ftype3::NF3DIR);
        }
        let made = told.answer?;
        self.made(asker, &directory, name, made.obj, made.obj_attributes)
    }

    pub(super) fn mknod(
        &mut self,
        asker: &Asker,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
    ) -> Answer<FileAttr> {
        let directory = self.handle(parent)?;
        let (what, kind) = match mode & libc::S_IFMT {
            libc::S_IFREG => return self.create_new(asker, &directory, name, mode),
            libc::S_IFIFO => (mknoddata3::NF3FIFO(with_mode(mode)), ftype3::NF3FIFO),
            libc::S_IFSOCK => (mknoddata3::NF3SOCK(with_mode(mode)), ftype3::NF3SOCK),
            _ => return Err(Errno::EPERM),
        };
        let arguments = MKNOD3args { where_: place(&directory, name), what };
        let told = self.call_once(asker, |it| now(it.mknod(&arguments)));
        if told.may_be_own(Errno::EEXIST) {
            return self.own(asker, &directory, name, |_, _, it| it.type_ == kind);
        }
        let made = told.answer?;
        self.made(asker, &directory, name, made.obj, made.obj_attributes)
    }

    pub(super) fn symlink(
        &mut self,
        asker: &Asker,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
    ) -> Answer<FileAttr> {
        let directory = self.handle(parent)?;
        let arguments = SYMLINK3args {
            where_: place(&directory, name),
            symlink: symlinkdata3 {
                symlink_attributes: with_mode(0o777),
                symlink_data: target.as_os_str().as_bytes().to_vec().into(),
            },
        };
        let told = self.call_once(asker, |it| now(it.symlink(&arguments)));
        if told.may_be_own(Errno::EEXIST) {
            return self.own(asker, &directory, name, |inner, handle, it| {
                it.type_ == ftype3::NF3LNK
                    && inner
                        .target_of(asker, handle)
                        .is_ok_and(|it| it == target.as_os_str().as_bytes())
            });
        }
        let made = told.answer?;
        self.made(asker, &directory, name, made.obj, made.obj_attributes)
    }

    pub(super) fn target_of(&mut self, asker: &Asker, link: &nfs_fh3) -> Answer<Vec<u8>> {
        let arguments = READLINK3args { symlink: link.clone() };
        let read = self.call(asker, |it| now(it.readlink(&arguments)))?;
        Ok(read.data.0.as_ref().to_vec())
    }

    pub(super) fn link(
        &mut self,
        asker: &Asker,
        node: INodeNo,
        parent: INodeNo,
        name: &OsStr,
    ) -> Answer<FileAttr> {
        let (file, directory) = (self.handle(node)?, self.handle(parent)?);
        let arguments = LINK3args { file: file.clone(), link: place(&directory, name) };
        let told = self.call_once(asker, |it| now(it.link(&arguments)));
        if told.may_be_own(Errno::EEXIST) {
            return self.own(asker, &directory, name, |_, handle, _| *handle == file);
        }
        let made = told.answer?;
        self.entry(asker, file, made.file_attributes)
    }
}

pub(super) fn with_mode(mode: u32) -> sattr3 {
    sattr3 { mode: Nfs3Option::Some(mode & 0o7777), ..sattr3::default() }
}
