//! `batch/v1` Job: pods that run to their end, until enough of them succeeded.
//!
//! Upstream: `pkg/apis/batch/validation/validation.go`, `pkg/registry/batch/job/strategy.go`.

mod rules;
mod suspended;

use crate::{
    apps::{
        template,
        templated::{self, Templated},
    },
    field::Errors,
    k8s::api::{
        batch::v1::{Job, JobCondition, JobSpec, JobStatus},
        core::v1::PodTemplateSpec,
    },
    kind::{Column, Kind, Names, Object, Printing, Scope, Subresource},
    meta::{
        self, LabelSelector, Selector,
        absent::{fill, omit_zero, same, text},
        columns::{self, age, name},
        names, next_generation,
        validate::label_selector,
    },
};

/// On each pod of a Job: the Job's uid. Its selector asks for it.
pub const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
/// On each pod of a Job: the Job's name.
pub const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// The same two as they were called at first.
const OLD_LABELS: [&str; 2] = ["controller-uid", "job-name"];
/// On each pod of an indexed Job, as label and annotation: which of the completions it works for.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Keeps a Job's pod until the Job has counted it.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// With more, a Job's status would outgrow its object.
const MOST_PARALLEL: i32 = 100_000;

impl Kind for Job {
    const NAMES: Names =
        Names { plural: "jobs", singular: "job", short: &[], categories: &["all"] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/jobs";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = true;
    const ORPHANS: bool = true;
    const COLUMNS: &'static [Column<Job>] = &[
        name(),
        columns::text("Status", "What has become of it.", |job, _| state(job).into()),
        columns::text("Completions", "Pods that succeeded, of those needed.", |job, _| {
            completions_cell(job).into()
        }),
        columns::text("Duration", "How long it took, or has taken so far.", |job, printing| {
            duration_cell(job, printing).into()
        }),
        age(),
        templated::containers(),
        templated::images(),
        templated::selector(),
    ];

    fn default(&mut self) {
        let spec = self.spec.get_or_insert_default();
        if spec.completions.is_none() && spec.parallelism.is_none() {
            spec.completions = Some(1);
        }
        spec.parallelism.get_or_insert(1);
        // Each index has a limit of its own, or all together.
        let limit = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
        spec.backoff_limit.get_or_insert(limit);
        fill(&mut spec.completion_mode, "NonIndexed");
        spec.suspend.get_or_insert(false);
        spec.manual_selector.get_or_insert(false);
        let rules = spec.pod_failure_policy.is_some();
        let replaced = if rules { "Failed" } else { "TerminatingOrFailed" };
        fill(&mut spec.pod_replacement_policy, replaced);
        default_rules(spec);
        let labels = spec.template.metadata.as_ref().and_then(|it| it.labels.clone());
        if self.metadata.labels.as_ref().is_none_or(|it| it.is_empty()) && labels.is_some() {
            self.metadata.labels = labels;
        }
        let status = self.status.get_or_insert_default();
        for count in [&mut status.active, &mut status.succeeded, &mut status.failed] {
            omit_zero(count);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(JobStatus::default());
        self.metadata.generation = Some(1);
        if self.spec.as_ref().is_none_or(|it| it.manual_selector != Some(true)) {
            select_own_pods(self);
        }
    }

    fn prepare_update(&mut self, old: &Job) {
        self.status.clone_from(&old.status);
        let changed = !same(&self.spec, &old.spec);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn prepare_status(&mut self, old: &Job) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = JobSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        validate_spec(spec, errors);
        match &spec.selector {
            None => errors.required("spec.selector", ""),
            Some(selector) => {
                label_selector("spec.selector", selector, errors);
                template::validate_labels(&spec.template, selector, errors);
            }
        }
    }

    fn validate_update(&self, old: &Job, errors: &mut Errors) {
        let placeable = suspended::may_be_placed_anew(old);
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        // An indexed Job may change both numbers together, and only together.
        let elastic = text(&new.completion_mode) == "Indexed" && new.completions == new.parallelism;
        if !elastic {
            template::immutable("spec.completions", &new.completions, &old.completions, errors);
        }
        template::immutable("spec.selector", &new.selector, &old.selector, errors);
        if placeable {
            let before = suspended::placed_as(&old.template, &new.template);
            template::immutable("spec.template", &new.template, &before, errors);
        } else {
            template::immutable("spec.template", &new.template, &old.template, errors);
        }
        let (mode, before) = (&new.completion_mode, &old.completion_mode);
        template::immutable("spec.completionMode", mode, before, errors);
        let (rules, before) = (&new.pod_failure_policy, &old.pod_failure_policy);
        template::immutable("spec.podFailurePolicy", rules, before, errors);
        let (limit, before) = (&new.backoff_limit_per_index, &old.backoff_limit_per_index);
        template::immutable("spec.backoffLimitPerIndex", limit, before, errors);
        template::immutable("spec.managedBy", &new.managed_by, &old.managed_by, errors);
        template::immutable("spec.successPolicy", &new.success_policy, &old.success_policy, errors);
    }

    fn warnings(&self, old: Option<&Job>) -> Vec<String> {
        let of_name = templated::name_warning(self, old);
        let grows = old.is_none_or(|it| it.metadata.generation != self.metadata.generation);
        let much = self.spec.as_ref().filter(|_| grows).and_then(|it| much("spec", it));
        of_name.into_iter().chain(much).chain(templated::warnings(self, old)).collect()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let successful = self.status.as_ref().and_then(|it| it.succeeded).unwrap_or(0);
        vec![("status.successful", successful.to_string())]
    }
}

fn select_own_pods(job: &mut Job) {
    let (name, uid) = (job.name().to_owned(), job.uid().to_owned());
    let spec = job.spec.get_or_insert_default();
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    let ours =
        [(OLD_LABELS[1], &name), (NAME_LABEL, &name), (OLD_LABELS[0], &uid), (UID_LABEL, &uid)];
    for (label, value) in ours {
        labels.entry(label.to_owned()).or_insert_with(|| value.clone());
    }
    let selector = spec.selector.get_or_insert_with(LabelSelector::default);
    let labels = selector.match_labels.get_or_insert_default();
    labels.entry(UID_LABEL.to_owned()).or_insert(uid);
}

/// What is not said about a Job's pods; the same for the Jobs that somebody makes.
pub(crate) fn default_rules(spec: &mut JobSpec) {
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|it| &mut it.rules);
    for pattern in rules.flat_map(|it| it.on_pod_conditions.iter_mut().flatten()) {
        fill(&mut pattern.status, "True");
    }
    template::default_template(&mut spec.template);
}

/// The spec of a Job, or of the Jobs that somebody makes: those have no defaults yet.
pub(crate) fn validate_spec(spec: &JobSpec, errors: &mut Errors) {
    for (field, number) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
    ] {
        names::not_negative(format!("spec.{field}"), number.unwrap_or(0), errors);
    }
    match text(&spec.completion_mode) {
        "" | "NonIndexed" => {}
        "Indexed" => {
            if spec.completions.is_none() {
                errors.required("spec.completions", "when completion mode is Indexed");
            }
            if let Some(many) = spec.parallelism.filter(|it| *it > MOST_PARALLEL) {
                let detail = format!(
                    "must be less than or equal to {MOST_PARALLEL} when completion mode is Indexed"
                );
                errors.invalid("spec.parallelism", many, detail);
            }
        }
        mode => {
            errors.not_supported("spec.completionMode", mode, &["NonIndexed", "Indexed"]);
        }
    }
    rules::validate(spec, errors);
    let policy = text(&spec.pod_replacement_policy);
    let known: &[&str] = match spec.pod_failure_policy {
        // What ends a pod is known only when it has ended.
        Some(_) => &["Failed"],
        None => &["Failed", "TerminatingOrFailed"],
    };
    if !policy.is_empty() && !known.contains(&policy) {
        errors.not_supported("spec.podReplacementPolicy", policy, known);
    }
    template::validate_spec(&spec.template, errors);
    let path = "spec.template.spec.restartPolicy";
    match spec.template.spec.as_ref().map_or("", |it| text(&it.restart_policy)) {
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(path, "\"OnFailure\"", why);
        }
        "OnFailure" | "Never" => {}
        "" | "Always" => errors.required(path, "valid values: \"OnFailure\", \"Never\""),
        other => errors.not_supported(path, other, &["OnFailure", "Never"]),
    }
}

/// A condition that holds.
pub fn has(job: &Job, condition: &str) -> bool {
    conditions(job).iter().any(|it| it.type_ == condition && it.status == "True")
}

/// Complete or failed: nothing of it runs any more.
pub fn is_finished(job: &Job) -> bool {
    has(job, "Complete") || has(job, "Failed")
}

pub fn conditions(job: &Job) -> &[JobCondition] {
    job.status.as_ref().and_then(|it| it.conditions.as_deref()).unwrap_or_default()
}

fn state(job: &Job) -> &'static str {
    let known = [("Complete", "Complete"), ("Failed", "Failed")];
    let later = [
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ];
    let first = known.iter().find(|(condition, _)| has(job, condition));
    if let Some((_, state)) = first {
        return state;
    }
    if job.is_deleting() {
        return "Terminating";
    }
    later.iter().find(|(condition, _)| has(job, condition)).map_or("Running", |(_, state)| state)
}

fn completions_cell(job: &Job) -> String {
    let succeeded = job.status.as_ref().and_then(|it| it.succeeded).unwrap_or(0);
    let spec = job.spec.as_ref();
    match (spec.and_then(|it| it.completions), spec.and_then(|it| it.parallelism).unwrap_or(0)) {
        (Some(needed), _) => format!("{succeeded}/{needed}"),
        (None, parallel @ 2..) => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration_cell(job: &Job, printing: &Printing) -> String {
    let status = job.status.as_ref();
    let Some(start) = status.and_then(|it| it.start_time.as_ref()) else { return String::new() };
    let end = status.and_then(|it| it.completion_time.as_ref()).map(meta::timestamp_of);
    meta::age(Some(meta::timestamp_of(start)), end.unwrap_or(printing.now))
}

/// The sentence about a Job of more indexes than can be counted.
pub(super) fn much(path: &str, spec: &JobSpec) -> Option<String> {
    let many = text(&spec.completion_mode) == "Indexed"
        && spec.completions.unwrap_or(0) > MOST_PARALLEL
        && spec.parallelism.unwrap_or(0) > MOST_PARALLEL / 10;
    let what = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
    many.then(|| format!("{path}: {what}"))
}

impl Templated for Job {
    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.as_ref()?.template)
    }

    fn own_pods(&self) -> Selector {
        Selector::of(self.spec.as_ref().and_then(|it| it.selector.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn job(changes: Value) -> Job {
        let mut spec = json!({"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "busybox"}]}}});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let metadata = json!({"name": "set-up", "namespace": "ns", "uid": "u1"});
        let mut job: Job = from_value(&json!({"metadata": metadata, "spec": spec})).unwrap();
        Kind::default(&mut job);
        job.prepare_create();
        Kind::default(&mut job);
        job
    }

    #[track_caller]
    fn check(changes: Value, expected: &str) {
        let mut errors = Errors::default();
        job(changes).validate(&mut errors);
        assert_eq!(errors.message(), expected);
    }

    #[test]
    fn a_job_selects_its_own_pods_by_its_uid() {
        check(json!({}), "");
        let cells = "set-up | Running | 0/1 |  | <unknown> | c | busybox | batch.kubernetes.io/controller-uid=u1";
        assert_eq!(row(&job(json!({}))), cells);
        let labels = job(json!({})).spec.unwrap().template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels.get("job-name").map(String::as_str), Some("set-up"));
        assert_eq!(labels.get("controller-uid").map(String::as_str), Some("u1"));
    }

    #[test]
    fn a_job_that_waits_may_be_placed_anew_and_nothing_else() {
        let old = job(json!({"suspend": true}));
        let change = |old: &Job, change: &dyn Fn(&mut PodTemplateSpec)| {
            let mut new = old.clone();
            change(&mut new.spec.as_mut().unwrap().template);
            let mut errors = Errors::default();
            new.validate_update(old, &mut errors);
            errors.0.len()
        };
        let place: &dyn Fn(&mut PodTemplateSpec) = &|it| {
            let spec = it.spec.as_mut().unwrap();
            spec.node_selector = Some([("zone".to_owned(), "a".to_owned())].into());
            spec.affinity = Some(Default::default());
            spec.containers[0].resources = Some(Default::default());
            it.metadata.get_or_insert_default().annotations =
                Some([("a".into(), "b".into())].into());
        };
        let other: &dyn Fn(&mut PodTemplateSpec) = &|it| {
            it.spec.as_mut().unwrap().containers[0].image = Some("other".to_owned());
        };
        assert_eq!((change(&old, place), change(&old, other)), (0, 1));
        assert_eq!(change(&job(json!({})), place), 1, "it may be running");
        let mut running = old.clone();
        running.status = Some(JobStatus { active: Some(1), ..JobStatus::default() });
        assert_eq!(change(&running, place), 1, "its pods are not gone yet");
    }

    #[test]
    fn a_job_ends() {
        check(
            json!({"template": {"spec": {"containers": [{"name": "c", "image": "busybox"}]}}}),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        );
        check(
            json!({"completionMode": "Indexed", "parallelism": 2}),
            "spec.completions: Required value: when completion mode is Indexed",
        );
    }

    #[test]
    fn rules_of_failure_and_success_are_judged_in_upstreams_words() {
        let rule = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
        let codes = |values: Value| json!({"operator": "In", "values": values});
        check(rule(json!({"action": "FailJob", "onExitCodes": codes(json!([1, 42]))})), "");
        check(
            rule(json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]})),
            "",
        );
        let at = "spec.podFailurePolicy.rules[0]";
        for (given, why) in [
            (
                json!({"action": "Ignore"}),
                ": Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            ),
            (
                json!({"action": "FailIndex", "onExitCodes": codes(json!([1]))}),
                ".action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            ),
            (
                json!({"action": "Ignore", "onExitCodes": codes(json!([0]))}),
                ".onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
            ),
            (
                json!({"action": "Ignore", "onExitCodes": codes(json!([2, 1]))}),
                ".onExitCodes.values: Invalid value: [2,1]: must be ordered",
            ),
        ] {
            check(rule(given), &format!("{at}{why}"));
        }
        check(
            json!({"backoffLimitPerIndex": 1}),
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        );
        let indexed = |mut more: Value| {
            more["completionMode"] = json!("Indexed");
            more["completions"] = json!(3);
            more
        };
        check(indexed(json!({"backoffLimitPerIndex": 1, "maxFailedIndexes": 3})), "");
        check(
            indexed(json!({"maxFailedIndexes": 4})),
            "[spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified, spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions]",
        );
        let success = |rule: Value| indexed(json!({"successPolicy": {"rules": [rule]}}));
        check(success(json!({"succeededIndexes": "0,2", "succeededCount": 1})), "");
        check(
            success(json!({"succeededIndexes": "0,2", "succeededCount": 3})),
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
        );
        assert_eq!(
            job(indexed(json!({"backoffLimitPerIndex": 1}))).spec.unwrap().backoff_limit,
            Some(i32::MAX)
        );
    }

    #[test]
    fn the_template_of_a_job_stays() {
        let mut new = job(json!({}));
        let old = new.clone();
        new.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image =
            Some("other".to_owned());
        let mut errors = Errors::default();
        new.validate_update(&old, &mut errors);
        assert!(errors.message().starts_with("spec.template: Invalid value: "));
    }
}
