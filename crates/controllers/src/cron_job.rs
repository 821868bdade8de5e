//! CronJob: starts a Job of its template whenever its schedule says so, and clears away old ones.
//!
//! A Job and the moment that it was started for are written in one commit, so that no moment starts two
//! Jobs and none is forgotten. Deviation: a changed schedule is looked at when it changes, so that a moment
//! which it would have met since the last start starts a Job at once; upstream waits for the next one.
//!
//! Upstream: `pkg/controller/cronjob/cronjob_controllerv2.go` (1.36), sync.

mod due;

use crate::{namespace::is_terminating, owner};
use api::{
    Failure, Object,
    batch::{
        cron_job::{SCHEDULED_AT, local_text, mail_text, names_zone, schedule_of},
        job::{has, is_finished},
        schedule::{self, Schedule},
        v1::{CronJob, CronJobStatus, Job},
    },
    core::v1::ObjectReference,
    deletion::Propagation,
    meta,
};
use stdx::Timestamp;
use world::{Change, Controller, Event, Expected, ObjectKey, Plan, Verb, Watch, World};

pub struct CronJobController;

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<CronJob>(), Watch::owned::<Job, CronJob>()]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(cron_job) = world.get::<CronJob>(key) else { return Plan::default() };
        let is_own = |job: &Job| {
            let mut owners = job.metadata.owner_references.iter().flatten();
            owners.any(|it| it.controller == Some(true) && it.uid == cron_job.uid())
        };
        let jobs = world.owned::<Job>(cron_job.uid()).map(|it| it.to_owned());
        let mut look = Look {
            world,
            jobs: jobs.filter(is_own).collect(),
            cron_job: cron_job.to_owned(),
            now,
            plan: Plan::default(),
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
        let mut plan = Plan::default();
        let makes = changes.iter().any(|it| it.verb == Verb::Create);
        if let Some(cron_job) = world.get::<CronJob>(key).filter(|_| makes) {
            let message = format!("Error creating job: {failure}");
            plan.event(Event::warning(&*cron_job, "FailedCreate", message));
        }
        plan
    }
}

/// One look at one CronJob. `cron_job` gathers what its status is to say.
struct Look<'a> {
    world: &'a World,
    cron_job: CronJob,
    jobs: Vec<Job>,
    now: Timestamp,
    plan: Plan,
}

impl Look<'_> {
    fn go(&mut self) {
        let before = self.cron_job.status.clone();
        self.note_jobs();
        self.clear_away("Complete", self.cron_job.spec.successful_jobs_history_limit);
        self.clear_away("Failed", self.cron_job.spec.failed_jobs_history_limit);
        let started = self.start_when_due();
        let changed = self.cron_job.status != before;
        match started {
            Some(job) => {
                let status = Change::status(self.cron_job.clone());
                self.plan.write([Change::create(job), status]);
            }
            None if changed => self.plan.status = Some(Change::status(self.cron_job.clone())),
            None => {}
        }
    }

    fn status(&mut self) -> &mut CronJobStatus {
        self.cron_job.status.get_or_insert_default()
    }

    fn active(&self) -> &[ObjectReference] {
        let status = self.cron_job.status.as_ref();
        status.and_then(|it| it.active.as_deref()).unwrap_or_default()
    }

    fn is_active(&self, job: &Job) -> bool {
        self.active().iter().any(|it| it.uid.as_deref() == Some(job.uid()))
    }

    fn forget(&mut self, uid: &str) {
        let mut active = self.active().to_vec();
        active.retain(|it| it.uid.as_deref() != Some(uid));
        self.status().active = (!active.is_empty()).then_some(active);
    }

    /// Which Jobs run, which came to an end, which are gone.
    fn note_jobs(&mut self) {
        for job in self.jobs.clone() {
            match (is_finished(&job), self.is_active(&job)) {
                (false, true) => {}
                (false, false) if self.was_started_here(&job) => {
                    self.status().active.get_or_insert_default().push(reference(&job));
                }
                (false, false) => {
                    let name = job.name();
                    let message =
                        format!("Saw a job that the controller did not create or forgot: {name}");
                    self.plan.event(Event::warning(&self.cron_job, "UnexpectedJob", message));
                }
                (true, is_active) => {
                    if is_active {
                        self.forget(job.uid());
                        let end = if has(&job, "Complete") { "Complete" } else { "Failed" };
                        let name = job.name();
                        let message = format!("Saw completed job: {name}, condition: {end}");
                        self.plan.event(Event::normal(&self.cron_job, "SawCompletedJob", message));
                    }
                    self.note_success(&job);
                }
            }
        }
        for missing in self.active().to_vec() {
            let uid = missing.uid.unwrap_or_default();
            if !self.jobs.iter().any(|it| it.uid() == uid) {
                self.forget(&uid);
                let name = missing.name.unwrap_or_default();
                let message = format!("Active job went missing: {name}");
                self.plan.event(Event::normal(&self.cron_job, "MissingJob", message));
            }
        }
    }

    /// Whether a Job bears the name of the moment that it was started for.
    fn was_started_here(&self, job: &Job) -> bool {
        let at = job.annotation(SCHEDULED_AT).and_then(Timestamp::parse);
        at.is_some_and(|it| job_name(&self.cron_job, it) == job.name())
    }

    fn note_success(&mut self, job: &Job) {
        let Some(end) = job.status.as_ref().and_then(|it| it.completion_time.clone()) else {
            return;
        };
        if !has(job, "Complete") {
            return;
        }
        let last = &mut self.status().last_successful_time;
        if last.as_ref().is_none_or(|it| *it < end) {
            *last = Some(end);
        }
    }

    /// Keeps so many Jobs that came to this end; the oldest go first.
    fn clear_away(&mut self, end: &str, keep: Option<i32>) {
        let Some(keep) = keep.and_then(|it| usize::try_from(it).ok()) else { return };
        let ended = self.jobs.iter().filter(|it| has(it, end) && !it.is_deleting());
        let mut ended: Vec<Job> = ended.cloned().collect();
        let start = |job: &Job| {
            let time = job.status.as_ref().and_then(|it| it.start_time.clone());
            (time.is_none(), time, job.name().to_owned())
        };
        ended.sort_by_key(start);
        let surplus = ended.len().saturating_sub(keep);
        for job in &ended[..surplus] {
            self.delete(job);
        }
    }

    fn delete(&mut self, job: &Job) {
        let verb = Verb::Delete { grace_seconds: None, propagation: Some(Propagation::Background) };
        self.plan.write([Change {
            verb,
            kind: api::kind_of::<Job>().clone(),
            key: ObjectKey::of(job),
            expected: Expected::Uid(job.uid().to_owned()),
            object: None,
        }]);
        self.forget(job.uid());
        let message = format!("Deleted job {}", job.name());
        self.plan.event(Event::normal(&self.cron_job, "SuccessfulDelete", message));
    }

    /// The Job that is due, if there is one; and when to look again.
    fn start_when_due(&mut self) -> Option<Job> {
        if self.cron_job.is_deleting() {
            return None;
        }
        let spec = &self.cron_job.spec;
        if let Some(zone) = &spec.time_zone
            && let Err(error) = schedule::zone(zone)
        {
            self.warn("UnknownTimeZone", format!("invalid timeZone: {zone:?}: {error}"));
            return None;
        }
        if spec.suspend == Some(true) {
            return None;
        }
        let text = spec.schedule.clone();
        if names_zone(&text) {
            let message = format!(
                "CRON_TZ or TZ used in schedule {text:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            );
            self.warn("UnsupportedSchedule", message);
        }
        let schedule = match schedule_of(&self.cron_job.spec) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {text:?} : {error}");
                self.warn("UnparseableSchedule", message);
                return None;
            }
        };
        let due = match due::unmet(&self.cron_job, &schedule, self.now) {
            Ok(due) => due,
            Err(error) => {
                self.warn("InvalidSchedule", format!("invalid schedule: {text} : {error}"));
                return None;
            }
        };
        if due.missed_many() && due.at.is_some() {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", message.to_owned());
        }
        let job = due.at.and_then(|at| self.start(at));
        self.come_back(&schedule);
        job
    }

    /// The Job of one moment, unless something is against it.
    fn start(&mut self, at: Timestamp) -> Option<Job> {
        let spec = &self.cron_job.spec;
        let deadline = spec.starting_deadline_seconds.and_then(|it| u64::try_from(it).ok());
        if deadline.is_some_and(|it| at.plus(std::time::Duration::from_secs(it)) < self.now) {
            let when = mail_text(at);
            let message = format!("Missed scheduled time to start a job: {when}");
            self.warn("MissSchedule", message);
            return None;
        }
        let name = job_name(&self.cron_job, at);
        let last = self.cron_job.status.as_ref().and_then(|it| it.last_schedule_time.as_ref());
        let is_done = last.is_some_and(|it| meta::timestamp_of(it).seconds() == at.seconds());
        if is_done || self.active().iter().any(|it| it.name.as_deref() == Some(&name)) {
            return None;
        }
        match self.cron_job.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !self.active().is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.plan.event(Event::normal(&self.cron_job, "JobAlreadyActive", message));
                return None;
            }
            Some("Replace") => {
                let running: Vec<Job> =
                    self.jobs.iter().filter(|it| self.is_active(it)).cloned().collect();
                for job in running {
                    self.delete(&job);
                }
            }
            _ => {}
        }
        if is_terminating(self.world, self.cron_job.namespace()) {
            return None;
        }
        let key = ObjectKey::new(self.cron_job.namespace(), &name);
        match self.world.get::<Job>(&key) {
            // Somebody else's, or ours and over: its moment has had its Job.
            Some(there) => {
                if self.jobs.iter().any(|it| it.uid() == there.uid()) {
                    self.status().last_schedule_time = Some(meta::time(at));
                }
                None
            }
            None => {
                self.status().last_schedule_time = Some(meta::time(at));
                let message = format!("Created job {name}");
                self.plan.event(Event::normal(&self.cron_job, "SuccessfulCreate", message));
                Some(self.job(&name, at))
            }
        }
    }

    fn job(&self, name: &str, at: Timestamp) -> Job {
        let template = &self.cron_job.spec.job_template;
        let from = template.metadata.clone().unwrap_or_default();
        let mut annotations = from.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED_AT.to_owned(), local_text(&self.cron_job.spec, at));
        let mut job = Job { spec: template.spec.clone(), ..Job::default() };
        job.metadata.name = Some(name.to_owned());
        job.metadata.namespace = Some(self.cron_job.namespace().to_owned());
        job.metadata.labels = from.labels;
        job.metadata.annotations = Some(annotations);
        job.metadata.owner_references = Some(vec![owner(&self.cron_job)]);
        job
    }

    fn come_back(&mut self, schedule: &Schedule) {
        self.plan.requeue = due::wait(&self.cron_job, schedule, self.now);
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        self.plan.event(Event::warning(&self.cron_job, reason, message));
    }
}

/// `backup-29920920`: minutes since 1970, so that one moment has one name.
fn job_name(cron_job: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron_job.name(), at.seconds() / 60)
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some(<Job as api::k8s::Resource>::API_VERSION.to_owned()),
        kind: Some(<Job as api::k8s::Resource>::KIND.to_owned()),
        namespace: Some(job.namespace().to_owned()),
        name: Some(job.name().to_owned()),
        uid: Some(job.uid().to_owned()),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

#[cfg(test)]
mod tests;
