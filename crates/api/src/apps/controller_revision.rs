//! `apps/v1` ControllerRevision.

use crate::{
    k8s::api::apps::v1::ControllerRevision,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for ControllerRevision {
    const NAMES: Names = Names {
        plural: "controllerrevisions",
        singular: "controllerrevision",
        short: &[],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/controllerrevisions";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
}
