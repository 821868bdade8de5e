//! `apps/v1` Deployment: pods of one template, replaced bit by bit when the template changes.
//!
//! Upstream: `pkg/apis/apps/validation`, ValidateDeploymentSpec; `pkg/registry/apps/deployment`.

use super::{
    template::{self, unknown_strategy},
    templated::{self, Counts, Replicated, Templated, count, validate_collisions},
};
use crate::{
    field::{Errors, quoted},
    k8s::{
        api::{
            apps::v1::{
                Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy,
                RollingUpdateDeployment,
            },
            core::v1::PodTemplateSpec,
        },
        apimachinery::pkg::util::intstr::IntOrString,
    },
    kind::{Column, Kind, Names, Object, ScaleOf, Scope, Subresource},
    meta::{
        Selector,
        absent::{fill, omit_zero, same, text},
        columns::{self, age, name},
        int_or_percent::{self, Round},
        names, next_generation,
    },
};

/// On a Deployment and its ReplicaSets: the place of the template in its history.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// On a ReplicaSet: the places that it had before.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// On a ReplicaSet: how many pods its Deployment wanted when it was scaled last.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// On a ReplicaSet: how many pods its Deployment might have had then, surge included.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

impl Kind for Deployment {
    const NAMES: Names = Names {
        plural: "deployments",
        singular: "deployment",
        short: &["deploy"],
        categories: &["all"],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/deployments";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status, Subresource::Scale];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column<Deployment>] = &[
        name(),
        columns::text("Ready", "Pods that are ready, of those wanted.", |it, _| {
            let ready = status(it, |it| it.ready_replicas);
            format!("{ready}/{}", replicas(it)).into()
        }),
        columns::text("Up-to-date", "Pods of the latest template.", |it, _| {
            count(status(it, |it| it.updated_replicas))
        }),
        columns::text("Available", "Pods that have been ready for long enough.", |it, _| {
            count(status(it, |it| it.available_replicas))
        }),
        age(),
        templated::containers(),
        templated::images(),
        templated::selector(),
    ];
    const SCALE: Option<ScaleOf<Deployment>> = Some(templated::scale());

    fn default(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let strategy = spec.strategy.get_or_insert_default();
        fill(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            let quarter = || IntOrString::String("25%".to_owned());
            rolling.max_unavailable.get_or_insert_with(quarter);
            rolling.max_surge.get_or_insert_with(quarter);
        }
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        omit_zero(&mut spec.min_ready_seconds);
        omit_zero(&mut spec.paused);
        template::default_template(&mut spec.template);
        let status = self.status.get_or_insert_default();
        omit_zero(&mut status.observed_generation);
        for count in [
            &mut status.replicas,
            &mut status.updated_replicas,
            &mut status.ready_replicas,
            &mut status.available_replicas,
            &mut status.unavailable_replicas,
        ] {
            omit_zero(count);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(DeploymentStatus::default());
        self.metadata.generation = Some(1);
    }

    /// Annotations count as the spec does: the ReplicaSets get them.
    fn prepare_update(&mut self, old: &Deployment) {
        self.status.clone_from(&old.status);
        let annotated = same(&self.metadata.annotations, &old.metadata.annotations);
        let changed = !annotated || !same(&self.spec, &old.spec);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn prepare_status(&mut self, old: &Deployment) {
        self.spec.clone_from(&old.spec);
        self.metadata.labels.clone_from(&old.metadata.labels);
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = DeploymentSpec::default();
        validate_spec(self.spec.as_ref().unwrap_or(&empty), errors);
    }

    fn validate_update(&self, old: &Deployment, errors: &mut Errors) {
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            template::immutable("spec.selector", &new.selector, &old.selector, errors);
        }
    }

    fn validate_status(&self, old: &Deployment, errors: &mut Errors) {
        validate_status(self, old, errors);
    }

    fn warnings(&self, old: Option<&Deployment>) -> Vec<String> {
        let of_name = templated::name_warning(self, old);
        of_name.into_iter().chain(templated::warnings(self, old)).collect()
    }
}

fn validate_spec(spec: &DeploymentSpec, errors: &mut Errors) {
    let not_negative = |field: &str, number: Option<i32>, errors: &mut Errors| {
        names::not_negative(format!("spec.{field}"), i64::from(number.unwrap_or(0)), errors);
    };
    not_negative("replicas", spec.replicas, errors);
    template::require_selector(&spec.selector, &spec.template, errors);
    template::validate_pods(&spec.template, &spec.selector, "ReplicaSet", errors);
    let strategy = spec.strategy.clone().unwrap_or_default();
    validate_strategy(&strategy, errors);
    not_negative("minReadySeconds", spec.min_ready_seconds, errors);
    not_negative("revisionHistoryLimit", spec.revision_history_limit, errors);
    let Some(deadline) = spec.progress_deadline_seconds else { return };
    not_negative("progressDeadlineSeconds", Some(deadline), errors);
    if deadline <= spec.min_ready_seconds.unwrap_or(0) {
        let detail = "must be greater than minReadySeconds";
        errors.invalid("spec.progressDeadlineSeconds", deadline, detail);
    }
}

fn validate_strategy(strategy: &DeploymentStrategy, errors: &mut Errors) {
    let path = "spec.strategy";
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.forbidden(format!("{path}.rollingUpdate"), detail);
        }
        ("Recreate", None) => {}
        ("RollingUpdate", Some(rolling)) => validate_rolling(rolling, errors),
        ("RollingUpdate", None) => {
            let detail = "this should be defaulted and never be nil";
            errors.required(format!("{path}.rollingUpdate"), detail);
        }
        (kind, rolling) => {
            unknown_strategy(path, kind, rolling, &["Recreate", "RollingUpdate"], errors);
        }
    }
}

fn validate_rolling(rolling: &RollingUpdateDeployment, errors: &mut Errors) {
    let path = |field: &str| format!("spec.strategy.rollingUpdate.{field}");
    let (unavailable, surge) = (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
    int_or_percent::validate(path("maxUnavailable"), unavailable, errors);
    int_or_percent::validate(path("maxSurge"), surge, errors);
    if int_or_percent::is_zero(unavailable) && int_or_percent::is_zero(surge) {
        let shown = unavailable.map_or_else(|| quoted(""), int_or_percent::shown);
        errors.invalid(path("maxUnavailable"), shown, "may not be 0 when `maxSurge` is 0");
    }
    int_or_percent::at_most_all(path("maxUnavailable"), unavailable, errors);
}

fn validate_status(deployment: &Deployment, old: &Deployment, errors: &mut Errors) {
    let Some(it) = &deployment.status else { return };
    let wide = |count: Option<i32>| count.map(i64::from);
    let counts = Counts {
        replicas: it.replicas.unwrap_or(0),
        of_replicas: &[
            ("updatedReplicas", it.updated_replicas),
            ("readyReplicas", it.ready_replicas),
            ("availableReplicas", it.available_replicas),
        ],
        others: &[
            ("observedGeneration", it.observed_generation),
            ("unavailableReplicas", wide(it.unavailable_replicas)),
            ("terminatingReplicas", wide(it.terminating_replicas)),
        ],
        ready: it.ready_replicas,
        available: it.available_replicas,
        ready_name: "readyReplicas",
    };
    counts.validate(errors);
    let before = old.status.as_ref().and_then(|it| it.collision_count);
    validate_collisions(it.collision_count, before, errors);
}

/// A count of the status; nothing is none.
fn status(deployment: &Deployment, field: fn(&DeploymentStatus) -> Option<i32>) -> i32 {
    deployment.status.as_ref().and_then(field).unwrap_or(0)
}

impl Templated for Deployment {
    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.as_ref()?.template)
    }

    fn own_pods(&self) -> Selector {
        Selector::of(self.spec.as_ref().map(|it| &it.selector))
    }
}

impl Replicated for Deployment {
    fn wanted(&self) -> i32 {
        replicas(self)
    }

    fn want(&mut self, replicas: i32) {
        self.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn current(&self) -> i32 {
        status(self, |it| it.replicas)
    }
}

/// How many pods are wanted.
pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1)
}

/// Whether old pods go and new ones come bit by bit.
pub fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|it| it.strategy.as_ref());
    strategy.is_some_and(|it| text(&it.type_) == "RollingUpdate")
}

/// How many pods more than wanted there may be during an update, and how many fewer available ones.
/// If both come to nothing, one fewer: otherwise nothing would ever move.
pub fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if !is_rolling(deployment) {
        return (0, 0);
    }
    let strategy = deployment.spec.as_ref().and_then(|it| it.strategy.as_ref());
    let rolling = strategy.and_then(|it| it.rolling_update.as_ref());
    let wanted = replicas(deployment);
    let surge = rolling.and_then(|it| it.max_surge.as_ref());
    let surge = int_or_percent::scaled(surge, wanted, Round::Up);
    let unavailable = rolling.and_then(|it| it.max_unavailable.as_ref());
    let unavailable = int_or_percent::scaled(unavailable, wanted, Round::Down);
    match (surge, unavailable) {
        (0, 0) => (0, 1.min(wanted)),
        (surge, unavailable) => (surge, unavailable.min(wanted)),
    }
}

/// `web-5d59d67564`: the ReplicaSet of a template.
pub fn replica_set_name(deployment: &Deployment, hash: &str) -> String {
    let room = names::SUBDOMAIN_MOST - 1 - hash.len();
    let name = deployment.name();
    format!("{}-{hash}", name.get(..room).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn deployment(changes: Value) -> Deployment {
        let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let metadata = json!({"name": "web", "namespace": "ns"});
        let mut deployment: Deployment =
            from_value(&json!({"metadata": metadata, "spec": spec})).unwrap();
        Kind::default(&mut deployment);
        deployment
    }

    #[track_caller]
    fn check(changes: Value, expected: &str) {
        let mut errors = Errors::default();
        deployment(changes).validate(&mut errors);
        assert_eq!(errors.message(), expected);
    }

    #[test]
    fn a_deployment_rolls_by_a_quarter_unless_it_says_otherwise() {
        let it = deployment(json!({"replicas": 3}));
        assert_eq!(row(&it), "web | 0/3 | 0 | 0 | <unknown> | c | nginx | app=web");
        assert_eq!(fenceposts(&it), (1, 0));
        let by = |unavailable: Value, surge: Value| {
            let rolling = json!({"maxUnavailable": unavailable, "maxSurge": surge});
            fenceposts(&deployment(json!({"replicas": 3, "strategy": {"rollingUpdate": rolling}})))
        };
        assert_eq!(by(json!("10%"), json!(0)), (0, 1), "a rollout that cannot move takes one");
        assert_eq!(by(json!(9), json!("50%")), (2, 3));
        assert_eq!(fenceposts(&deployment(json!({"strategy": {"type": "Recreate"}}))), (0, 0));
    }

    #[test]
    fn a_strategy_must_let_something_move() {
        check(json!({}), "");
        check(
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        );
        check(
            json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        );
        check(
            json!({"selector": {}}),
            "[spec.selector: Required value, spec.template.metadata.labels: Invalid value: \
             {\"app\":\"web\"}: `selector` does not match template `labels`]",
        );
        check(
            json!({"strategy": {"type": "Odd"}}),
            "spec.strategy: Unsupported value: {\"Type\":\"Odd\",\"RollingUpdate\":null}: \
             supported values: \"Recreate\", \"RollingUpdate\"",
        );
        check(
            json!({"progressDeadlineSeconds": 5, "minReadySeconds": 5}),
            "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
        );
    }

    #[test]
    fn warns_of_odd_names_and_of_new_templates_only() {
        let mut new = deployment(json!({"template": {
            "metadata": {"labels": {"app": "web"}, "annotations": {
                "scheduler.alpha.kubernetes.io/critical-pod": ""}},
            "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}));
        new.metadata.name = Some("a.b".to_owned());
        new.prepare_create();
        assert_eq!(
            new.warnings(None),
            [
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
                "spec.template.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
            ]
        );
        assert!(new.warnings(Some(&new.clone())).is_empty());
    }

    #[test]
    fn annotations_count_as_a_new_generation() {
        let mut old = deployment(json!({}));
        old.prepare_create();
        let mut new = old.clone();
        new.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
        new.prepare_update(&old);
        assert_eq!(new.metadata.generation, Some(2));
    }
}
