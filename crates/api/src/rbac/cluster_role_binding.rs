//! `rbac.authorization.k8s.io/v1` ClusterRoleBinding: gives a role to somebody everywhere.
//!
//! Upstream: `pkg/apis/rbac/validation/validation.go`, ValidateClusterRoleBinding and Update.

use super::reference;
use crate::{
    field::Errors,
    k8s::api::rbac::v1::ClusterRoleBinding,
    kind::{Column, Kind, Names, Scope},
    meta::{
        absent::list,
        columns::{age, name, text, wide},
        names,
    },
};

impl Kind for ClusterRoleBinding {
    const NAMES: Names = Names {
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        short: &[],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/clusterrolebindings";
    const COLUMNS: &'static [Column<ClusterRoleBinding>] = &[
        name(),
        text("Role", "The role that is given.", |it, _| reference::shown(&it.role_ref).into()),
        age(),
        wide("Users", "Users who get it.", |it, _| reference::named(&it.subjects, "User").into()),
        wide("Groups", "Groups that get it.", |it, _| {
            reference::named(&it.subjects, "Group").into()
        }),
        wide("ServiceAccounts", "Service accounts that get it.", |it, _| {
            reference::named(&it.subjects, "ServiceAccount").into()
        }),
    ];

    fn default(&mut self) {
        reference::default(&mut self.role_ref, &mut self.subjects);
    }

    fn validate(&self, errors: &mut Errors) {
        let subjects = list(&self.subjects);
        reference::validate(&self.role_ref, &["ClusterRole"], subjects, false, errors);
    }

    fn validate_update(&self, old: &ClusterRoleBinding, errors: &mut Errors) {
        reference::validate_update(&self.role_ref, &old.role_ref, errors);
    }

    fn validate_name(name: &str, errors: &mut Errors) {
        names::path_segment("metadata.name", name, errors);
    }
}
