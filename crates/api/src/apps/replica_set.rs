//! `apps/v1` ReplicaSet: so many pods of one template.
//!
//! Upstream: `pkg/apis/apps/validation`, ValidateReplicaSetSpec; `pkg/registry/apps/replicaset`.

use super::{
    template,
    templated::{self, Counts, Replicated, Templated, count},
};
use crate::{
    field::Errors,
    k8s::api::{
        apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus},
        core::v1::PodTemplateSpec,
    },
    kind::{Column, Kind, Names, ScaleOf, Scope, Subresource},
    meta::{
        Selector,
        absent::{omit_zero, same},
        columns::{age, integer, name},
        names, next_generation,
    },
};

impl Kind for ReplicaSet {
    const NAMES: Names = Names {
        plural: "replicasets",
        singular: "replicaset",
        short: &["rs"],
        categories: &["all"],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/replicasets";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status, Subresource::Scale];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column<ReplicaSet>] = &[
        name(),
        templated::desired(),
        templated::current(),
        integer("Ready", "Pods that are ready.", |set, _| {
            count(set.status.as_ref().and_then(|it| it.ready_replicas).unwrap_or(0))
        }),
        age(),
        templated::containers(),
        templated::images(),
        templated::selector(),
    ];
    const SCALE: Option<ScaleOf<ReplicaSet>> = Some(templated::scale());

    fn default(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        omit_zero(&mut spec.min_ready_seconds);
        template::default_template(spec.template.get_or_insert_default());
        let status = self.status.get_or_insert_default();
        omit_zero(&mut status.observed_generation);
        for count in [
            &mut status.fully_labeled_replicas,
            &mut status.ready_replicas,
            &mut status.available_replicas,
        ] {
            omit_zero(count);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(ReplicaSetStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &ReplicaSet) {
        self.status.clone_from(&old.status);
        let changed = !same(&self.spec, &old.spec);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn prepare_status(&mut self, old: &ReplicaSet) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = ReplicaSetSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        for (field, number) in
            [("replicas", spec.replicas), ("minReadySeconds", spec.min_ready_seconds)]
        {
            names::not_negative(format!("spec.{field}"), i64::from(number.unwrap_or(0)), errors);
        }
        let empty = PodTemplateSpec::default();
        let pods = spec.template.as_ref().unwrap_or(&empty);
        template::require_selector(&spec.selector, pods, errors);
        template::validate_pods(pods, &spec.selector, "ReplicaSet", errors);
    }

    fn validate_update(&self, old: &ReplicaSet, errors: &mut Errors) {
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            template::immutable("spec.selector", &new.selector, &old.selector, errors);
        }
    }

    fn validate_status(&self, _old: &ReplicaSet, errors: &mut Errors) {
        let Some(status) = &self.status else { return };
        let counts = Counts {
            replicas: status.replicas,
            of_replicas: &[
                ("fullyLabeledReplicas", status.fully_labeled_replicas),
                ("readyReplicas", status.ready_replicas),
                ("availableReplicas", status.available_replicas),
            ],
            others: &[
                ("observedGeneration", status.observed_generation),
                ("terminatingReplicas", status.terminating_replicas.map(i64::from)),
            ],
            ready: status.ready_replicas,
            available: status.available_replicas,
            ready_name: "readyReplicas",
        };
        counts.validate(errors);
    }

    fn warnings(&self, old: Option<&ReplicaSet>) -> Vec<String> {
        let of_name = templated::name_warning(self, old);
        of_name.into_iter().chain(templated::warnings(self, old)).collect()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let replicas = self.status.as_ref().map_or(0, |it| it.replicas);
        vec![("status.replicas", replicas.to_string())]
    }
}

/// How many pods are wanted.
pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1)
}

impl Templated for ReplicaSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn own_pods(&self) -> Selector {
        Selector::of(self.spec.as_ref().map(|it| &it.selector))
    }
}

impl Replicated for ReplicaSet {
    fn wanted(&self) -> i32 {
        replicas(self)
    }

    fn want(&mut self, replicas: i32) {
        self.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn current(&self) -> i32 {
        self.status.as_ref().map_or(0, |it| it.replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn set(changes: Value) -> ReplicaSet {
        let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let metadata = json!({"name": "web", "namespace": "ns"});
        let mut set: ReplicaSet = from_value(&json!({"metadata": metadata, "spec": spec})).unwrap();
        Kind::default(&mut set);
        set
    }

    #[track_caller]
    fn check(changes: Value, expected: &str) {
        let mut errors = Errors::default();
        set(changes).validate(&mut errors);
        assert_eq!(errors.message(), expected);
    }

    #[test]
    fn a_set_selects_its_own_pods_and_keeps_its_selector() {
        check(json!({}), "");
        check(
            json!({"selector": {"matchLabels": {"app": "db"}}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        );
        check(
            json!({"replicas": -2}),
            "spec.replicas: Invalid value: -2: must be greater than or equal to 0",
        );
        let mut errors = Errors::default();
        set(json!({"selector": {"matchLabels": {"app": "x"}}}))
            .validate_update(&set(json!({})), &mut errors);
        assert_eq!(
            errors.message(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"
        );
        assert_eq!(row(&set(json!({}))), "web | 1 | 0 | 0 | <unknown> | c | nginx | app=web");
    }
}
