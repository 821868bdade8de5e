//! `v1` ConfigMap.

use crate::{
    k8s::api::core::v1::ConfigMap,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for ConfigMap {
    const NAMES: Names =
        Names { plural: "configmaps", singular: "configmap", short: &["cm"], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/configmaps";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
}
