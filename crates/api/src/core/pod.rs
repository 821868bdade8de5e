//! `v1` Pod.

use crate::{
    k8s::api::core::v1::Pod,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for Pod {
    const NAMES: Names =
        Names { plural: "pods", singular: "pod", short: &["po"], categories: &["all"] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/pods";
    const SUBRESOURCES: &'static [Subresource] = &[
        Subresource::Status,
        Subresource::Binding,
        Subresource::Eviction,
        Subresource::Log,
        Subresource::Exec,
        Subresource::Attach,
    ];
    const GENERATION: bool = true;
}
