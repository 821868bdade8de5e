//! What a Job's own rules make of pods that failed, and of indexes that succeeded.
//!
//! Upstream: `pkg/controller/job/{pod_failure_policy,success_policy,indexed_job_utils}.go` (1.36).

use super::{Look, indexes::Indexes};
use api::{
    Object,
    batch::v1::{PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy},
    core::v1::{ContainerStatus, Pod},
};

/// On a pod of a Job that counts failures by index: how often that index had failed before.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same, of failures that a rule ignored.
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What the rule that a failed pod meets says of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Count,
    Ignore,
    FailIndex,
    /// Why the Job fails.
    FailJob(String),
}

impl Look<'_> {
    /// The first rule that the pod meets; without one it counts.
    pub(super) fn verdict(&self, pod: &Pod) -> Verdict {
        let rules = self.spec.pod_failure_policy.iter().flat_map(|it| &it.rules);
        let met = rules.enumerate().find_map(|(nth, rule)| Some((nth, rule, reason(rule, pod)?)));
        let Some((nth, rule, reason)) = met else { return Verdict::Count };
        match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{reason} matching FailJob rule at index {nth}")),
            _ => Verdict::Count,
        }
    }

    /// Why a pod that failed ends the whole Job, if one does.
    pub(super) fn fatal(&self) -> Option<String> {
        self.spec.pod_failure_policy.as_ref()?;
        let failed = self.pods.iter().filter(|it| self.has_failed(it));
        failed.map(|it| self.verdict(it)).find_map(|it| match it {
            Verdict::FailJob(why) => Some(why),
            Verdict::Count | Verdict::Ignore | Verdict::FailIndex => None,
        })
    }

    /// Each index has its own limit of failures.
    pub(super) fn limits_indexes(&self) -> Option<i32> {
        self.indexed().and(self.spec.backoff_limit_per_index)
    }

    /// No pod will work for the index of this one again.
    pub(super) fn fails_index(&self, pod: &Pod) -> bool {
        let Some(limit) = self.limits_indexes() else { return false };
        match self.verdict(pod) {
            Verdict::FailIndex => true,
            Verdict::Ignore => false,
            Verdict::Count | Verdict::FailJob(_) => number(pod, FAILURES) >= limit,
        }
    }

    /// Failed pods that keep their place until they have a successor, which takes over their count.
    pub(super) fn awaits_successor(&self, pod: &Pod) -> bool {
        self.limits_indexes().is_some()
            && self.index_of(pod).is_some_and(|it| self.last_of(it, pod))
    }

    fn last_of(&self, index: i32, pod: &Pod) -> bool {
        let is_done =
            self.completed_indexes().contains(index) || self.failed_indexes().contains(index);
        let runs = self.active().any(|it| self.index_of(it) == Some(index));
        !is_done && !runs && self.failed_last(index).is_some_and(|it| it.uid() == pod.uid())
    }

    /// The failed pod of an index that was its latest, as long as it is not counted.
    pub(super) fn failed_last(&self, index: i32) -> Option<&Pod> {
        let failed = self.pods.iter().filter(|it| {
            self.index_of(it) == Some(index)
                && it.has_finalizer(api::batch::job::TRACKING)
                && self.has_failed(it)
        });
        failed.max_by_key(|it| {
            (number(it, FAILURES) + number(it, IGNORED), super::backoff::ended_at(it))
        })
    }

    /// Notes on a new pod how often its index failed.
    pub(super) fn pass_on_failures(&self, pod: &mut Pod, index: i32) {
        if self.limits_indexes().is_none() {
            return;
        }
        let (mut failures, mut ignored) = (0, 0);
        if let Some(before) = self.failed_last(index) {
            (failures, ignored) = (number(before, FAILURES), number(before, IGNORED));
            match self.verdict(before) {
                Verdict::Ignore => ignored += 1,
                Verdict::Count | Verdict::FailIndex | Verdict::FailJob(_) => failures += 1,
            }
        }
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(FAILURES.to_owned(), failures.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED.to_owned(), ignored.to_string());
        }
    }

    /// Which of the rules of success is met.
    pub(super) fn success(&self) -> Option<String> {
        let policy = self.spec.success_policy.as_ref().filter(|_| self.indexed().is_some())?;
        let nth = met(policy, &self.completed_indexes())?;
        Some(format!("Matched rules at index {nth}"))
    }
}

/// How often all pods of this pod's index failed, the ignored ones included.
pub(super) fn failures(pod: &Pod) -> i32 {
    number(pod, FAILURES) + number(pod, IGNORED)
}

fn number(pod: &Pod, annotation: &str) -> i32 {
    pod.annotation(annotation).and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// How a failed pod meets a rule, in words.
fn reason(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = format!("{}/{}", pod.namespace(), pod.name());
    if let Some(codes) = &rule.on_exit_codes {
        let containers = status.container_statuses.iter().flatten();
        let mut all = containers.chain(status.init_container_statuses.iter().flatten());
        let (container, code) =
            all.find_map(|it| Some((it.name.as_str(), exit_code(it, codes)?)))?;
        return Some(format!("Container {container} for pod {name} failed with exit code {code}"));
    }
    let wanted = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let condition = status.conditions.iter().flatten().find(|condition| {
        let meets = |it: &str| it == condition.status;
        wanted
            .iter()
            .any(|it| it.type_ == condition.type_ && meets(it.status.as_deref().unwrap_or("True")))
    });
    Some(format!("Pod {name} has condition {}", condition?.type_))
}

/// The code with which a container failed, if the rule means it.
fn exit_code(
    container: &ContainerStatus,
    rule: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<i32> {
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let named = rule.container_name.as_ref().is_none_or(|it| *it == container.name);
    let meant = rule.values.contains(&code) == (rule.operator == "In");
    (named && code != 0 && meant).then_some(code)
}

fn met(policy: &SuccessPolicy, succeeded: &Indexes) -> Option<usize> {
    if succeeded.count() == 0 {
        return None;
    }
    policy.rules.iter().position(|rule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(wanted), count) => {
            let (wanted, there) = succeeded.named(wanted);
            let enough = |count: i32| there >= usize::try_from(count).unwrap_or(0);
            wanted > 0 && (there == wanted || count.is_some_and(enough))
        }
        (None, Some(count)) => succeeded.count() >= count,
        (None, None) => false,
    })
}
