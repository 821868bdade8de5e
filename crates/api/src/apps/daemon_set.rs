//! `apps/v1` DaemonSet: one pod on every node that it may run on.
//!
//! Upstream: `pkg/apis/apps/validation`, ValidateDaemonSetSpec; `pkg/registry/apps/daemonset`.

use super::{
    template::{self, unknown_strategy},
    templated::{self, Templated, count, validate_collisions},
};
use crate::{
    field::{Errors, quoted},
    k8s::{
        api::{
            apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy},
            core::v1::PodTemplateSpec,
        },
        apimachinery::pkg::util::intstr::IntOrString,
    },
    kind::{Column, Kind, Names, Object, Scope, Subresource},
    meta::{
        Selector,
        absent::{fill, omit_zero, same, text},
        columns::{self, NONE, age, integer, name},
        int_or_percent, names, next_generation,
    },
};

/// How often the template has changed, from the time when that had a field.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

impl Kind for DaemonSet {
    const NAMES: Names =
        Names { plural: "daemonsets", singular: "daemonset", short: &["ds"], categories: &["all"] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/daemonsets";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column<DaemonSet>] = &[
        name(),
        integer("Desired", "Nodes that should run its pod.", |set, _| {
            count(status(set).desired_number_scheduled)
        }),
        integer("Current", "Those of them that run one.", |set, _| {
            count(status(set).current_number_scheduled)
        }),
        integer("Ready", "Those of them whose pod is ready.", |set, _| {
            count(status(set).number_ready)
        }),
        integer("Up-to-date", "Nodes with a pod of the latest template.", |set, _| {
            count(status(set).updated_number_scheduled.unwrap_or(0))
        }),
        integer("Available", "Nodes whose pod has been ready for long enough.", |set, _| {
            count(status(set).number_available.unwrap_or(0))
        }),
        columns::text("Node Selector", "Which nodes.", |set, _| {
            let pairs = set.pods().and_then(|it| it.node_selector.as_ref());
            let pairs = pairs.into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
            let text = pairs.collect::<Vec<_>>().join(",");
            columns::or(&text, NONE).into()
        }),
        age(),
        templated::containers(),
        templated::images(),
        templated::selector(),
    ];

    fn default(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let strategy = spec.update_strategy.get_or_insert_default();
        fill(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
        omit_zero(&mut spec.min_ready_seconds);
        template::default_template(&mut spec.template);
        let status = self.status.get_or_insert_default();
        omit_zero(&mut status.observed_generation);
        for count in [
            &mut status.updated_number_scheduled,
            &mut status.number_available,
            &mut status.number_unavailable,
        ] {
            omit_zero(count);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(DaemonSetStatus::default());
        self.metadata.generation = Some(1);
        set_template_generation(self, 1);
    }

    fn prepare_update(&mut self, old: &DaemonSet) {
        self.status.clone_from(&old.status);
        let template = |set: &DaemonSet| set.spec.as_ref().map(|it| it.template.clone());
        let grown = i64::from(!same(&template(self), &template(old)));
        set_template_generation(self, template_generation(old) + grown);
        let changed = !same(&self.spec, &old.spec);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn prepare_status(&mut self, old: &DaemonSet) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = DaemonSetSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        template::validate_selector(&spec.selector, "daemonset", errors);
        template::validate_pods(&spec.template, &spec.selector, "DaemonSet", errors);
        let seconds = i64::from(spec.min_ready_seconds.unwrap_or(0));
        names::not_negative("spec.minReadySeconds", seconds, errors);
        validate_strategy(&spec.update_strategy.clone().unwrap_or_default(), errors);
        let limit = i64::from(spec.revision_history_limit.unwrap_or(0));
        names::not_negative("spec.revisionHistoryLimit", limit, errors);
    }

    fn validate_update(&self, old: &DaemonSet, errors: &mut Errors) {
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            template::immutable("spec.selector", &new.selector, &old.selector, errors);
        }
    }

    fn validate_status(&self, old: &DaemonSet, errors: &mut Errors) {
        let it = status(self);
        for (field, count) in [
            ("currentNumberScheduled", it.current_number_scheduled),
            ("numberMisscheduled", it.number_misscheduled),
            ("desiredNumberScheduled", it.desired_number_scheduled),
            ("numberReady", it.number_ready),
            ("updatedNumberScheduled", it.updated_number_scheduled.unwrap_or(0)),
            ("numberAvailable", it.number_available.unwrap_or(0)),
            ("numberUnavailable", it.number_unavailable.unwrap_or(0)),
        ] {
            names::not_negative(format!("status.{field}"), i64::from(count), errors);
        }
        let observed = it.observed_generation.unwrap_or(0);
        names::not_negative("status.observedGeneration", observed, errors);
        validate_collisions(it.collision_count, status(old).collision_count, errors);
    }

    fn warnings(&self, old: Option<&DaemonSet>) -> Vec<String> {
        if old.is_some_and(|old| template_generation(old) == template_generation(self)) {
            return Vec::new();
        }
        templated::warnings(self, None)
    }
}

fn validate_strategy(strategy: &DaemonSetUpdateStrategy, errors: &mut Errors) {
    let path = |field: &str| format!("spec.updateStrategy.rollingUpdate.{field}");
    let rolling = match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => return,
        ("RollingUpdate", Some(rolling)) => rolling,
        ("RollingUpdate", None) => {
            errors.required("spec.updateStrategy.rollingUpdate", "");
            return;
        }
        (kind, rolling) => {
            let known = ["RollingUpdate", "OnDelete"];
            unknown_strategy("spec.updateStrategy", kind, rolling, &known, errors);
            return;
        }
    };
    let (unavailable, surge) = (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
    for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        int_or_percent::validate(path(field), value, errors);
        int_or_percent::at_most_all(path(field), value, errors);
    }
    match (int_or_percent::is_zero(unavailable), int_or_percent::is_zero(surge)) {
        (true, true) => {
            errors.required(path("maxUnavailable"), "cannot be 0 when maxSurge is 0");
        }
        (false, false) => {
            let shown = surge.map_or_else(|| quoted(""), int_or_percent::shown);
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.invalid(path("maxSurge"), shown, detail);
        }
        (true, false) | (false, true) => {}
    }
}

fn template_generation(set: &DaemonSet) -> i64 {
    set.annotation(TEMPLATE_GENERATION).and_then(|it| it.parse().ok()).unwrap_or(1)
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn status(set: &DaemonSet) -> DaemonSetStatus {
    set.status.clone().unwrap_or_default()
}

impl Templated for DaemonSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.as_ref()?.template)
    }

    fn own_pods(&self) -> Selector {
        Selector::of(self.spec.as_ref().map(|it| &it.selector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn set(changes: Value) -> DaemonSet {
        let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let metadata = json!({"name": "web", "namespace": "ns"});
        let mut set: DaemonSet = from_value(&json!({"metadata": metadata, "spec": spec})).unwrap();
        Kind::default(&mut set);
        set
    }

    #[test]
    fn either_a_pod_more_or_a_pod_less() {
        let message = |unavailable: Value, surge: Value| {
            let rolling = json!({"maxUnavailable": unavailable, "maxSurge": surge});
            let mut errors = Errors::default();
            set(json!({"updateStrategy": {"rollingUpdate": rolling}})).validate(&mut errors);
            errors.message()
        };
        assert_eq!(message(json!(1), json!(0)), "");
        assert_eq!(
            message(json!(1), json!("10%")),
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"10%\": may not be set when maxUnavailable is non-zero"
        );
        assert_eq!(
            message(json!(0), json!(0)),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"
        );
    }

    #[test]
    fn the_template_has_a_generation_of_its_own() {
        let mut old = set(json!({}));
        old.prepare_create();
        let mut new = set(json!({"minReadySeconds": 3}));
        new.prepare_update(&old);
        assert_eq!(
            (new.metadata.generation, new.annotation(TEMPLATE_GENERATION)),
            (Some(2), Some("1"))
        );
        let mut changed = new.clone();
        changed.spec.as_mut().unwrap().template.metadata.as_mut().unwrap().annotations =
            Some([("a".to_owned(), "b".to_owned())].into());
        changed.prepare_update(&new);
        assert_eq!(changed.annotation(TEMPLATE_GENERATION), Some("2"));
        assert_eq!(row(&new), "web | 0 | 0 | 0 | 0 | 0 | <none> | <unknown> | c | nginx | app=web");
    }
}
