//! `v1` Namespace: a name under which other names are unique.
//!
//! Upstream: `pkg/registry/core/namespace/strategy.go`.

use crate::{
    field::{Errors, quoted},
    k8s::api::core::v1::{Namespace, NamespaceStatus},
    kind::{Column, Kind, Names, Object, Scope, Subresource},
    meta::{
        absent::{fill, list},
        columns::{age, name, text},
        names,
    },
};

/// In `spec.finalizers`: the namespace waits until it is empty.
pub const FINALIZER: &str = "kubernetes";
/// Every namespace bears its name as a label, so that selectors can choose it.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub const ACTIVE: &str = "Active";
pub const TERMINATING: &str = "Terminating";

impl Kind for Namespace {
    const NAMES: Names =
        Names { plural: "namespaces", singular: "namespace", short: &["ns"], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/namespaces";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status, Subresource::Finalize];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<Namespace>] = &[
        name(),
        text("Status", "Active or Terminating.", |namespace, _| phase(namespace).into()),
        age(),
    ];

    fn default(&mut self) {
        fill(&mut self.status.get_or_insert_default().phase, ACTIVE);
        self.spec.get_or_insert_default();
        label(self);
    }

    fn prepare_create(&mut self) {
        let status = NamespaceStatus { phase: Some(ACTIVE.to_owned()), conditions: None };
        self.status = Some(status);
        let finalizers = self.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|it| it == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        label(self);
    }

    fn prepare_update(&mut self, old: &Namespace) {
        self.spec.clone_from(&old.spec);
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &Namespace) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        for finalizer in finalizers(self) {
            validate_finalizer("spec.finalizers", finalizer, errors);
        }
    }

    fn validate_part(&self, part: Subresource, _old: &Namespace, errors: &mut Errors) {
        if part == Subresource::Finalize {
            for (n, finalizer) in finalizers(self).iter().enumerate() {
                validate_finalizer(&format!("spec.finalizers[{n}]"), finalizer, errors);
            }
        }
    }

    fn validate_status(&self, _old: &Namespace, errors: &mut Errors) {
        let (wanted, detail) = match self.is_deleting() {
            false => (ACTIVE, "may only be 'Active' if `deletionTimestamp` is empty"),
            true => (TERMINATING, "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        };
        if phase(self) != wanted {
            errors.invalid("status.Phase", quoted(phase(self)), detail);
        }
    }

    fn validate_name(name: &str, errors: &mut Errors) {
        names::dns_label("metadata.name", name, errors);
    }

    fn is_held(&self) -> bool {
        self.spec.as_ref().is_some_and(|it| !list(&it.finalizers).is_empty())
    }

    fn begin_deletion(&mut self) {
        self.status.get_or_insert_default().phase = Some(TERMINATING.to_owned());
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("status.phase", phase(self).to_owned()), ("name", self.name().to_owned())]
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().map(|it| list(&it.finalizers)).unwrap_or_default()
}

fn validate_finalizer(path: &str, finalizer: &str, errors: &mut Errors) {
    names::qualified_name(path, finalizer, errors);
    let standard = ["kubernetes", "orphan", "foregroundDeletion"];
    if !finalizer.contains('/') && !standard.contains(&finalizer) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.invalid(path, quoted(finalizer), detail);
    }
}

/// The phase; empty on an object that was never stored.
pub fn phase(namespace: &Namespace) -> &str {
    namespace.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or_default()
}

fn label(namespace: &mut Namespace) {
    let Some(name) = namespace.metadata.name.clone().filter(|it| !it.is_empty()) else { return };
    namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
}
