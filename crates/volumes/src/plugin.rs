//! The plug point: CSI's verbs for every kind of volume.

use crate::{
    CreateVolume, ExpandVolume, PublishVolume, Published, Result, StageVolume, Stats, Volume,
    VolumeError, work,
};
use std::{collections::BTreeMap, path::Path};
use stdx::BoxFuture;

/// What a plugin can do. Callers look here first, instead of calling and seeing what fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub create: bool,
    /// `attach` and `detach` are needed before `stage`.
    pub attach: bool,
    /// `stage` and `unstage` are needed around the first and the last `publish` on a node.
    pub stage: bool,
    pub expand: bool,
    /// `expand` works while published.
    pub expand_online: bool,
    pub snapshot: bool,
    /// `volumeMode: Block`.
    pub block: bool,
}

/// One kind of volume. All calls are idempotent: the same call twice has the effect of one.
///
/// Calls for one volume wait for each other. A dropped future does not stop work that began.
pub trait VolumePlugin: Send + Sync {
    fn name(&self) -> &str;

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// `Exhausted` without space; `Invalid` for an unknown parameter or another request of the same name.
    fn create<'a>(&'a self, request: &'a CreateVolume) -> BoxFuture<'a, Result<Volume>> {
        unsupported(self.name(), "create", &request.name)
    }

    /// Ok when it is gone, also if it never was. `Busy` while in use.
    fn delete<'a>(&'a self, handle: &'a str) -> BoxFuture<'a, Result<()>> {
        unsupported(self.name(), "delete", handle)
    }

    /// Answers what `stage` on that node needs to know.
    fn attach<'a>(
        &'a self,
        volume: &'a Volume,
        _node: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>>> {
        unsupported(self.name(), "attach", &volume.handle)
    }

    fn detach<'a>(&'a self, handle: &'a str, _node: &'a str) -> BoxFuture<'a, Result<()>> {
        unsupported(self.name(), "detach", handle)
    }

    fn stage<'a>(&'a self, request: &'a StageVolume) -> BoxFuture<'a, Result<()>> {
        unsupported(self.name(), "stage", &request.volume.handle)
    }

    /// `Busy` while something still uses the staging mount.
    fn unstage<'a>(&'a self, handle: &'a str, _staging: &'a Path) -> BoxFuture<'a, Result<()>> {
        unsupported(self.name(), "unstage", handle)
    }

    /// Makes the volume readable for one pod. The only call, with `unpublish`, that every plugin answers.
    fn publish<'a>(&'a self, request: &'a PublishVolume) -> BoxFuture<'a, Result<Published>>;

    /// What the pod's user should know of how a volume was published, if anything.
    fn remark(&self, _request: &PublishVolume) -> Option<String> {
        None
    }

    /// The pod's processes were killed and do not end: what they wait for at `target` may be given up, and ends with
    /// errors for them. Nothing to give up is fine.
    fn abort<'a>(&'a self, _handle: &'a str, _target: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Undoes `publish` at `target`; volumes that live with their pod lose their data.
    fn unpublish<'a>(&'a self, handle: &'a str, target: &'a Path) -> BoxFuture<'a, Result<()>>;

    /// Grows a volume; answers its bytes. `Pending` says when the filesystem will follow.
    fn expand<'a>(&'a self, request: &'a ExpandVolume) -> BoxFuture<'a, Result<u64>> {
        unsupported(self.name(), "expand", &request.volume.handle)
    }

    /// `path`: what `publish` answered.
    fn stats<'a>(&'a self, handle: &'a str, path: &'a Path) -> BoxFuture<'a, Result<Stats>> {
        work::stats(handle, path)
    }
}

fn unsupported<'a, T: Send + 'a>(
    plugin: &str,
    operation: &'static str,
    volume: &str,
) -> BoxFuture<'a, Result<T>> {
    let error = VolumeError::Invalid(format!("plugin {plugin} cannot {operation} volume {volume}"));
    Box::pin(async move { Err(error) })
}
