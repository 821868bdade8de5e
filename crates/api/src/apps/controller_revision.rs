//! `apps/v1` ControllerRevision: what a template once was.
//!
//! Upstream: `pkg/apis/apps/validation/validation.go`, ValidateControllerRevisionCreate and Update.

use crate::{
    field::Errors,
    k8s::api::apps::v1::ControllerRevision,
    kind::{Cell, Column, Kind, Names, Scope, Subresource},
    meta::{
        columns::{NONE, age, name, text},
        names,
    },
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
    const COLUMNS: &'static [Column<ControllerRevision>] = &[
        name(),
        text("Controller", "Whose revision it is.", |revision, _| {
            let owners = revision.metadata.owner_references.iter().flatten();
            let Some(owner) = owners.into_iter().find(|it| it.controller == Some(true)) else {
                return NONE.into();
            };
            let kind = owner.kind.to_lowercase();
            match owner.api_version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", owner.name).into(),
                None => format!("{kind}/{}", owner.name).into(),
            }
        }),
        text("Revision", "Its place in the history.", |revision, _| {
            Cell::Number(revision.revision)
        }),
        age(),
    ];

    fn validate(&self, errors: &mut Errors) {
        names::not_negative("revision", self.revision, errors);
        match self.data.as_ref().map(|it| &it.0) {
            None | Some(serde_json::Value::Null) => errors.required("data", "data is mandatory"),
            Some(serde_json::Value::Object(_)) => {}
            Some(_) => errors.required("data", "data must be a valid JSON object"),
        }
    }

    fn validate_update(&self, old: &ControllerRevision, errors: &mut Errors) {
        if self.data != old.data {
            let shown = serde_json::to_string(&self.data).expect("API objects are plain data");
            errors.invalid("data", shown, "field is immutable");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn revision(data: Value) -> ControllerRevision {
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u",
            "controller": true});
        let metadata = json!({"name": "web-1", "ownerReferences": [owner]});
        from_value(&json!({"metadata": metadata, "revision": 2, "data": data})).unwrap()
    }

    #[test]
    fn history_is_not_rewritten() {
        let old = revision(json!({"spec": 1}));
        assert_eq!(row(&old), "web-1 | statefulset.apps/web | 2 | <unknown>");
        let mut errors = Errors::default();
        revision(json!({"spec": 2})).validate_update(&old, &mut errors);
        assert_eq!(errors.message(), "data: Invalid value: {\"spec\":2}: field is immutable");
        let mut errors = Errors::default();
        revision(json!(null)).validate(&mut errors);
        assert_eq!(errors.message(), "data: Required value: data is mandatory");
    }
}
