//! `apps/v1` ReplicaSet: so many pods of one template.
//!
//! Upstream: `pkg/apis/apps/validation`, ValidateReplicaSetSpec; `pkg/registry/apps/replicaset`.

use super::template;
use crate::{
    core::pod,
    field::Errors,
    k8s::api::{
        apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus},
        core::v1::{PodSpec, PodTemplateSpec},
    },
    kind::{Cell, Column, Format, Kind, Names, Object, ScaleOf, Scope, Subresource},
    meta::{
        Selector,
        absent::same,
        columns::{age, name, wide},
        names,
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
        number("Desired", "Pods that are wanted.", |set, _| count(replicas(set))),
        number("Current", "Pods that are there.", |set, _| {
            count(set.status.as_ref().map_or(0, |it| it.replicas))
        }),
        number("Ready", "Pods that are ready.", |set, _| {
            count(set.status.as_ref().and_then(|it| it.ready_replicas).unwrap_or(0))
        }),
        age(),
        wide("Containers", "The containers of each pod.", |set, _| {
            template::containers(pods(set), |it| it.name.as_str()).into()
        }),
        wide("Images", "Their images.", |set, _| {
            template::containers(pods(set), template::image).into()
        }),
        wide("Selector", "Which pods are its own.", |set, _| {
            Selector::of(set.spec.as_ref().map(|it| &it.selector)).to_string().into()
        }),
    ];
    const SCALE: Option<ScaleOf<ReplicaSet>> = Some(ScaleOf {
        replicas,
        set_replicas: |set, replicas| {
            set.spec.get_or_insert_default().replicas = Some(replicas);
        },
        status_replicas: |set| set.status.as_ref().map_or(0, |it| it.replicas),
        selector: |set| Selector::of(set.spec.as_ref().map(|it| &it.selector)).to_string(),
    });

    fn default(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        template::default_template(spec.template.get_or_insert_default());
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(ReplicaSetStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &ReplicaSet) {
        self.status.clone_from(&old.status);
        let grown = i64::from(!same(&self.spec, &old.spec));
        self.metadata.generation = old.metadata.generation.map(|it| it + grown).or(Some(1));
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
        // Upstream says "deployment" here, too.
        template::validate_selector(&spec.selector, "deployment", errors);
        let empty = PodTemplateSpec::default();
        let pods = spec.template.as_ref().unwrap_or(&empty);
        template::validate_pods(pods, &spec.selector, "ReplicaSet", errors);
    }

    fn validate_update(&self, old: &ReplicaSet, errors: &mut Errors) {
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            template::immutable("spec.selector", &new.selector, &old.selector, errors);
        }
    }

    fn validate_status(&self, _old: &ReplicaSet, errors: &mut Errors) {
        let Some(status) = &self.status else { return };
        let ready = status.ready_replicas.unwrap_or(0);
        let available = status.available_replicas.unwrap_or(0);
        names::not_negative("status.replicas", i64::from(status.replicas), errors);
        for (field, count) in [
            ("fullyLabeledReplicas", status.fully_labeled_replicas.unwrap_or(0)),
            ("readyReplicas", ready),
            ("availableReplicas", available),
        ] {
            names::not_negative(format!("status.{field}"), i64::from(count), errors);
            if count > status.replicas {
                let detail = "cannot be greater than status.replicas";
                errors.invalid(format!("status.{field}"), count, detail);
            }
        }
        if available > ready {
            let detail = "cannot be greater than readyReplicas";
            errors.invalid("status.availableReplicas", available, detail);
        }
    }

    fn warnings(&self, old: Option<&ReplicaSet>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() && !names::is_label(self.name()) {
            warnings.push("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended".to_owned());
        }
        warnings.extend(pods(self).iter().flat_map(|it| pod::warnings("spec.template.spec", it)));
        warnings
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

fn pods(set: &ReplicaSet) -> Option<&PodSpec> {
    set.spec.as_ref()?.template.as_ref()?.spec.as_ref()
}

pub(crate) const fn number<T: Object>(
    title: &'static str,
    description: &'static str,
    cell: fn(&T, &crate::kind::Printing) -> Cell,
) -> Column<T> {
    Column { title, format: Format::Integer, wide: false, description, cell }
}

pub(crate) fn count(number: i32) -> Cell {
    Cell::Number(i64::from(number))
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
