//! The kernel's calls and their answers: who asks, and how long the kernel may believe what it is told.

use super::{Answer, Share, attributes::New};
use crate::nfs::userspace::{
    connection::{Asker, User},
    words::attributes,
};
use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nfs3_client::nfs3_types::nfs3::cookieverf3;
use std::{
    ffi::OsStr,
    path::Path,
    time::{Duration, SystemTime},
};

/// How long the kernel believes attributes: the least of the kernel's own client is 3 s.
const FRESH: Duration = Duration::from_secs(1);
const NAME_BYTES_MAX: u32 = 255;

/// Files are looked up anew by everyone who opens them: what another node wrote and closed is seen, and who appends does
/// so behind it.
fn life(known: &FileAttr) -> &'static Duration {
    match known.kind {
        FileType::RegularFile => &Duration::ZERO,
        FileType::Directory
        | FileType::Symlink
        | FileType::NamedPipe
        | FileType::Socket
        | FileType::CharDevice
        | FileType::BlockDevice => &FRESH,
    }
}

impl Filesystem for Share {
    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut inner = self.inner();
        let directory = inner.handle(parent);
        entry(reply, directory.and_then(|it| inner.lookup(&asker(request), &it, name)));
    }

    fn forget(&self, _: &Request, node: INodeNo, tellings: u64) {
        self.inner().nodes.forget(node.0, tellings);
    }

    fn getattr(&self, request: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let mut inner = self.inner();
        let handle = inner.handle(node);
        let known = handle.and_then(|it| inner.attributes(&asker(request), &it));
        told(reply, known.map(|it| attributes(node.0, &it)));
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let new = New { mode, uid, gid, size, atime, mtime };
        told(reply, self.inner().set(&asker(request), node, new.into()));
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        let mut inner = self.inner();
        let read = inner.handle(node).and_then(|it| inner.target_of(&asker(request), &it));
        match read {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        entry(reply, self.inner().mknod(&asker(request), parent, name, mode & !umask));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        entry(reply, self.inner().mkdir(&asker(request), parent, name, mode & !umask));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.inner().unlink(&asker(request), parent, name));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.inner().rmdir(&asker(request), parent, name));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        entry(reply, self.inner().symlink(&asker(request), parent, name, target));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            // The protocol has no exchange and no look before it replaces.
            return reply.error(Errno::EINVAL);
        }
        let (from, to) = ((parent, name), (new_parent, new_name));
        empty(reply, self.inner().rename(&asker(request), from, to));
    }

    fn link(
        &self,
        request: &Request,
        node: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        entry(reply, self.inner().link(&asker(request), node, parent, name));
    }

    fn open(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Without "keep cache" the kernel reads anew what another client may have written.
        self.inner().nodes.opened(node.0);
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.inner().read(&asker(request), node, offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.inner().write(&asker(request), node, offset, data) {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.inner().release(&asker(request), node));
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut inner = self.inner();
        let open = inner.next;
        inner.next += 1;
        inner.verifiers.insert(open, cookieverf3::default());
        reply.opened(FileHandle(open), FopenFlags::empty());
    }

    fn readdir(
        &self,
        request: &Request,
        node: INodeNo,
        open: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let add = |number, cookie, kind, name: &OsStr| reply.add(number, cookie, kind, name);
        let listed = self.inner().list(&asker(request), node, open, offset, add);
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        open: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.inner().verifiers.remove(&open.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u64 = 4096;
        match self.inner().room(&asker(request)) {
            Ok(it) => reply.statfs(
                it.tbytes / BLOCK,
                it.fbytes / BLOCK,
                it.abytes / BLOCK,
                it.tfiles,
                it.ffiles,
                BLOCK as u32,
                NAME_BYTES_MAX,
                BLOCK as u32,
            ),
            Err(error) => reply.error(error),
        }
    }

    fn access(&self, request: &Request, node: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        empty(reply, self.inner().access(&asker(request), node, mask));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.inner().create(&asker(request), parent, name, mode & !umask, flags) {
            Ok(known) => reply.created(
                life(&known),
                &known,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(error) => reply.error(error),
        }
    }
}

/// Who asks. The kernel tells one group; the others are in /proc as long as the process is.
fn asker(request: &Request) -> Asker {
    let status = std::fs::read_to_string(format!("/proc/{}/status", request.pid()));
    let status = status.unwrap_or_default();
    let groups = status.lines().find_map(|it| it.strip_prefix("Groups:")).unwrap_or_default();
    let groups = groups.split_whitespace().filter_map(|it| it.parse().ok());
    let groups = groups.take(16).collect();
    Asker { user: User { uid: request.uid(), gid: request.gid(), groups }, process: request.pid() }
}

fn entry(reply: ReplyEntry, made: Answer<FileAttr>) {
    match made {
        Ok(known) => reply.entry(life(&known), &known, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(reply: ReplyEmpty, done: Answer<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn told(reply: ReplyAttr, known: Answer<FileAttr>) {
    match known {
        Ok(known) => reply.attr(&FRESH, &known),
        Err(error) => reply.error(error),
    }
}
