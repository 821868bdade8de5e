//! `v1` Node.

use crate::{
    k8s::api::core::v1::Node,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for Node {
    const NAMES: Names =
        Names { plural: "nodes", singular: "node", short: &["no"], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/minions";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = false;
}
