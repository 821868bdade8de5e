//! Claims and volumes are born with the finalizer that keeps them while they are used.
//!
//! Upstream: `plugin/pkg/admission/storage/storageobjectinuseprotection/admission.go`.

use super::{Act, Attempt, Plugin};
use api::{
    AnyObject, Failure,
    core::v1::{PersistentVolume, PersistentVolumeClaim},
};

pub(super) const PLUGIN: Plugin = Plugin { name: "StorageObjectInUseProtection", admit };

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let Some(object) = object.filter(|_| attempt.act == Act::Create) else { return Ok(()) };
    let finalizer = if attempt.kind == api::kind_of::<PersistentVolumeClaim>() {
        "kubernetes.io/pvc-protection"
    } else if attempt.kind == api::kind_of::<PersistentVolume>() {
        "kubernetes.io/pv-protection"
    } else {
        return Ok(());
    };
    let finalizers = object.metadata_mut().finalizers.get_or_insert_default();
    if !finalizers.iter().any(|it| it == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
    Ok(())
}
