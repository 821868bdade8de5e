//! `storage.k8s.io/v1` CSINode.

use crate::{
    k8s::api::storage::v1::CSINode,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for CSINode {
    const NAMES: Names =
        Names { plural: "csinodes", singular: "csinode", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/csinodes";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
}
