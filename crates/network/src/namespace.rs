//! Work in a network namespace happens on a thread of its own, which ends with the work: a thread
//! that changed its namespace must never go back to a pool.

use crate::{Error, error::Attempted};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::{self, File},
    os::{fd::AsFd, unix::fs::MetadataExt},
    thread,
};
use tokio::sync::oneshot;

/// Runs `work` on a fresh thread in the namespace of the caller's thread.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name("network".to_owned())
        .spawn(move || {
            // Nobody waits any more: the work is done all the same.
            let _unheard = sender.send(work());
        })
        .map_err(|source| Error::Thread(Some(source)))?;
    receiver.await.map_err(|_| Error::Thread(None))?
}

/// Opens the network namespace of a process; refuses the one this thread is in, where an `eth0` of a
/// pod would be put among the host's interfaces.
pub(crate) fn of_process(pid: u32) -> Result<File, Error> {
    let path = format!("/proc/{pid}/ns/net");
    let opening = || format!("opening the network namespace {path}");
    let namespace = File::open(&path).attempted(opening)?;
    let theirs = namespace.metadata().attempted(opening)?;
    let ours = fs::metadata("/proc/thread-self/ns/net").attempted(opening)?;
    if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
        return Err(Error::HostNamespace { pid });
    }
    Ok(namespace)
}

/// Runs `work` in that namespace, on a thread of its own, while this one waits where it is.
pub(crate) fn within<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(Into::into)
                .attempted(|| "entering the network namespace of a pod".to_owned())?;
            work()
        });
        entered.join().unwrap_or(Err(Error::Thread(None)))
    })
}
