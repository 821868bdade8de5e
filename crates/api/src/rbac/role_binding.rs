//! `rbac.authorization.k8s.io/v1` RoleBinding: gives a role to somebody in one namespace.
//!
//! Upstream: `pkg/apis/rbac/validation/validation.go`, ValidateRoleBinding and Update.

use super::reference;
use crate::{
    field::Errors,
    k8s::api::rbac::v1::RoleBinding,
    kind::{Column, Kind, Names, Scope},
    meta::{
        absent::list,
        columns::{age, name, text, wide},
        names,
    },
};

impl Kind for RoleBinding {
    const NAMES: Names =
        Names { plural: "rolebindings", singular: "rolebinding", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/rolebindings";
    const COLUMNS: &'static [Column<RoleBinding>] = &[
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
        reference::validate(&self.role_ref, &["ClusterRole", "Role"], subjects, true, errors);
    }

    fn validate_update(&self, old: &RoleBinding, errors: &mut Errors) {
        reference::validate_update(&self.role_ref, &old.role_ref, errors);
    }

    fn validate_name(name: &str, errors: &mut Errors) {
        names::path_segment("metadata.name", name, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::json;

    fn binding(role: &str) -> RoleBinding {
        let mut binding: RoleBinding = from_value(&json!({
            "metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "Role", "name": role},
            "subjects": [
                {"kind": "User", "name": "jane"},
                {"kind": "ServiceAccount", "name": "s", "namespace": "a"},
            ],
        }))
        .unwrap();
        <RoleBinding as Kind>::default(&mut binding);
        binding
    }

    #[test]
    fn its_role_is_for_good() {
        let old = binding("r");
        assert_eq!(row(&old), "b | Role/r | <unknown> | jane |  | a/s");
        let mut errors = Errors::default();
        old.validate(&mut errors);
        assert_eq!(errors.message(), "");
        binding("q").validate_update(&old, &mut errors);
        assert_eq!(
            errors.message(),
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"q\"}: cannot change roleRef"
        );
    }

    #[test]
    fn its_subjects_are_of_known_kinds() {
        let mut it = binding("r");
        it.subjects.as_mut().unwrap()[0].kind = "Robot".to_owned();
        let mut errors = Errors::default();
        it.validate(&mut errors);
        assert_eq!(
            errors.message(),
            "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\""
        );
    }
}
