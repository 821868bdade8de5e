//! `v1` Event.

use crate::{
    k8s::api::core::v1::Event,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for Event {
    const NAMES: Names =
        Names { plural: "events", singular: "event", short: &["ev"], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/events";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
}
