//! What the kernel asks of a mount in userspace, said in NFS version 3: one call of the one is mostly one of the other.
//!
//! The server judges who may do what. What is written is on the server's disk before the writer is told. A call that
//! was sent again, because its answer was lost, may have been carried out before: see [`Told`].

mod attributes;
mod content;
mod kernel;
mod listing;
mod names;
mod removal;
#[cfg(test)]
mod tests;

use super::{
    connection::{Asker, Client, Connections, now},
    nodes::Nodes,
    words::{attributes, server_error},
};
use fuser::{Errno, FileAttr, INodeNo};
use nfs3_client::{
    RpcError,
    nfs3_types::nfs3::{
        GETATTR3args, LOOKUP3args, Nfs3Option, Nfs3Result, cookieverf3, diropargs3, fattr3,
        filename3, nfs_fh3, post_op_attr,
    },
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    sync::{Mutex, MutexGuard, PoisonError},
};

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

/// A server's answer. With `again` the call was sent more than once: what it says is in its way may be its own doing.
struct Told<T> {
    answer: Answer<T>,
    again: bool,
}

impl<T> Told<T> {
    /// Whether `error` may come of the first sending of the same call.
    fn may_be_own(&self, error: Errno) -> bool {
        let is_same = |it: &Errno| it.code() == error.code();
        self.again && self.answer.as_ref().err().is_some_and(is_same)
    }
}

impl Share {
    pub(super) fn new(connections: Connections, root: nfs_fh3) -> Share {
        Share { inner: Mutex::new(Inner::new(connections, root)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn new(connections: Connections, root: nfs_fh3) -> Inner {
        let nodes = Nodes::new(&root);
        Inner { connections, nodes, verifiers: HashMap::new(), next: 1, root }
    }

    /// For calls that may be carried out twice.
    fn call<T, E>(
        &mut self,
        asker: &Asker,
        call: impl FnMut(&mut Client) -> Result<Nfs3Result<T, E>, RpcError>,
    ) -> Answer<T> {
        self.call_once(asker, call).answer
    }

    /// For the others: the caller finds out what became of the first sending.
    fn call_once<T, E>(
        &mut self,
        asker: &Asker,
        call: impl FnMut(&mut Client) -> Result<Nfs3Result<T, E>, RpcError>,
    ) -> Told<T> {
        match self.connections.call(asker, call) {
            Ok((Nfs3Result::Ok(answer), again)) => Told { answer: Ok(answer), again },
            Ok((Nfs3Result::Err((status, _)), again)) => {
                Told { answer: Err(server_error(status)), again }
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Told { answer: Err(Errno::EACCES), again: false }
            }
            Err(_) => Told { answer: Err(Errno::EIO), again: false },
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
        let known = self.known(asker, &handle, known)?;
        let number = self.nodes.tell(&handle);
        Ok(attributes(number, &known))
    }

    fn known(&mut self, asker: &Asker, handle: &nfs_fh3, known: post_op_attr) -> Answer<fattr3> {
        match known {
            Nfs3Option::Some(known) => Ok(known),
            Nfs3Option::None => self.attributes(asker, handle),
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
}

fn place<'a>(directory: &nfs_fh3, name: &'a OsStr) -> diropargs3<'a> {
    diropargs3 { dir: directory.clone(), name: filename3::from(name.as_bytes()) }
}
