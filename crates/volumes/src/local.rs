//! The class `local`: each volume is an image file with its own filesystem, on a loop device of exactly its size.
//!
//! Its blocks are reserved when it is made, so that neither a full host nor a neighbour can take them (the parameter
//! `overcommit: "true"` gives that up). The filesystem's UUID is the claim's uid and is checked before every mount: a
//! wrong or missing disk is an error, never an empty directory. ext4 keeps its `lost+found`. Who runs fstrim on a volume
//! gives reserved blocks back; they are reserved again before its next mount.

mod pool;
mod specification;
mod staged;

use crate::{
    Capabilities, Config, CreateVolume, ExpandVolume, PublishVolume, Published, Result,
    StageVolume, Volume, VolumeError, VolumePlugin,
    error::{Attempted, Failure, OnVolume},
    loop_device, mount, ownership, tree,
    work::blocking,
};
use pool::{Pool, Stored};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use stdx::{Backoff, BoxFuture};
use tokio::sync::OwnedMutexGuard;

/// Name of the driver: `spec.csi.driver` of its volumes.
pub const DRIVER: &str = "local.csi.stanchion.dev";
/// A local volume is reachable from the node of this label's value.
pub const TOPOLOGY_KEY: &str = "kubernetes.io/hostname";

/// How often a delete looks whether a loop device is free: 5, 10 … 160 ms. The kernel frees it right after the unmount.
const FREE_ATTEMPTS: u32 = 6;

struct Local {
    inner: Arc<Inner>,
    /// One call for one volume at a time. Bounded by the calls that are under way.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

struct Inner {
    pool: Pool,
    node_name: String,
}

pub(crate) fn open(config: &Config) -> Arc<dyn VolumePlugin> {
    let pool = Pool::open(config.data_dir.join("volumes"));
    let inner = Arc::new(Inner { pool, node_name: config.node_name.clone() });
    Arc::new(Local { inner, locks: Mutex::default() })
}

impl Local {
    async fn lock(&self, handle: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(handle.to_string()).or_default())
        };
        lock.lock_owned().await
    }

    /// Runs `work` alone for its volume, on a thread that may block, to its end even if the caller goes away.
    fn alone<'a, T: Send + 'static>(
        &'a self,
        operation: &'static str,
        handle: &str,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'a, Result<T>> {
        let handle = handle.to_string();
        Box::pin(async move {
            let lock = self.lock(&handle).await;
            let inner = Arc::clone(&self.inner);
            blocking(operation, &handle, move || {
                let result = work(&inner);
                drop(lock);
                result
            })
            .await
        })
    }
}

impl VolumePlugin for Local {
    fn name(&self) -> &str {
        DRIVER
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            create: true,
            attach: false,
            stage: true,
            expand: true,
            expand_online: true,
            snapshot: false,
            block: true,
        }
    }

    fn create<'a>(&'a self, request: &'a CreateVolume) -> BoxFuture<'a, Result<Volume>> {
        let wanted = match specification::of(request, &self.inner.node_name) {
            Ok(wanted) => wanted,
            Err(error) => return Box::pin(async { Err(error) }),
        };
        self.alone("create", &request.name, move |inner| {
            let stored = inner.pool.create(&wanted)?;
            Ok(inner.volume(&stored))
        })
    }

    fn delete<'a>(&'a self, handle: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if !specification::valid_handle(handle) {
                return Ok(());
            }
            let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(160));
            loop {
                let name = handle.to_string();
                let deleted = self.alone("delete", handle, move |inner| inner.delete(&name)).await;
                match deleted {
                    Err(VolumeError::Busy { .. }) if backoff.failures() < FREE_ATTEMPTS => {
                        stdx::sleep(backoff.failed()).await;
                    }
                    other => return other,
                }
            }
        })
    }

    fn stage<'a>(&'a self, request: &'a StageVolume) -> BoxFuture<'a, Result<()>> {
        let request = request.clone();
        let handle = request.volume.handle.clone();
        self.alone("stage", &handle, move |inner| {
            let mut stored = inner.find("stage", &request.volume.handle)?;
            staged::stage(&inner.pool, &mut stored, &request)
        })
    }

    fn unstage<'a>(&'a self, handle: &'a str, staging: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let _lock = self.lock(handle).await;
            mount::unmount(handle, staging).await?;
            let inner = Arc::clone(&self.inner);
            let (name, staging) = (handle.to_string(), staging.to_path_buf());
            blocking("unstage", handle, move || {
                tree::remove_mount_point(&staging).on("unstage", &name)?;
                match inner.find("unstage", &name) {
                    Ok(stored) => staged::release(&stored).on("unstage", &name),
                    // Deleted meanwhile, or its image is gone: there is nothing left to release.
                    Err(_) => Ok(()),
                }
            })
            .await
        })
    }

    fn publish<'a>(&'a self, request: &'a PublishVolume) -> BoxFuture<'a, Result<Published>> {
        let request = request.clone();
        let handle = request.volume.handle.clone();
        self.alone("publish", &handle, move |inner| inner.publish(&request))
    }

    fn unpublish<'a>(&'a self, handle: &'a str, target: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let _lock = self.lock(handle).await;
            mount::unmount(handle, target).await?;
            let (name, target) = (handle.to_string(), target.to_path_buf());
            blocking("unpublish", handle, move || {
                tree::remove_mount_point(&target).on("unpublish", &name)
            })
            .await
        })
    }

    fn expand<'a>(&'a self, request: &'a ExpandVolume) -> BoxFuture<'a, Result<u64>> {
        let request = request.clone();
        let handle = request.volume.handle.clone();
        self.alone("expand", &handle, move |inner| {
            let handle = &request.volume.handle;
            let mut stored = inner.find("expand", handle)?;
            let filesystem = stored.record.filesystem().on("expand", handle)?;
            let bytes = specification::size(request.bytes_min, request.bytes_max, filesystem)?;
            if bytes > stored.record.bytes {
                inner.pool.expand(&mut stored, bytes)?;
            }
            staged::grow(&inner.pool, &mut stored)?;
            Ok(stored.record.bytes)
        })
    }
}

impl Inner {
    fn find(&self, operation: &'static str, handle: &str) -> Result<Stored> {
        if !specification::valid_handle(handle) {
            return Err(VolumeError::NotFound);
        }
        self.pool.find(operation, handle)
    }

    fn volume(&self, stored: &Stored) -> Volume {
        Volume {
            handle: stored.record.handle.clone(),
            bytes: stored.record.bytes,
            context: BTreeMap::new(),
            topology: [(TOPOLOGY_KEY.to_string(), self.node_name.clone())].into(),
        }
    }

    fn delete(&self, handle: &str) -> Result<()> {
        match self.pool.find("delete", handle) {
            Err(VolumeError::NotFound) => return Ok(()),
            Ok(stored) => {
                let holders = staged::holders(&stored.image).on("delete", handle)?;
                if !holders.is_empty() {
                    return Err(VolumeError::Busy { volume: handle.to_string(), holders });
                }
            }
            // Its image or record is damaged: what is left can go.
            Err(error) => tracing::warn!(error = stdx::one_line(&error), "deleting nevertheless"),
        }
        self.pool.delete(handle).on("delete", handle)
    }

    fn publish(&self, request: &PublishVolume) -> Result<Published> {
        let handle = &request.volume.handle;
        let stored = self.find("publish", handle)?;
        let not_staged =
            |what: String| VolumeError::Pending(format!("volume {handle} is not staged: {what}"));
        let image = fs::metadata(&stored.image)
            .attempted(|| format!("stat {}", stored.image.display()))
            .on("publish", handle)?;
        let devices = loop_device::attached(&image, &stored.image).on("publish", handle)?;
        let Some(device) = devices.first() else {
            return Err(not_staged("no loop device has its image".to_string()));
        };
        let read_only = request.read_only;
        if stored.record.filesystem().on("publish", handle)?.is_none() {
            return Ok(Published { host_path: device.path(), read_only });
        }
        let Some(staging) = &request.staging else {
            return Err(VolumeError::Invalid(format!("publish of {handle} names no staging path")));
        };
        let at = |path: &Path| {
            mount::mounted_at(path)
                .attempted(|| format!("look for {}", path.display()))
                .on("publish", handle)
        };
        let staged = at(staging)?.filter(|entry| staged::is_of(entry, device));
        let Some(staged) = staged else {
            return Err(not_staged(format!("it is not mounted at {}", staging.display())));
        };
        let published = Published { host_path: request.target.clone(), read_only };
        match at(&request.target)? {
            Some(entry) if entry.device == staged.device => return Ok(published),
            Some(entry) => {
                let text = format!(
                    "{} is mounted at {}",
                    entry.source.display(),
                    request.target.display()
                );
                return Err(Failure::new(text)).on("publish", handle);
            }
            None => {}
        }
        // Before the bind: what is bound is finished, also after a crash in between.
        if !read_only {
            ownership::apply(staging, &request.pod, false).on("publish", handle)?;
        }
        tree::make(&request.target, 0o750)
            .and_then(|()| mount::bind(staging, &request.target, read_only))
            .on("publish", handle)?;
        Ok(published)
    }
}
