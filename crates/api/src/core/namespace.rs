//! `v1` Namespace.

use crate::{
    k8s::api::core::v1::Namespace,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for Namespace {
    const NAMES: Names =
        Names { plural: "namespaces", singular: "namespace", short: &["ns"], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/namespaces";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status, Subresource::Finalize];
    const GENERATION: bool = false;
}
