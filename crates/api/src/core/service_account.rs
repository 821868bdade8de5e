//! `v1` ServiceAccount.

use crate::{
    k8s::api::core::v1::ServiceAccount,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for ServiceAccount {
    const NAMES: Names = Names {
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short: &["sa"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/serviceaccounts";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
}
