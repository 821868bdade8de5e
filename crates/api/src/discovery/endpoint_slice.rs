//! `discovery.k8s.io/v1` EndpointSlice.

use crate::{
    k8s::api::discovery::v1::EndpointSlice,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for EndpointSlice {
    const NAMES: Names =
        Names { plural: "endpointslices", singular: "endpointslice", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/endpointslices";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = true;
}
