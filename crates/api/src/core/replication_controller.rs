//! `v1` ReplicationController: so many pods of one template, in the words from before ReplicaSet.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, ValidateReplicationController;
//! `pkg/registry/core/replicationcontroller`.

use crate::{
    apps::{
        replica_set::{count, number},
        template,
    },
    core::pod,
    field::Errors,
    k8s::api::core::v1::{
        PodSpec, ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
    },
    kind::{Column, Kind, Names, Object, ScaleOf, Scope, Subresource},
    meta::{
        Selector,
        absent::{same, text},
        columns::{age, name, wide},
        names,
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
    const COLUMNS: &'static [Column<ReplicationController>] = &[
        name(),
        number("Desired", "Pods that are wanted.", |it, _| count(replicas(it))),
        number("Current", "Pods that are there.", |it, _| {
            count(it.status.as_ref().map_or(0, |it| it.replicas))
        }),
        number("Ready", "Pods that are ready.", |it, _| {
            count(it.status.as_ref().and_then(|it| it.ready_replicas).unwrap_or(0))
        }),
        age(),
        wide("Containers", "The containers of each pod.", |it, _| {
            template::containers(pods(it), |it| it.name.as_str()).into()
        }),
        wide("Images", "Their images.", |it, _| {
            template::containers(pods(it), template::image).into()
        }),
        wide("Selector", "Which pods are its own.", |it, _| shown(selector(it)).into()),
    ];
    const SCALE: Option<ScaleOf<ReplicationController>> = Some(ScaleOf {
        replicas,
        set_replicas: |it, replicas| it.spec.get_or_insert_default().replicas = Some(replicas),
        status_replicas: |it| it.status.as_ref().map_or(0, |it| it.replicas),
        selector: |it| shown(selector(it)),
    });

    fn default(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.min_ready_seconds.get_or_insert(0);
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
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(ReplicationControllerStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &ReplicationController) {
        self.status.clone_from(&old.status);
        let grown = i64::from(!same(&self.spec, &old.spec));
        self.metadata.generation = old.metadata.generation.map(|it| it + grown).or(Some(1));
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
        let (ready, available) =
            (status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
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

    fn warnings(&self, old: Option<&ReplicationController>) -> Vec<String> {
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

/// Pods that are always started again, and that the selector chooses.
fn validate_pods(
    controller: &ReplicationController,
    pods: &crate::k8s::api::core::v1::PodTemplateSpec,
    errors: &mut Errors,
) {
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

fn shown(selector: Option<&BTreeMap<String, String>>) -> String {
    selector.map(|it| Selector::of_map(it).to_string()).unwrap_or_default()
}

fn pods(controller: &ReplicationController) -> Option<&PodSpec> {
    controller.spec.as_ref()?.template.as_ref()?.spec.as_ref()
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
