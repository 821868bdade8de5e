//! Volumes whose mounts are directories.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
};
use stdx::BoxFuture;
use volumes::{Capabilities, PublishVolume, Published, StageVolume, VolumeError, VolumePlugin};

/// A plugin whose mounts are directories.
pub(crate) struct FakePlugin {
    pub(crate) name: &'static str,
    pub(crate) stages: bool,
    pub(crate) failures: Mutex<u32>,
    pub(crate) staged: Mutex<BTreeSet<String>>,
    pub(crate) published: Mutex<BTreeSet<String>>,
    /// Told that nobody waits for it any more.
    pub(crate) aborted: tokio::sync::Notify,
}

impl FakePlugin {
    pub(crate) fn new(name: &'static str, stages: bool) -> Arc<FakePlugin> {
        Arc::new(FakePlugin {
            name,
            stages,
            failures: Mutex::default(),
            staged: Mutex::default(),
            published: Mutex::default(),
            aborted: tokio::sync::Notify::new(),
        })
    }
}

impl VolumePlugin for FakePlugin {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { stage: self.stages, ..Capabilities::default() }
    }

    fn stage<'a>(&'a self, request: &'a StageVolume) -> BoxFuture<'a, volumes::Result<()>> {
        Box::pin(async move {
            self.staged.lock().unwrap().insert(request.volume.handle.clone());
            Ok(())
        })
    }

    fn unstage<'a>(&'a self, handle: &'a str, _: &'a Path) -> BoxFuture<'a, volumes::Result<()>> {
        Box::pin(async move {
            self.staged.lock().unwrap().remove(handle);
            Ok(())
        })
    }

    fn publish<'a>(
        &'a self,
        request: &'a PublishVolume,
    ) -> BoxFuture<'a, volumes::Result<Published>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            {
                let mut failures = self.failures.lock().unwrap();
                if *failures > 0 {
                    *failures -= 1;
                    return Err(VolumeError::Pending("the disk is asleep".to_owned()));
                }
            }
            let handle = &request.volume.handle;
            let staged = self.staged.lock().unwrap().contains(handle);
            assert!(!self.stages || staged, "{handle} is staged first");
            std::fs::create_dir_all(&request.target).unwrap();
            for (name, file) in request.files.iter().flatten() {
                std::fs::write(request.target.join(name), &file.data).unwrap();
            }
            self.published.lock().unwrap().insert(request.target.display().to_string());
            Ok(Published { host_path: request.target.clone(), read_only: request.read_only })
        })
    }

    fn abort<'a>(&'a self, _: &'a str, _: &'a Path) -> BoxFuture<'a, volumes::Result<()>> {
        Box::pin(async move {
            self.aborted.notify_one();
            Ok(())
        })
    }

    fn unpublish<'a>(&'a self, _: &'a str, target: &'a Path) -> BoxFuture<'a, volumes::Result<()>> {
        Box::pin(async move {
            self.published.lock().unwrap().remove(&target.display().to_string());
            match std::fs::remove_dir_all(target) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                Ok(()) | Err(_) => Ok(()),
            }
        })
    }
}
