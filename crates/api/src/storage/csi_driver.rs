//! `storage.k8s.io/v1` CSIDriver.

use crate::{
    k8s::api::storage::v1::CSIDriver,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for CSIDriver {
    const NAMES: Names =
        Names { plural: "csidrivers", singular: "csidriver", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/csidrivers";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
}
