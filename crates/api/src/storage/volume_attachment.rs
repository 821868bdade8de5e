//! `storage.k8s.io/v1` VolumeAttachment.

use crate::{
    k8s::api::storage::v1::VolumeAttachment,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for VolumeAttachment {
    const NAMES: Names = Names {
        plural: "volumeattachments",
        singular: "volumeattachment",
        short: &[],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/volumeattachments";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = false;
}
