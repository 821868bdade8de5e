//! `storage.k8s.io/v1` StorageClass: how volumes are made when a claim asks for one.
//!
//! Upstream: `pkg/apis/storage/validation/validation.go`, `pkg/volume/util/storageclass.go`.

use crate::{
    k8s::api::storage::v1::StorageClass,
    kind::{Column, Kind, Names, Object, Printing, Scope, Subresource},
    meta::{
        absent::fill,
        columns::{age, named, text, truth},
    },
};

/// The annotations that make a class the default, the current one first.
pub const DEFAULT_ANNOTATIONS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

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
    const COLUMNS: &'static [Column<StorageClass>] = &[
        named(|class: &StorageClass, _: &Printing| {
            let mark = if is_default(class) { " (default)" } else { "" };
            format!("{}{mark}", class.name()).into()
        }),
        text("Provisioner", "Who makes the volumes.", |class, _| class.provisioner.as_str().into()),
        text("ReclaimPolicy", "What becomes of volumes without their claim.", |class, _| {
            reclaim_policy(class).into()
        }),
        text("VolumeBindingMode", "When claims get their volumes.", |class, _| {
            class.volume_binding_mode.as_deref().unwrap_or("Immediate").into()
        }),
        text("AllowVolumeExpansion", "Whether claims may grow.", |class, _| {
            truth(class.allow_volume_expansion)
        }),
        age(),
    ];

    fn default(&mut self) {
        fill(&mut self.reclaim_policy, "Delete");
        fill(&mut self.volume_binding_mode, "Immediate");
    }
}

/// Whether claims without a class get this one.
pub fn is_default(class: &StorageClass) -> bool {
    DEFAULT_ANNOTATIONS.iter().any(|it| class.annotation(it) == Some("true"))
}

/// Whether volumes are chosen or made only once a pod that uses the claim has a node.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether claims of this class may grow.
pub fn is_expandable(class: &StorageClass) -> bool {
    class.allow_volume_expansion == Some(true)
}

/// `Delete` unless the class says otherwise.
pub fn reclaim_policy(class: &StorageClass) -> &str {
    class.reclaim_policy.as_deref().unwrap_or("Delete")
}
