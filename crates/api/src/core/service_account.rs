//! `v1` ServiceAccount: a name under which pods act.
//!
//! Upstream: `pkg/registry/core/serviceaccount/strategy.go`.

use crate::{
    k8s::api::core::v1::{ObjectReference, ServiceAccount},
    kind::{Column, Kind, Names, Object, Scope, Subresource},
    meta::columns::{age, name},
};

/// On accounts whose pods may mount no secrets but those that the account names. Upstream gives it up.
const MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

impl Kind for ServiceAccount {
    const NAMES: Names = Names {
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short: &["sa"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/serviceaccounts";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Token];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<ServiceAccount>] = &[name(), age()];

    fn prepare_create(&mut self) {
        name_secrets_only(self);
    }

    fn prepare_update(&mut self, _old: &ServiceAccount) {
        name_secrets_only(self);
    }

    fn warnings(&self, old: Option<&ServiceAccount>) -> Vec<String> {
        let before = old.is_some_and(|it| it.annotation(MOUNTABLE_SECRETS).is_some());
        if before || self.annotation(MOUNTABLE_SECRETS).is_none() {
            return Vec::new();
        }
        let what =
            "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        vec![format!("metadata.annotations[{MOUNTABLE_SECRETS}]: {what}")]
    }
}

/// Of a reference to a secret only the name is kept.
fn name_secrets_only(account: &mut ServiceAccount) {
    for secret in account.secrets.iter_mut().flatten() {
        *secret = ObjectReference { name: secret.name.take(), ..ObjectReference::default() };
    }
}
