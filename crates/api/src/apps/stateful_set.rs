//! `apps/v1` StatefulSet.

use crate::{
    k8s::api::apps::v1::StatefulSet,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for StatefulSet {
    const NAMES: Names = Names {
        plural: "statefulsets",
        singular: "statefulset",
        short: &["sts"],
        categories: &["all"],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/statefulsets";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status, Subresource::Scale];
    const GENERATION: bool = true;
}
