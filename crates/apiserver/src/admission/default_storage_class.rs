//! A claim that names no class gets the default one, if there is one.
//!
//! Upstream: `plugin/pkg/admission/storage/storageclass/setdefault/admission.go`.

use super::{Act, Attempt, Plugin};
use api::{
    AnyObject, Failure,
    core::{persistent_volume_claim, v1::PersistentVolumeClaim},
    storage::{storage_class, v1::StorageClass},
};
use std::cmp::Reverse;

pub(super) const PLUGIN: Plugin = Plugin { name: "DefaultStorageClass", admit };

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let claim = object.and_then(|it| (**it).as_any_mut().downcast_mut::<PersistentVolumeClaim>());
    let Some(claim) = claim.filter(|_| attempt.act == Act::Create) else { return Ok(()) };
    if persistent_volume_claim::class(claim).is_some() {
        return Ok(());
    }
    // Of several the newest, then the first by name.
    let classes =
        attempt.view.world.all::<StorageClass>().filter(|it| storage_class::is_default(it));
    let newest = classes.min_by_key(|it| {
        let created = it.metadata.creation_timestamp.as_ref().map(|it| it.0);
        (Reverse(created), it.metadata.name.clone())
    });
    if let (Some(class), Some(spec)) = (newest, claim.spec.as_mut()) {
        spec.storage_class_name.clone_from(&class.metadata.name);
    }
    Ok(())
}
