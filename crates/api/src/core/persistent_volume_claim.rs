//! `v1` PersistentVolumeClaim.

use crate::{
    k8s::api::core::v1::PersistentVolumeClaim,
    kind::{Kind, Names, Scope, Subresource},
};

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
}
