//! What the kernel asks of a mount in userspace, said in NFS version 3: one call of the one is mostly one of the other.
//!
//! The server judges who may do what. What is written is on the server's disk before the writer is told.

use super::{
    connection::{Asker, Client, Connections, User, now},
    nodes::{Hidden, Nodes},
    words::{attributes, errno, kind, server_error, time},
};
use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nfs3_client::{
    RpcError,
    nfs3_types::{
        nfs3::{
            ACCESS3_DELETE, ACCESS3_EXECUTE, ACCESS3_EXTEND, ACCESS3_LOOKUP, ACCESS3_MODIFY,
            ACCESS3_READ, ACCESS3args, CREATE3args, FSSTAT3args, GETATTR3args, LINK3args,
            LOOKUP3args, MKDIR3args, MKNOD3args, Nfs3Option, Nfs3Result, READ3args,
            READDIRPLUS3args, READLINK3args, REMOVE3args, RENAME3args, RMDIR3args, SETATTR3args,
            SYMLINK3args, WRITE3args, cookieverf3, createhow3, diropargs3, fattr3, filename3,
            mknoddata3, nfs_fh3, post_op_attr, post_op_fh3, sattr3, set_atime, set_mtime,
            stable_how, symlinkdata3,
        },
        xdr_codec::Opaque,
    },
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// How long the kernel believes attributes: the least of the kernel's own client is 3 s.
const FRESH: Duration = Duration::from_secs(1);
/// Bytes of a directory in one answer.
const DIRECTORY_BYTES: u32 = 32 << 10;
/// Bytes of a file in one call.
const FILE_BYTES: u32 = 128 << 10;
const NAME_BYTES_MAX: u32 = 255;

pub(super) struct Share {
    inner: Mutex<Inner>,
}

struct Inner {
    connections: Connections,
    nodes: Nodes,
    /// Open directories: what the server wants to see again with a cookie.
    verifiers: HashMap<u64, cookieverf3>,
    next: u64,
    root: nfs_fh3,
}

type Answer<T> = Result<T, Errno>;

impl Share {
    pub(super) fn new(connections: Connections, root: nfs_fh3) -> Share {
        let nodes = Nodes::new(&root);
        let inner = Inner { connections, nodes, verifiers: HashMap::new(), next: 1, root };
        Share { inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn call<T, E>(
        &mut self,
        asker: &Asker,
        mut call: impl FnMut(&mut Client) -> Result<Nfs3Result<T, E>, RpcError>,
    ) -> Answer<T> {
        match self.connections.call(asker, &mut call) {
            Ok(Nfs3Result::Ok(answer)) => Ok(answer),
            Ok(Nfs3Result::Err((status, _))) => Err(server_error(status)),
            Err(_) => Err(Errno::EIO),
        }
    }

    fn handle(&self, node: INodeNo) -> Answer<nfs_fh3> {
        self.nodes.handle(node.0).ok_or(Errno::ESTALE)
    }

    fn attributes(&mut self, asker: &Asker, handle: &nfs_fh3) -> Answer<fattr3> {
        let arguments = GETATTR3args { object: handle.clone() };
        Ok(self.call(asker, |it| now(it.getattr(&arguments)))?.obj_attributes)
    }

    /// A file that the kernel is told of; the server may have left out what it knows.
    fn entry(&mut self, asker: &Asker, handle: nfs_fh3, known: post_op_attr) -> Answer<FileAttr> {
        let known = match known {
            Nfs3Option::Some(known) => known,
            Nfs3Option::None => self.attributes(asker, &handle)?,
        };
        let number = self.nodes.tell(&handle);
        Ok(attributes(number, &known))
    }

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

    fn lookup(&mut self, asker: &Asker, parent: &nfs_fh3, name: &OsStr) -> Answer<FileAttr> {
        let found = self.find(asker, parent, name)?;
        self.entry(asker, found.0, found.1)
    }

    fn find(
        &mut self,
        asker: &Asker,
        parent: &nfs_fh3,
        name: &OsStr,
    ) -> Answer<(nfs_fh3, post_op_attr)> {
        let found =
            self.call(asker, |it| now(it.lookup(&LOOKUP3args { what: place(parent, name) })))?;
        Ok((found.object, found.obj_attributes))
    }

    fn remove(&mut self, asker: &Asker, parent: &nfs_fh3, name: &OsStr) -> Answer<()> {
        let gone =
            self.call(asker, |it| now(it.remove(&REMOVE3args { object: place(parent, name) })));
        gone.map(|_| ())
    }

    /// The server knows no open files: one that is removed while open gets another name until it is closed.
    fn unlink(&mut self, asker: &Asker, parent: INodeNo, name: &OsStr) -> Answer<()> {
        let directory = self.handle(parent)?;
        let (handle, _) = self.find(asker, &directory, name)?;
        let Some(number) = self.nodes.open_number(&handle) else {
            return self.remove(asker, &directory, name);
        };
        let hidden = format!(".nfs{number:016x}{:08x}", std::process::id());
        self.call(asker, |it| {
            now(it.rename(&RENAME3args {
                from: place(&directory, name),
                to: place(&directory, OsStr::new(&hidden)),
            }))
        })?;
        self.nodes.hide(number, Hidden { directory: parent.0, name: hidden.into_bytes() });
        Ok(())
    }

    fn release(&mut self, asker: &Asker, node: INodeNo) -> Answer<()> {
        let Some(hidden) = self.nodes.closed(node.0) else { return Ok(()) };
        let directory = self.handle(INodeNo(hidden.directory))?;
        self.remove(asker, &directory, OsStr::from_bytes(&hidden.name))
    }

    fn read(&mut self, asker: &Asker, node: INodeNo, offset: u64, size: u32) -> Answer<Vec<u8>> {
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
            if part.eof || part.data.is_empty() {
                break;
            }
        }
        data.truncate(size as usize);
        Ok(data)
    }

    fn write(&mut self, asker: &Asker, node: INodeNo, offset: u64, data: &[u8]) -> Answer<u32> {
        let file = self.handle(node)?;
        let mut done = 0;
        while done < data.len() {
            let part = &data[done..data.len().min(done + FILE_BYTES as usize)];
            let count = u32::try_from(part.len()).unwrap_or(FILE_BYTES);
            let written = self.call(asker, |it| {
                now(it.write(&WRITE3args {
                    file: file.clone(),
                    offset: offset + done as u64,
                    count,
                    stable: stable_how::FILE_SYNC,
                    data: Opaque::borrowed(part),
                }))
            })?;
            if written.count == 0 {
                return Err(Errno::EIO);
            }
            done += written.count.min(count) as usize;
        }
        u32::try_from(done).map_err(|_| Errno::EIO)
    }

    fn set(&mut self, asker: &Asker, node: INodeNo, new: sattr3) -> Answer<FileAttr> {
        let object = self.handle(node)?;
        let arguments =
            SETATTR3args { object: object.clone(), new_attributes: new, guard: Nfs3Option::None };
        self.call(asker, |it| now(it.setattr(&arguments)))?;
        Ok(attributes(node.0, &self.attributes(asker, &object)?))
    }

    fn create(
        &mut self,
        asker: &Asker,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Answer<FileAttr> {
        let directory = self.handle(parent)?;
        let made = self.call(asker, |it| {
            let how = match flags & libc::O_EXCL {
                0 => createhow3::UNCHECKED(with_mode(mode)),
                _ => createhow3::GUARDED(with_mode(mode)),
            };
            now(it.create(&CREATE3args { where_: place(&directory, name), how }))
        })?;
        let known = self.made(asker, &directory, name, made.obj, made.obj_attributes)?;
        self.nodes.opened(known.ino.0);
        Ok(known)
    }

    fn mkdir(
        &mut self,
        asker: &Asker,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
    ) -> Answer<FileAttr> {
        let directory = self.handle(parent)?;
        let made = self.call(asker, |it| {
            now(it.mkdir(&MKDIR3args {
                where_: place(&directory, name),
                attributes: with_mode(mode),
            }))
        })?;
        self.made(asker, &directory, name, made.obj, made.obj_attributes)
    }

    fn mknod(
        &mut self,
        asker: &Asker,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
    ) -> Answer<FileAttr> {
        let directory = self.handle(parent)?;
        let kind = mode & libc::S_IFMT;
        if kind == libc::S_IFREG {
            let made = self.call(asker, |it| {
                let how = createhow3::GUARDED(with_mode(mode));
                now(it.create(&CREATE3args { where_: place(&directory, name), how }))
            })?;
            return self.made(asker, &directory, name, made.obj, made.obj_attributes);
        }
        if kind != libc::S_IFIFO && kind != libc::S_IFSOCK {
            return Err(Errno::EPERM);
        }
        let made = self.call(asker, |it| {
            let what = match kind {
                libc::S_IFIFO => mknoddata3::NF3FIFO(with_mode(mode)),
                _ => mknoddata3::NF3SOCK(with_mode(mode)),
            };
            now(it.mknod(&MKNOD3args { where_: place(&directory, name), what }))
        })?;
        self.made(asker, &directory, name, made.obj, made.obj_attributes)
    }

    fn symlink(
        &mut self,
        asker: &Asker,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
    ) -> Answer<FileAttr> {
        let directory = self.handle(parent)?;
        let made = self.call(asker, |it| {
            now(it.symlink(&SYMLINK3args {
                where_: place(&directory, name),
                symlink: symlinkdata3 {
                    symlink_attributes: with_mode(0o777),
                    symlink_data: target.as_os_str().as_bytes().to_vec().into(),
                },
            }))
        })?;
        self.made(asker, &directory, name, made.obj, made.obj_attributes)
    }

    fn rename(
        &mut self,
        asker: &Asker,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
    ) -> Answer<()> {
        let (old, new) = (self.handle(from.0)?, self.handle(to.0)?);
        let done = self.call(asker, |it| {
            now(it.rename(&RENAME3args { from: place(&old, from.1), to: place(&new, to.1) }))
        });
        done.map(|_| ())
    }

    fn link(
        &mut self,
        asker: &Asker,
        node: INodeNo,
        parent: INodeNo,
        name: &OsStr,
    ) -> Answer<FileAttr> {
        let (file, directory) = (self.handle(node)?, self.handle(parent)?);
        let made = self.call(asker, |it| {
            now(it.link(&LINK3args { file: file.clone(), link: place(&directory, name) }))
        })?;
        self.entry(asker, file, made.file_attributes)
    }

    /// Fills one answer; the kernel comes again with the last cookie that it was given.
    fn list(
        &mut self,
        asker: &Asker,
        node: INodeNo,
        open: FileHandle,
        mut cookie: u64,
        reply: &mut ReplyDirectory,
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
                let kind = match &entry.name_attributes {
                    Nfs3Option::Some(known) => kind(known.type_),
                    Nfs3Option::None => fuser::FileType::RegularFile,
                };
                let name = OsStr::from_bytes(entry.name.as_ref());
                // Zero would hide it.
                let number = INodeNo(entry.fileid.max(1));
                if reply.add(number, entry.cookie, kind, name) {
                    return Ok(());
                }
            }
            if page.reply.eof {
                return Ok(());
            }
        }
    }
}

fn place<'a>(directory: &nfs_fh3, name: &'a OsStr) -> diropargs3<'a> {
    diropargs3 { dir: directory.clone(), name: filename3::from(name.as_bytes()) }
}

fn with_mode(mode: u32) -> sattr3 {
    sattr3 { mode: Nfs3Option::Some(mode & 0o7777), ..sattr3::default() }
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
        Ok(known) => reply.entry(&FRESH, &known, Generation(0)),
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
        let some = |it: Option<u32>| it.map_or(Nfs3Option::None, Nfs3Option::Some);
        let new = sattr3 {
            mode: some(mode.map(|it| it & 0o7777)),
            uid: some(uid),
            gid: some(gid),
            size: size.map_or(Nfs3Option::None, Nfs3Option::Some),
            atime: match atime {
                None => set_atime::DONT_CHANGE,
                Some(TimeOrNow::Now) => set_atime::SET_TO_SERVER_TIME,
                Some(TimeOrNow::SpecificTime(at)) => set_atime::SET_TO_CLIENT_TIME(time(at)),
            },
            mtime: match mtime {
                None => set_mtime::DONT_CHANGE,
                Some(TimeOrNow::Now) => set_mtime::SET_TO_SERVER_TIME,
                Some(TimeOrNow::SpecificTime(at)) => set_mtime::SET_TO_CLIENT_TIME(time(at)),
            },
        };
        told(reply, self.inner().set(&asker(request), node, new));
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        let mut inner = self.inner();
        let read = inner.handle(node).and_then(|symlink| {
            let arguments = READLINK3args { symlink };
            inner.call(&asker(request), |it| now(it.readlink(&arguments)))
        });
        match read {
            Ok(found) => reply.data(found.data.0.as_ref()),
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
        let mut inner = self.inner();
        let done = inner.handle(parent).and_then(|directory| {
            inner.call(&asker(request), |it| {
                now(it.rmdir(&RMDIR3args { object: place(&directory, name) }))
            })
        });
        empty(reply, done.map(|_| ()));
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
        match self.inner().list(&asker(request), node, open, offset, &mut reply) {
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
        let mut inner = self.inner();
        let arguments = FSSTAT3args { fsroot: inner.root.clone() };
        match inner.call(&asker(request), |it| now(it.fsstat(&arguments))) {
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
        let mut inner = self.inner();
        let granted = inner.handle(node).and_then(|object| {
            let access = wanted | ACCESS3_DELETE;
            let arguments = ACCESS3args { object, access };
            inner.call(&asker(request), |it| now(it.access(&arguments)))
        });
        let done = granted.and_then(|it| {
            // Files are executed and directories searched: one of the two is all there is.
            let either = |bits: u32| wanted & bits == 0 || it.access & bits != 0;
            let fine = either(ACCESS3_READ)
                && either(ACCESS3_MODIFY | ACCESS3_EXTEND)
                && either(ACCESS3_EXECUTE | ACCESS3_LOOKUP);
            if fine { Ok(()) } else { Err(errno(libc::EACCES)) }
        });
        empty(reply, done);
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
            Ok(known) => {
                reply.created(&FRESH, &known, Generation(0), FileHandle(0), FopenFlags::empty())
            }
            Err(error) => reply.error(error),
        }
    }
}
