//! Job: pods that run to their end, until enough of them succeeded or too many failed.
//!
//! A pod and the Job's count of it change in one commit: that is why no pod is counted twice or not at
//! all, and why the status needs no list of pods that are about to be counted.
//!
//! Upstream: `pkg/controller/job/job_controller.go` (1.36), syncJob.

mod backoff;
mod ending;
mod indexes;
mod pods;
mod rules;

use crate::{namespace::is_terminating, ownership};
use api::{
    Failure, Object,
    batch::{
        job::{TRACKING, has, is_finished},
        v1::{Job, JobSpec, JobStatus},
    },
    core::{
        pod::{is_ready, is_terminal, phase},
        v1::Pod,
    },
    meta,
};
use indexes::Indexes;
use std::time::Duration;
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Touched, Watch, World};

pub struct JobController;

/// Pods made or removed by one plan.
const BURST: usize = 500;

impl Controller for JobController {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<Job>(),
            Watch::owned::<Pod, Job>(),
            Watch::mapped::<Pod>(job_of_released_pod),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(job) = world.get::<Job>(key) else {
            pods::let_go_of_orphans(world, key, "", &mut plan);
            return plan;
        };

        if is_managed_elsewhere(&job) {
            return plan;
        }
        let orphans = ownership::orphans(world, &key.namespace);
        ownership::settle::<Job, Pod>(world, &*job, orphans, &mut plan);
        if plan.steps.is_empty() {
            // Those that a Job of this name left behind, and those that it has let go.
            pods::let_go_of_orphans(world, key, job.uid(), &mut plan);
        }
        if !plan.steps.is_empty() {
            // The next look sees what is ours.
            return plan;
        }
        let all = world.owned::<Pod>(job.uid()).map(|it| it.to_owned()).collect();
        let mut look = Look {
            world,
            spec: job.spec.clone().unwrap_or_default(),
            job: job.to_owned(),
            pods: all,
            now,
            plan,
        };
        look.go();
        look.plan
    }

    fn refused(
        &self,
        world: &World,
        key: &ObjectKey,
        changes: &[Change],
        failure: &Failure,
        _now: Timestamp,
    ) -> Plan {
        ownership::refused::<Job>(world, key, changes, failure)
    }
}

/// Another controller says that the Job is its own.
fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|it| it.managed_by.as_deref());
    manager.is_some_and(|it| it != "kubernetes.io/job-controller")
}

/// A pod that bears our finalizer and has lost its owner.
fn job_of_released_pod(_: &World, touched: &Touched) -> Vec<ObjectKey> {
    let pod = touched.new.as_ref().filter(|it| {
        it.meta.controller().is_none() && it.meta.finalizers.iter().any(|it| it == TRACKING)
    });
    let name = pod.and_then(|it| it.meta.labels.get(api::batch::job::NAME_LABEL));
    name.map(|it| ObjectKey::new(&touched.key.namespace, it)).into_iter().collect()
}

/// One look at one Job. `job` gathers what its status is to say.
struct Look<'a> {
    world: &'a World,
    spec: JobSpec,
    job: Job,
    pods: Vec<Pod>,
    now: Timestamp,
    plan: Plan,
}

impl Look<'_> {
    fn go(&mut self) {
        let before = self.job.status.clone();
        if is_finished(&self.job) {
            self.count_ended(true);
            self.go_with_time();
            self.write_status(before);
            return;
        }
        if self.status().start_time.is_none() && !self.is_suspended() {
            self.status_mut().start_time = Some(meta::time(self.now));
        }
        self.count_indexes();
        self.judge_pods();
        self.count_ended(self.is_ending() || self.job.is_deleting());
        self.judge();
        if !self.is_ending() && !self.job.is_deleting() {
            self.note_suspension();
            self.run_pods();
        }
        self.tell_pods();
        self.end_when_all_have();
        self.write_status(before);
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn status_mut(&mut self) -> &mut JobStatus {
        self.job.status.get_or_insert_default()
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn is_ending(&self) -> bool {
        has(&self.job, "FailureTarget") || has(&self.job, "SuccessCriteriaMet")
    }

    fn indexed(&self) -> Option<i32> {
        let mode = self.spec.completion_mode.as_deref() == Some("Indexed");
        self.spec.completions.filter(|_| mode)
    }

    fn completed_indexes(&self) -> Indexes {
        let text = self.job.status.as_ref().and_then(|it| it.completed_indexes.as_deref());
        Indexes::read(text.unwrap_or_default(), self.indexed().unwrap_or(0))
    }

    fn failed_indexes(&self) -> Indexes {
        let text = self.job.status.as_ref().and_then(|it| it.failed_indexes.as_deref());
        Indexes::read(text.unwrap_or_default(), self.indexed().unwrap_or(0))
    }

    /// Which completion a pod works for: one that there is.
    fn index_of(&self, pod: &Pod) -> Option<i32> {
        let completions = self.indexed()?;
        indexes::of(pod).filter(|it| (0..completions).contains(it))
    }

    /// The Job may have grown or shrunk: what counts is what is done of the indexes that there are now.
    fn count_indexes(&mut self) {
        if self.indexed().is_none() {
            return;
        }
        let done = self.completed_indexes();
        let status = self.status_mut();
        status.succeeded = (done.count() > 0).then_some(done.count());
        status.completed_indexes = (done.count() > 0).then(|| done.to_string());
    }

    /// Pods in whose place no other may start.
    fn holders(&self) -> impl Iterator<Item = &Pod> {
        let waits = self.spec.pod_replacement_policy.as_deref() == Some("Failed");
        self.pods.iter().filter(move |it| !is_terminal(it) && (waits || !it.is_deleting()))
    }

    fn active(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|it| !is_terminal(it) && !it.is_deleting())
    }

    /// Whether the pod is lost to the Job: it failed, or it is on its way out and gets a successor now.
    fn has_failed(&self, pod: &Pod) -> bool {
        let replaces_at_once = self.spec.pod_replacement_policy.as_deref() != Some("Failed");
        match phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pod.is_deleting() && replaces_at_once,
        }
    }

    /// Counts pods that have ended; each in one commit with the loss of the finalizer that kept it.
    /// `all`: the Job is over, what still runs counts as failed.
    fn count_ended(&mut self, all: bool) {
        let kept: Vec<Pod> =
            self.pods.iter().filter(|it| it.has_finalizer(TRACKING)).cloned().collect();
        for mut pod in kept.into_iter().take(BURST) {
            let succeeded = phase(&pod) == "Succeeded";
            let gone = all && pod.is_deleting();
            if !succeeded && !self.has_failed(&pod) && !gone {
                continue;
            }
            if !succeeded {
                self.note_failed_index(&pod);
            }
            if !succeeded && !all && self.awaits_successor(&pod) {
                continue;
            }
            let mut indexes = self.completed_indexes();
            // What is stopped because enough succeeded did not fail.
            let failed = self.has_failed(&pod) || !has(&self.job, "SuccessCriteriaMet");
            let counts = failed && self.verdict(&pod) != rules::Verdict::Ignore;
            let index = self.index_of(&pod);
            let is_indexed = self.indexed().is_some();
            let status = self.status_mut();
            match (succeeded, index) {
                (true, Some(index)) => {
                    indexes.insert(index);
                    status.completed_indexes = Some(indexes.to_string());
                    status.succeeded = Some(indexes.count());
                }
                // Of an index that there is no more.
                (true, None) if is_indexed => {}
                (true, None) => status.succeeded = Some(status.succeeded.unwrap_or(0) + 1),
                (false, _) if counts => status.failed = Some(status.failed.unwrap_or(0) + 1),
                (false, _) => {}
            }
            let mut finalizers = pod.metadata.finalizers.take().unwrap_or_default();
            finalizers.retain(|it| it != TRACKING);
            pod.metadata.finalizers = (!finalizers.is_empty()).then_some(finalizers);
            self.plan.write([Change::update(pod), Change::status(self.job.clone())]);
        }
    }

    fn note_failed_index(&mut self, pod: &Pod) {
        let Some(index) = self.index_of(pod).filter(|_| self.fails_index(pod)) else { return };
        let mut failed = self.failed_indexes();
        failed.insert(index);
        self.status_mut().failed_indexes = Some(failed.to_string());
    }

    /// Starts and stops pods until as many run as are to.
    fn run_pods(&mut self) {
        let active: Vec<Pod> = self.active().cloned().collect();
        let running = i32::try_from(active.len()).unwrap_or(i32::MAX);
        let succeeded = self.status().succeeded.unwrap_or(0);
        let parallel = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            _ if self.is_suspended() => 0,
            // Whoever is first to succeed says that the work is done.
            None if succeeded > 0 => running,
            None => parallel,
            Some(needed) => (needed - succeeded).min(parallel).max(0),
        };
        let surplus = usize::try_from(running - wanted).unwrap_or(0);
        if surplus > 0 {
            let mut spare = active;
            let is_needed = |it: &Pod| self.indexed().is_none() || self.index_of(it).is_some();
            spare.sort_by_key(|it| (is_needed(it), is_ready(it), phase(it) == "Running"));
            for pod in spare.into_iter().take(surplus.min(BURST)) {
                self.stop(pod);
            }
            return;
        }
        let leaving = self.pods.iter().filter(|it| it.is_deleting() && !is_terminal(it)).count();
        let waits = self.spec.pod_replacement_policy.as_deref() == Some("Failed");
        let leaving = if waits { i32::try_from(leaving).unwrap_or(i32::MAX) } else { 0 };
        let missing = usize::try_from(wanted - running - leaving).unwrap_or(0);
        if missing == 0 || is_terminating(self.world, self.job.namespace()) {
            return;
        }
        let waits_together = self.limits_indexes().is_none();
        let wait = backoff::remaining(&self.pods, self.now).filter(|_| waits_together);
        if let Some(wait) = wait {
            self.come_back(wait);
            return;
        }
        self.start(missing.min(BURST));
    }

    /// How many pods there are, as they were when the look began.
    fn tell_pods(&mut self) {
        let count = |it: usize| i32::try_from(it).unwrap_or(i32::MAX);
        let active = count(self.active().count());
        let ready = count(self.active().filter(|it| is_ready(it)).count());
        let leaving = self.pods.iter().filter(|it| it.is_deleting() && !is_terminal(it)).count();
        let limits_indexes = self.limits_indexes().is_some();
        let status = self.status_mut();
        if limits_indexes {
            status.failed_indexes.get_or_insert_default();
        }
        status.active = (active > 0).then_some(active);
        status.ready = Some(ready);
        status.terminating = Some(count(leaving));
    }

    fn come_back(&mut self, after: Duration) {
        let sooner = self.plan.requeue.map_or(after, |it| it.min(after));
        self.plan.requeue = Some(sooner);
    }

    fn write_status(&mut self, before: Option<JobStatus>) {
        if self.job.status != before {
            self.plan.status = Some(Change::status(self.job.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
