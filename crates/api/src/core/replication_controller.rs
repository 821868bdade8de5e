//! `v1` ReplicationController: so many pods of one template, in the words from before ReplicaSet.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, ValidateReplicationController;
//! `pkg/registry/core/replicationcontroller`.

use crate::{
    apps::{
        template,
        templated::{self, Counts, Replicated, Templated, count},
    },
    field::Errors,
    k8s::api::core::v1::{
        PodTemplateSpec, ReplicationController, ReplicationControllerSpec,
        ReplicationControllerStatus,
    },
    kind::{Column, Kind, Names, ScaleOf, Scope, Subresource},
    meta::{
        Selector,
        absent::{omit_zero, same, text},
        columns::{age, integer, name},
        names, next_generation,
    },
};
use std::collections::BTreeMap;

impl Kind for ReplicationController {
    const NAMES: Names = Names {
        plural: "replicationcontrollers",
        singular: "replicationcontroller",
        short: &["rc"],
        categories: &["all"],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/controllers";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status, Subresource::Scale];
    const GENERATION: bool = true;
    const ORPHANS: bool = true;
    const COLUMNS: &'static [Column<ReplicationController>] = &[
        name(),
        templated::desired(),
        templated::current(),
        integer("Ready", "Pods that are ready.", |it, _| {
            count(it.status.as_ref().and_then(|it| it.ready_replicas).unwrap_or(0))
        }),
        age(),
        templated::containers(),
        templated::images(),
        templated::selector(),
    ];
    const SCALE: Option<ScaleOf<ReplicationController>> = Some(templated::scale());

    fn default(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        omit_zero(&mut spec.min_ready_seconds);
        if let Some(template) = &mut spec.template {
            template::default_template(template);
            // What is not said follows from the template's labels.
            let labels = template.metadata.as_ref().and_then(|it| it.labels.clone());
            if let Some(labels) = labels.filter(|it| !it.is_empty()) {
                for own in [&mut spec.selector, &mut self.metadata.labels] {
                    let own = own.get_or_insert_default();
                    if own.is_empty() {
                        own.clone_from(&labels);
                    }
                }
            }
        }
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
        self.status = Some(ReplicationControllerStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &ReplicationController) {
        self.status.clone_from(&old.status);
        let changed = !same(&self.spec, &old.spec);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn prepare_status(&mut self, old: &ReplicationController) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = ReplicationControllerSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        for (field, number) in
            [("minReadySeconds", spec.min_ready_seconds), ("replicas", spec.replicas)]
        {
            names::not_negative(format!("spec.{field}"), i64::from(number.unwrap_or(0)), errors);
        }
        if selector(self).is_none_or(BTreeMap::is_empty) {
            errors.required("spec.selector", "");
        }
        match &spec.template {
            None => errors.required("spec.template", ""),
            Some(pods) => validate_pods(self, pods, errors),
        }
    }

    fn validate_status(&self, _old: &ReplicationController, errors: &mut Errors) {
        let Some(status) = &self.status else { return };
        let counts = Counts {
            replicas: status.replicas,
            of_replicas: &[
                ("fullyLabeledReplicas", status.fully_labeled_replicas),
                ("readyReplicas", status.ready_replicas),
                ("availableReplicas", status.available_replicas),
            ],
            others: &[("observedGeneration", status.observed_generation)],
            ready: status.ready_replicas,
            available: status.available_replicas,
            ready_name: "readyReplicas",
        };
        counts.validate(errors);
    }

    fn warnings(&self, old: Option<&ReplicationController>) -> Vec<String> {
        let of_name = templated::name_warning(self, old);
        of_name.into_iter().chain(templated::warnings(self, old)).collect()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let replicas = self.status.as_ref().map_or(0, |it| it.replicas);
        vec![("status.replicas", replicas.to_string())]
    }
}

/// Pods that are always started again, and that the selector chooses.
fn validate_pods(controller: &ReplicationController, pods: &PodTemplateSpec, errors: &mut Errors) {
    let labels = pods.metadata.as_ref().and_then(|it| it.labels.clone()).unwrap_or_default();
    let chosen = selector(controller)
        .is_none_or(|it| it.iter().all(|(key, value)| labels.get(key) == Some(value)));
    if !chosen {
        let shown = serde_json::to_string(&labels).expect("labels are plain data");
        let detail = "`selector` does not match template `labels`";
        errors.invalid("spec.template.metadata.labels", shown, detail);
    }
    template::validate_spec(pods, errors);
    let policy = pods.spec.as_ref().map_or("", |it| text(&it.restart_policy));
    if policy != "Always" {
        errors.not_supported("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    if pods.spec.as_ref().is_some_and(|it| it.active_deadline_seconds.is_some()) {
        let detail = "activeDeadlineSeconds in ReplicationController is not Supported";
        errors.forbidden("spec.template.spec.activeDeadlineSeconds", detail);
    }
}

/// How many pods are wanted.
pub fn replicas(controller: &ReplicationController) -> i32 {
    controller.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1)
}

fn selector(controller: &ReplicationController) -> Option<&BTreeMap<String, String>> {
    controller.spec.as_ref()?.selector.as_ref()
}

impl Templated for ReplicationController {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn own_pods(&self) -> Selector {
        selector(self).map(Selector::of_map).unwrap_or_default()
    }
}

impl Replicated for ReplicationController {
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

    fn controller(spec: Value) -> ReplicationController {
        let mut object: ReplicationController =
            from_value(&json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec}))
                .unwrap();
        Kind::default(&mut object);
        object
    }

    #[test]
    fn takes_selector_and_labels_from_its_template() {
        let template = json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
        let object = controller(json!({"template": template}));
        let mut errors = Errors::default();
        object.validate(&mut errors);
        assert_eq!(errors.message(), "");
        assert_eq!(row(&object), "web | 1 | 0 | 0 | <unknown> | c | nginx | app=web");
        assert_eq!(object.metadata.labels.unwrap()["app"], "web");
        controller(json!({"selector": {"app": "db"}, "template": template})).validate(&mut errors);
        assert_eq!(
            errors.message(),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
        );
        let mut errors = Errors::default();
        controller(json!({})).validate(&mut errors);
        assert_eq!(
            errors.message(),
            "[spec.selector: Required value, spec.template: Required value]"
        );
    }
}
