//! What is known of files and of the share: attributes set, rights asked for, room.

use super::{Answer, Inner};
use crate::nfs::userspace::{
    connection::{Asker, now},
    words::{attributes, errno, time},
};
use fuser::{AccessFlags, FileAttr, INodeNo, TimeOrNow};
use nfs3_client::nfs3_types::nfs3::{
    ACCESS3_DELETE, ACCESS3_EXECUTE, ACCESS3_EXTEND, ACCESS3_LOOKUP, ACCESS3_MODIFY, ACCESS3_READ,
    ACCESS3args, FSSTAT3args, FSSTAT3resok, Nfs3Option, SETATTR3args, sattr3, set_atime, set_mtime,
};

/// What is to be set; the rest stays.
pub(super) struct New {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) atime: Option<TimeOrNow>,
    pub(super) mtime: Option<TimeOrNow>,
}

impl From<New> for sattr3 {
    fn from(new: New) -> sattr3 {
        let some = |it: Option<u32>| it.map_or(Nfs3Option::None, Nfs3Option::Some);
        sattr3 {
            mode: some(new.mode.map(|it| it & 0o7777)),
            uid: some(new.uid),
            gid: some(new.gid),
            size: new.size.map_or(Nfs3Option::None, Nfs3Option::Some),
            atime: match new.atime {
                None => set_atime::DONT_CHANGE,
                Some(TimeOrNow::Now) => set_atime::SET_TO_SERVER_TIME,
                Some(TimeOrNow::SpecificTime(at)) => set_atime::SET_TO_CLIENT_TIME(time(at)),
            },
            mtime: match new.mtime {
                None => set_mtime::DONT_CHANGE,
                Some(TimeOrNow::Now) => set_mtime::SET_TO_SERVER_TIME,
                Some(TimeOrNow::SpecificTime(at)) => set_mtime::SET_TO_CLIENT_TIME(time(at)),
            },
        }
    }
}

impl Inner {
    pub(super) fn set(&mut self, asker: &Asker, node: INodeNo, new: sattr3) -> Answer<FileAttr> {
        let object = self.handle(node)?;
        let arguments =
            SETATTR3args { object: object.clone(), new_attributes: new, guard: Nfs3Option::None };
        self.call(asker, |it| now(it.setattr(&arguments)))?;
        Ok(attributes(node.0, &self.attributes(asker, &object)?))
    }

    pub(super) fn room(&mut self, asker: &Asker) -> Answer<FSSTAT3resok> {
        let arguments = FSSTAT3args { fsroot: self.root.clone() };
        self.call(asker, |it| now(it.fsstat(&arguments)))
    }

    pub(super) fn access(&mut self, asker: &Asker, node: INodeNo, mask: AccessFlags) -> Answer<()> {
        let mut wanted = 0;
        if mask.contains(AccessFlags::R_OK) {
            wanted |= ACCESS3_READ;
        }
        if mask.contains(AccessFlags::W_OK) {
            wanted |= ACCESS3_MODIFY | ACCESS3_EXTEND;
        }
        if mask.contains(AccessFlags::X_OK) {
            wanted |= ACCESS3_EXECUTE | ACCESS3_LOOKUP;
        }
        let arguments = ACCESS3args { object: self.handle(node)?, access: wanted | ACCESS3_DELETE };
        let granted = self.call(asker, |it| now(it.access(&arguments)))?.access;
        // Files are executed and directories searched: one of the two is all there is.
        let either = |bits: u32| wanted & bits == 0 || granted & bits != 0;
        let fine = either(ACCESS3_READ)
            && either(ACCESS3_MODIFY | ACCESS3_EXTEND)
            && either(ACCESS3_EXECUTE | ACCESS3_LOOKUP);
        if fine { Ok(()) } else { Err(errno(libc::EACCES)) }
    }
}
