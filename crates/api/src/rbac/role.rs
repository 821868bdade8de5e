//! `rbac.authorization.k8s.io/v1` Role: what may be done in one namespace.
//!
//! Upstream: `pkg/apis/rbac/validation/validation.go`, ValidateRole.

use super::rule;
use crate::{
    field::Errors,
    k8s::api::rbac::v1::Role,
    kind::{Column, Kind, Names, Scope},
    meta::{
        absent::list,
        columns::{name, text},
        names,
    },
};

impl Kind for Role {
    const NAMES: Names = Names { plural: "roles", singular: "role", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/roles";
    const COLUMNS: &'static [Column<Role>] = &[
        name(),
        text("Created At", "When it was made.", |role, _| {
            let created = role.metadata.creation_timestamp.as_ref();
            created.map(|it| it.0.to_string()).unwrap_or_default().into()
        }),
    ];

    fn validate(&self, errors: &mut Errors) {
        rule::validate(list(&self.rules), true, errors);
    }

    fn validate_name(name: &str, errors: &mut Errors) {
        names::path_segment("metadata.name", name, errors);
    }
}
