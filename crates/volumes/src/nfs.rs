//! nfs: a directory of an NFS server, v3 or v4, for as many pods and nodes as like.
//!
//! Whatever talks to the server is a program with a deadline: a server that is dead delays only the volumes that lie on
//! it. Upstream: pkg/volume/nfs/nfs.go (1.36). Deviation: what a dead server keeps mounted is forced off, and in the
//! last resort detached.

mod directory;
pub mod helper;
mod mounting;
pub(crate) mod share;
pub mod userspace;

use crate::{
    Config, PublishVolume, Published, Result, Stats, VolumeError, VolumePlugin,
    error::{Attempt, Attempted, Failure, OnVolume},
    mount, program, tree,
    work::blocking,
};
use rustix::fs::{Mode, OFlags};
use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use stdx::BoxFuture;

pub(crate) const NAME: &str = "kubernetes.io/nfs";

/// Each of the three ways to get rid of a mount. Together less than the minute that a pod may take to go.
const UNMOUNT_MAX: Duration = Duration::from_secs(10);

/// A server that lives answers this in a moment.
const STATS_MAX: Duration = Duration::from_secs(3);

/// A volume whose server did not answer is not measured again for so long.
const UNANSWERED: Duration = Duration::from_secs(60);

struct Nfs {
    /// Handle → when its server did not answer. Bounded: entries that have aged are dropped.
    unanswered: Mutex<HashMap<String, Instant>>,
    /// Target → its root: a mount that is held stays where it is when it is forced, and can be forced again. Bounded by
    /// the volumes that are published; those of an earlier process are not held.
    held: Mutex<HashMap<PathBuf, OwnedFd>>,
}

pub(crate) fn open(_: &Config) -> Arc<dyn VolumePlugin> {
    Arc::new(Nfs { unanswered: Mutex::default(), held: Mutex::default() })
}

impl VolumePlugin for Nfs {
    fn name(&self) -> &str {
        NAME
    }

    /// `volume.context`: `server` and `path`.
    fn publish<'a>(&'a self, request: &'a PublishVolume) -> BoxFuture<'a, Result<Published>> {
        let owned = request.clone();
        Box::pin(async move {
            let work = move || publish(&owned);
            let (published, root) = blocking("publish", &request.volume.handle, work).await?;
            if let Some(root) = root {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                held.insert(request.target.clone(), root);
            }
            Ok(published)
        })
    }

    fn remark(&self, request: &PublishVolume) -> Option<String> {
        let is_here = userspace::is_mounted(&request.target);
        is_here.then(|| mounting::in_userspace(&options(request)))
    }

    fn abort<'a>(&'a self, handle: &'a str, target: &'a Path) -> BoxFuture<'a, Result<()>> {
        let (name, target) = (handle.to_owned(), target.to_owned());
        Box::pin(blocking("abort", handle, move || abort(&target).on("abort", &name)))
    }

    fn unpublish<'a>(&'a self, handle: &'a str, target: &'a Path) -> BoxFuture<'a, Result<()>> {
        drop(self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(target));
        let (name, target) = (handle.to_owned(), target.to_owned());
        Box::pin(blocking("unpublish", handle, move || remove(&target).on("unpublish", &name)))
    }

    fn stats<'a>(&'a self, handle: &'a str, path: &'a Path) -> BoxFuture<'a, Result<Stats>> {
        Box::pin(async move {
            if self.is_unanswered(handle) {
                let text = format!("the server of volume {handle} did not answer a moment ago");
                return Err(VolumeError::Pending(text));
            }
            let (name, path) = (handle.to_owned(), path.to_owned());
            let measured =
                blocking("measure", handle, move || measure(&path).on("measure", &name)).await;
            if measured.is_err() {
                let mut all = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(handle.to_owned(), Instant::now());
            }
            measured
        })
    }
}

impl Nfs {
    fn is_unanswered(&self, handle: &str) -> bool {
        let mut all = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, at| at.elapsed() < UNANSWERED);
        all.contains_key(handle)
    }
}

/// With the root of a mount that the kernel made just now.
fn publish(request: &PublishVolume) -> Result<(Published, Option<OwnedFd>)> {
    let (handle, target) = (&request.volume.handle, &request.target);
    let published = Published { host_path: target.clone(), read_only: request.read_only };
    // Before anything that looks at the target itself: its server may be dead.
    if is_mounted(target).on("publish", handle)? {
        return Ok((published, None));
    }
    let field = |name: &str| request.volume.context.get(name).map_or("", String::as_str);
    let source = mounting::source(field("server"), field("path"))?;
    tree::make(target, 0o750).on("publish", handle)?;
    let mounted = mounting::mount_nfs(&source, target, &options(request), false);
    if mounted.is_err() {
        // Best effort: the next try makes it again, and the pod's end removes it.
        let _not_empty = tree::remove_mount_point(target);
    }
    mounted.on("publish", handle)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = match userspace::is_mounted(target) {
        true => None,
        // Without it a mount is forced once.
        false => rustix::fs::open(target, flags, Mode::empty()).ok(),
    };
    Ok((published, root))
}

/// Those of the volume, each once; `ro` where nothing is to be written.
fn options(request: &PublishVolume) -> String {
    let read_only = request.read_only.then_some("ro");
    let given = request.mount_options.iter().map(String::as_str);
    mounting::joined(read_only.into_iter().chain(given))
}

/// What was written and not sent yet keeps a killed process until the server is back, and with it the mount. A forced
/// unmount ends the calls under way; of a mount that is held it does no more, and may be repeated.
fn abort(target: &Path) -> Attempt<()> {
    let Some(own) =
        mount::mounted_at(target).attempted(|| format!("look for {}", target.display()))?
    else {
        return Ok(());
    };
    // The kernel's client is one for all mounts of a share: others may want to wait for the server.
    let all = mount::mounts().attempted(|| "read the mount table".to_owned())?;
    // pods/UID/volumes/PLUGIN/NAME
    let pod = target.ancestors().nth(3).unwrap_or(target);
    let others = |it: &&mount::MountEntry| it.device == own.device && !it.point.starts_with(pod);
    if let Some(other) = all.iter().find(others) {
        return Err(Failure::new(format!("{} waits for the same server", other.point.display())));
    }
    if answers(target) {
        return Ok(());
    }
    let text = target.to_string_lossy();
    let ended = program::run("umount", "mount", &["-i", "-c", "-f", &*text], UNMOUNT_MAX)?;
    tracing::warn!(target = %target.display(), said = ended.output, "end the calls to a dead NFS server");
    Ok(())
}

fn remove(target: &Path) -> Attempt<()> {
    let text = target.to_string_lossy().into_owned();
    // The program asks the kernel and nobody else: no helper, no look at the path.
    let ways: [&[&str]; 3] = [&["-i", "-c"], &["-i", "-c", "-f"], &["-i", "-c", "-l"]];
    let mut last = None;
    for way in ways {
        if !is_mounted(target)? {
            return tree::remove_mount_point(target);
        }
        let arguments: Vec<&str> = way.iter().copied().chain([&*text]).collect();
        let done = program::run_ok("umount", "mount", &arguments, UNMOUNT_MAX);
        if let Err(error) = done {
            let busy = error.to_string().contains("busy");
            tracing::warn!(target = %target.display(), %error, "unmount NFS");
            last = Some(error);
            // Somebody uses it and its server answers: it is waited for, and never torn away.
            if busy && answers(target) {
                break;
            }
        }
    }
    if !is_mounted(target)? {
        return tree::remove_mount_point(target);
    }
    Err(last.unwrap_or_else(|| Failure::new(format!("{text} is still mounted"))))
}

fn answers(target: &Path) -> bool {
    measure(target).is_ok()
}

fn is_mounted(target: &Path) -> Attempt<bool> {
    let found = mount::mounted_at(target).attempted(|| format!("look for {}", target.display()))?;
    Ok(found.is_some())
}

/// statvfs, by a program that can be killed.
fn measure(path: &Path) -> Attempt<Stats> {
    let text = path.to_string_lossy();
    let arguments = ["-f", "-c", "%S %b %f %a %c %d", &*text];
    let ended = program::run("stat", "coreutils", &arguments, STATS_MAX)?;
    if ended.code != Some(0) {
        return Err(program::failed("stat", &arguments, &ended));
    }
    stats_of(&ended.output)
        .ok_or_else(|| Failure::new(format!("stat of {text} answers {:?}", ended.output)))
}

fn stats_of(output: &str) -> Option<Stats> {
    let numbers: Vec<u64> =
        output.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    let [size, blocks, free, available, files, files_free] = numbers[..] else { return None };
    Some(Stats {
        bytes_total: blocks * size,
        bytes_used: blocks.saturating_sub(free) * size,
        bytes_available: available * size,
        inodes_total: files,
        inodes_used: files.saturating_sub(files_free),
        inodes_free: files_free,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_as_they_are_each_once() {
        let mount_options = vec!["hard".into(), "nfsvers=4.1,hard".into(), String::new()];
        let mut request = PublishVolume { mount_options, ..PublishVolume::default() };
        assert_eq!(options(&request), "hard,nfsvers=4.1");
        request.read_only = true;
        assert_eq!(options(&request), "ro,hard,nfsvers=4.1");
    }

    #[test]
    fn figures_are_read_as_the_program_prints_them() {
        let stats = stats_of("4096 100 60 50 1000 900").unwrap();
        assert_eq!((stats.bytes_total, stats.bytes_used), (409_600, 163_840));
        assert_eq!((stats.bytes_available, stats.inodes_used), (204_800, 100));
        assert_eq!(stats_of("4096 x"), None);
        assert!(measure(Path::new("/")).is_ok());
    }
}
