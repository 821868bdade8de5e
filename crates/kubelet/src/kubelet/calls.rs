//! Volume calls that are carried out on this node.

use super::{Kubelet, Shared};
use ::volumes::{CreateVolume, ExpandVolume, Volume, VolumeError};
use api::core::{persistent_volume_claim as claims, v1::PersistentVolumeClaim};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use world::{CallFailure, Outcome, VolumeCall};

impl Kubelet {
    /// Does what was asked, or says why not; whether asking again can help too.
    pub async fn call(&self, call: &VolumeCall) -> Result<Outcome, CallFailure> {
        self.shared.call(call).await
    }
}

impl Shared {
    pub(crate) async fn call(&self, call: &VolumeCall) -> Result<Outcome, CallFailure> {
        match call {
            VolumeCall::Create {
                plugin,
                claim,
                name,
                bytes,
                access_modes,
                block,
                parameters,
                topology,
            } => {
                let request = CreateVolume {
                    name: name.clone(),
                    claim: Some(claim.to_string()),
                    bytes_min: *bytes,
                    access_modes: access_modes.clone(),
                    block: *block,
                    fs_type: parameters.get("csi.storage.k8s.io/fstype").cloned(),
                    parameters: parameters.clone(),
                    topology: topology.clone(),
                    ..CreateVolume::default()
                };
                let volume = self.asked(plugin)?.create(&request).await.map_err(failure)?;
                Ok(Outcome {
                    handle: volume.handle,
                    bytes: volume.bytes,
                    context: volume.context,
                    topology: volume.topology,
                })
            }
            VolumeCall::Delete { plugin, handle, .. } => {
                self.asked(plugin)?.delete(handle).await.map_err(failure)?;
                Ok(Outcome { handle: handle.clone(), ..Outcome::default() })
            }
            VolumeCall::Expand { plugin, handle, bytes, .. } => {
                let volume = Volume { handle: handle.clone(), ..Volume::default() };
                let request = ExpandVolume { volume, bytes_min: *bytes, ..ExpandVolume::default() };
                let bytes = self.asked(plugin)?.expand(&request).await.map_err(failure)?;
                Ok(Outcome { handle: handle.clone(), bytes, ..Outcome::default() })
            }
            VolumeCall::Scrub { volume, path } => {
                self.scrub(&volume.name, path).await?;
                Ok(Outcome { handle: path.clone(), ..Outcome::default() })
            }
        }
    }

    async fn scrub(&self, volume: &str, path: &str) -> Result<(), CallFailure> {
        let attempt = format!("scrub {path}");
        let Some(turn) = self.scrubs.begin(path) else {
            return Err(again(format!("{attempt}: it is being emptied already")));
        };
        let world = self.client.world();
        let uses = |it: &world::Typed<PersistentVolumeClaim>| {
            claims::volume_name(it) == volume && claims::phase(it) == "Bound"
        };
        if let Some(claim) = world.all::<PersistentVolumeClaim>().find(uses) {
            let claim = world::ObjectKey::of(&*claim);
            return Err(again(format!("{attempt}: claim {claim} is bound to {volume}")));
        }
        let kept = vec![self.data_dir.clone(), self.facts.kubelet_dir.clone()];
        let (volume, path) = (volume.to_owned(), path.to_owned());
        // On a task of its own: it is its turn until it is done, whoever waits for it.
        let done = tokio::spawn(async move {
            let scrubbed = ::volumes::scrub(&volume, Path::new(&path), kept).await;
            drop(turn);
            scrubbed
        });
        match done.await {
            Ok(scrubbed) => scrubbed.map_err(failure),
            Err(error) => Err(again(format!("{attempt}: {error}"))),
        }
    }

    fn asked(&self, plugin: &str) -> Result<&dyn ::volumes::VolumePlugin, CallFailure> {
        let found = self.volumes.plugin(plugin).map(|it| &**it);
        found.ok_or_else(|| {
            never(format!("no volume plugin {plugin} on node {}", self.facts.node_name))
        })
    }
}

fn failure(error: VolumeError) -> CallFailure {
    let retry = match &error {
        VolumeError::Invalid(_) | VolumeError::NotFound => false,
        VolumeError::Pending(_)
        | VolumeError::Exhausted(_)
        | VolumeError::Busy { .. }
        | VolumeError::Driver { .. } => true,
    };
    CallFailure { retry, unknown: false, message: stdx::one_line(&error) }
}

fn never(message: String) -> CallFailure {
    CallFailure { retry: false, unknown: false, message }
}

fn again(message: String) -> CallFailure {
    CallFailure { retry: true, unknown: false, message }
}

/// The directories that are being emptied. Bounded by the volumes of this node.
#[derive(Default)]
pub(crate) struct Scrubs(Mutex<BTreeSet<String>>);

/// One directory's turn; over when it is dropped.
struct Scrub {
    of: Arc<Scrubs>,
    path: String,
}

impl Scrubs {
    /// None while somebody else has it. Nobody waits for his turn: who asked may have gone away meanwhile, and have
    /// asked again, and the volume be in use when the turn comes.
    fn begin(self: &Arc<Self>, path: &str) -> Option<Scrub> {
        let is_free = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        is_free.then(|| Scrub { of: self.clone(), path: path.to_owned() })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.of.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_emptied_by_one_at_a_time() {
        let scrubs = Arc::new(Scrubs::default());
        let first = scrubs.begin("/a").unwrap();
        assert!(scrubs.begin("/a").is_none());
        assert!(scrubs.begin("/b").is_some(), "another one does not wait");
        drop(first);
        assert!(scrubs.begin("/a").is_some());
    }
}
