//! `v1` Secret.

use crate::{
    k8s::api::core::v1::Secret,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for Secret {
    const NAMES: Names =
        Names { plural: "secrets", singular: "secret", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/secrets";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
}
