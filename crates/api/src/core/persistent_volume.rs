//! `v1` PersistentVolume.

use crate::{
    k8s::api::core::v1::PersistentVolume,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for PersistentVolume {
    const NAMES: Names = Names {
        plural: "persistentvolumes",
        singular: "persistentvolume",
        short: &["pv"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/persistentvolumes";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = false;
}
