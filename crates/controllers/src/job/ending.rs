//! How a Job ends: it has what it needs, too much failed, or its time is over. The verdict is noted at
//! once; `Complete` and `Failed` are said when nothing of it runs any more.
//!
//! Upstream: `pkg/controller/job/job_controller.go` (1.36), `pkg/controller/ttlafterfinished`.

use super::{Look, backoff};
use api::{
    Object,
    batch::{
        job::{conditions, has},
        v1::JobCondition,
    },
    core::pod::{is_terminal, phase},
    meta,
};
use std::time::Duration;
use stdx::Timestamp;
use world::{Change, Event};

/// Why a Job fails.
const REASONS: [&str; 5] = [
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
];

impl Look<'_> {
    /// Notes the verdict, once there is one, and stops what still runs.
    pub(super) fn judge(&mut self) {
        if !self.is_ending() {
            let verdict =
                self.failure().map(|(reason, why)| ("FailureTarget", reason, why.to_owned()));
            let met = |reason, why| ("SuccessCriteriaMet", reason, why);
            let verdict = verdict.or_else(|| Some(met("SuccessPolicy", self.success()?)));
            let verdict = verdict.or_else(|| {
                let why = "Reached expected number of succeeded pods".to_owned();
                self.has_enough().then(|| met("CompletionsReached", why))
            });
            let Some((kind, reason, message)) = verdict else { return };
            self.set_condition(kind, "True", reason, &message);
        }
        let running: Vec<_> = self.active().cloned().collect();
        for pod in running {
            let message = format!("Deleted pod: {}", pod.name());
            self.plan.write([Change::delete(&pod)]);
            self.plan.event(Event::normal(&self.job, "SuccessfulDelete", message));
        }
    }

    /// A pod that failed in a way that the Job does not survive; noted before any pod is let go of.
    pub(super) fn judge_pods(&mut self) {
        if let Some(why) = self.fatal().filter(|_| !self.is_ending()) {
            self.set_condition("FailureTarget", "True", "PodFailurePolicy", &why);
        }
    }

    fn failure(&mut self) -> Option<(&'static str, &'static str)> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.status().failed.unwrap_or(0) > limit || self.restarts_exceed(limit) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        if let Some(end) = self.deadline() {
            if end <= self.now {
                return Some(("DeadlineExceeded", "Job was active longer than specified deadline"));
            }
            self.come_back(end.since(self.now));
        }
        self.failed_too_widely()
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.spec.active_deadline_seconds.filter(|_| !self.is_suspended())?;
        let start = meta::timestamp_of(self.status().start_time.as_ref()?);
        Some(start.plus(Duration::from_secs(seconds.unsigned_abs())))
    }

    /// Too many indexes failed, or nothing but failed ones is left.
    fn failed_too_widely(&self) -> Option<(&'static str, &'static str)> {
        self.limits_indexes()?;
        let (failed, done) = (self.failed_indexes().count(), self.completed_indexes().count());
        if self.spec.max_failed_indexes.is_some_and(|most| failed > most) {
            let why = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", why));
        }
        let all = failed > 0 && failed + done >= self.spec.completions.unwrap_or(0);
        all.then_some(("FailedIndexes", "Job has failed indexes"))
    }

    /// Containers that are started again in their pod count as failures, too.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|it| it.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let pods = self.pods.iter().filter(|it| matches!(phase(it), "Running" | "Pending"));
        let statuses = pods.filter_map(|it| it.status.as_ref()).flat_map(|it| {
            it.init_container_statuses.iter().chain(&it.container_statuses).flatten()
        });
        let restarts: i32 = statuses.map(|it| it.restart_count).sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn has_enough(&self) -> bool {
        let succeeded = self.status().succeeded.unwrap_or(0);
        match self.spec.completions {
            None => succeeded > 0 && self.active().next().is_none(),
            Some(needed) => succeeded >= needed,
        }
    }

    /// Says that the Job is over, once it is.
    pub(super) fn end_when_all_have(&mut self) {
        if !self.is_ending() || self.pods.iter().any(|it| !is_terminal(it)) {
            return;
        }
        let verdict = conditions(&self.job).iter().find(|it| {
            it.status == "True" && matches!(&*it.type_, "FailureTarget" | "SuccessCriteriaMet")
        });
        let Some(verdict) = verdict.cloned() else { return };
        let reason = verdict.reason.unwrap_or_default();
        let message = verdict.message.unwrap_or_default();
        if verdict.type_ == "SuccessCriteriaMet" {
            let end = self.pods.iter().filter_map(backoff::ended_at).max().unwrap_or(self.now);
            self.status_mut().completion_time = Some(meta::time(end));
            self.set_condition("Complete", "True", &reason, &message);
            self.plan.event(Event::normal(&self.job, "Completed", "Job completed"));
        } else {
            self.set_condition("Failed", "True", &reason, &message);
            let known = REASONS.iter().find(|it| **it == reason);
            let reason = known.copied().unwrap_or("BackoffLimitExceeded");
            self.plan.event(Event::warning(&self.job, reason, message));
        }
        let status = self.status_mut();
        (status.active, status.ready, status.terminating) = (None, Some(0), Some(0));
        self.go_with_time();
    }

    /// A finished Job goes by itself after its time.
    pub(super) fn go_with_time(&mut self) {
        let Some(seconds) = self.spec.ttl_seconds_after_finished else { return };
        let ended = |it: &&JobCondition| matches!(&*it.type_, "Complete" | "Failed");
        let Some(end) = conditions(&self.job).iter().find(ended) else { return };
        let Some(end) = end.last_transition_time.as_ref().map(meta::timestamp_of) else { return };
        let wait = end.plus(Duration::from_secs(seconds.unsigned_abs().into())).since(self.now);
        if !wait.is_zero() {
            self.come_back(wait);
        } else if !self.job.is_deleting() {
            self.plan.write([Change::delete(&self.job)]);
        }
    }

    pub(super) fn note_suspension(&mut self) {
        let was = has(&self.job, "Suspended");
        match (self.is_suspended(), was) {
            (true, false) => {
                self.set_condition("Suspended", "True", "JobSuspended", "Job suspended");
                self.status_mut().start_time = None;
                self.plan.event(Event::normal(&self.job, "Suspended", "Job suspended"));
            }
            (false, true) => {
                self.set_condition("Suspended", "False", "JobResumed", "Job resumed");
                let now: Timestamp = self.now;
                self.status_mut().start_time = Some(meta::time(now));
                self.plan.event(Event::normal(&self.job, "Resumed", "Job resumed"));
            }
            (true, true) | (false, false) => {}
        }
    }

    fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let now = Some(meta::time(self.now));
        let condition = JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: now.clone(),
            last_transition_time: now,
        };
        let conditions = self.status_mut().conditions.get_or_insert_default();
        conditions.retain(|it| it.type_ != kind);
        conditions.push(condition);
    }
}
