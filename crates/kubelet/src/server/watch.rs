//! Waits for a file to grow, by the kernel's word.

use rustix::{
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, WatchFlags},
};
use std::{io, path::Path};
use tokio::io::unix::AsyncFd;

pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Changes from now on are told.
    pub(super) fn new(path: &Path) -> io::Result<Watch> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let told = WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
        inotify::add_watch(&watch, path, told)?;
        // A log that is rotated begins anew under the same name.
        if let Some(directory) = path.parent() {
            inotify::add_watch(&watch, directory, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        }
        // Deprecated for descriptors that somebody could swap; nobody else has this one.
        #[allow(deprecated)]
        Ok(Watch(AsyncFd::new(watch)?))
    }

    /// Returns when something was written since the last time.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let mut ready = self.0.readable_mut().await?;
        // What exactly happened does not matter; the queue must be emptied.
        let mut events = [0u8; 4096];
        while matches!(rustix::io::read(ready.get_inner(), &mut events), Ok(read) if read > 0) {}
        ready.clear_ready();
        Ok(())
    }
}
