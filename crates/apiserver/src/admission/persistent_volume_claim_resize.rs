//! A claim grows only if it is bound and its class allows that.
//!
//! Upstream: `plugin/pkg/admission/storage/persistentvolume/resize/admission.go`.

use super::{Act, Attempt, Plugin};
use api::{
    AnyObject, Failure,
    core::{persistent_volume_claim as claims, v1::PersistentVolumeClaim},
    storage::{storage_class, v1::StorageClass},
};

pub(super) const PLUGIN: Plugin = Plugin { name: "PersistentVolumeClaimResize", admit };

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let claim = object.and_then(|it| (**it).as_any().downcast_ref::<PersistentVolumeClaim>());
    let old = attempt.old.and_then(|it| it.as_any().downcast_ref::<PersistentVolumeClaim>());
    let (Some(claim), Some(old), Act::Update) = (claim, old, attempt.act) else { return Ok(()) };
    if claims::requested(claim).units() <= claims::requested(old).units() {
        return Ok(());
    }
    let refuse = |why| Err(Failure::forbidden(attempt.kind, &attempt.key.name, why));
    if claims::phase(old) != claims::BOUND {
        return refuse("Only bound persistent volume claims can be expanded");
    }
    let class = claims::class(claim).filter(|it| claims::class(old) == Some(it));
    let class = class.and_then(|it| attempt.view.world.cluster::<StorageClass>(it));
    if !class.is_some_and(|it| storage_class::is_expandable(&it)) {
        return refuse(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions \
             the pvc must support resize",
        );
    }
    Ok(())
}
