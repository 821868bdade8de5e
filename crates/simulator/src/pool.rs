//! A pool of volumes that are names and sizes.

use manager::Volumes;
use std::{collections::BTreeMap, sync::Mutex};
use stdx::BoxFuture;
use world::{CallFailure, Outcome, Place, VolumeCall};

#[derive(Default)]
pub struct Pool {
    volumes: Mutex<BTreeMap<String, u64>>,
}

impl Pool {
    /// What is there: handle → bytes.
    pub fn volumes(&self) -> BTreeMap<String, u64> {
        self.volumes.lock().expect("no panic while held").clone()
    }
}

impl Volumes for Pool {
    fn call<'a>(
        &'a self,
        _place: &'a Place,
        call: &'a VolumeCall,
    ) -> BoxFuture<'a, Result<Outcome, CallFailure>> {
        let mut volumes = self.volumes.lock().expect("no panic while held");
        let outcome = match call {
            VolumeCall::Create { name, bytes, topology, .. } => {
                let bytes = *volumes.entry(name.clone()).or_insert(*bytes);
                let topology = topology.clone();
                Outcome { handle: name.clone(), bytes, topology, ..Outcome::default() }
            }
            VolumeCall::Delete { handle, .. } => {
                volumes.remove(handle);
                Outcome::default()
            }
            VolumeCall::Expand { handle, bytes, .. } => {
                volumes.insert(handle.clone(), *bytes);
                Outcome { handle: handle.clone(), bytes: *bytes, ..Outcome::default() }
            }
            VolumeCall::Scrub { .. } => Outcome::default(),
        };
        Box::pin(async move { Ok(outcome) })
    }
}
