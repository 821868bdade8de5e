//! `v1` PersistentVolumeClaim: what someone asks of a volume.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, `pkg/registry/core/persistentvolumeclaim`.

use crate::{
    k8s::api::core::v1::PersistentVolumeClaim,
    kind::{Kind, Names, Object, Scope, Subresource},
    meta::Exact,
};

/// The class by annotation, which old clients write; it wins over the field.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub const PENDING: &str = "Pending";
pub const BOUND: &str = "Bound";
pub const LOST: &str = "Lost";

impl Kind for PersistentVolumeClaim {
    const NAMES: Names = Names {
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short: &["pvc"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/persistentvolumeclaims";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = false;

    fn index_keys(&self) -> Vec<(&'static str, String)> {
        vec![
            ("volume", volume_name(self).to_owned()),
            ("class", class(self).unwrap_or_default().to_owned()),
        ]
    }
}

/// The class asked for. `None`: none was named, so the default class may be filled in. `Some("")`:
/// explicitly none.
pub fn class(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.annotation(CLASS_ANNOTATION).or(claim.spec.as_ref()?.storage_class_name.as_deref())
}

/// Bytes asked for.
pub fn requested(claim: &PersistentVolumeClaim) -> Exact {
    let requests = || claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage");
    requests().map(Exact::of).unwrap_or_default()
}

/// Access modes asked for.
pub fn access_modes(claim: &PersistentVolumeClaim) -> &[String] {
    claim.spec.as_ref().and_then(|it| it.access_modes.as_deref()).unwrap_or_default()
}

/// `Filesystem` unless the claim says otherwise.
pub fn volume_mode(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|it| it.volume_mode.as_deref()).unwrap_or("Filesystem")
}

/// The volume that the claim names; empty while it names none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|it| it.volume_name.as_deref()).unwrap_or_default()
}

/// The phase; empty on an object that was never stored.
pub fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or_default()
}
