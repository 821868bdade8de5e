//! `storage.k8s.io/v1` StorageClass.

use crate::{
    k8s::api::storage::v1::StorageClass,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for StorageClass {
    const NAMES: Names = Names {
        plural: "storageclasses",
        singular: "storageclass",
        short: &["sc"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/storageclasses";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
}
