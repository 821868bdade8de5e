//! `v1` Service.

use crate::{
    k8s::api::core::v1::Service,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for Service {
    const NAMES: Names =
        Names { plural: "services", singular: "service", short: &["svc"], categories: &["all"] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/services/specs";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = false;
}
