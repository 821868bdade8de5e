//! `v1` Endpoints.

use crate::{
    k8s::api::core::v1::Endpoints,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for Endpoints {
    const NAMES: Names =
        Names { plural: "endpoints", singular: "endpoints", short: &["ep"], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/services/endpoints";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
}
