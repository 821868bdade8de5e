//! When a CronJob was due last and is due next, and how many times it was missed.
//!
//! Upstream: `pkg/controller/cronjob/utils.go` (1.36), mostRecentScheduleTime, nextScheduleTimeDuration.

use api::{
    batch::{schedule::Schedule, v1::CronJob},
    meta,
};
use std::time::Duration;
use stdx::Timestamp;

/// Clocks of several machines differ by less.
const SLACK: Duration = Duration::from_millis(100);

/// More would mean that a clock was wrong rather than that the server was away.
const MISSED_MANY: i64 = 100;

/// The schedule is well formed, and no two of its moments are apart: 31 February.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub(super) struct Never;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// From where on moments were looked for.
    since: Timestamp,
    /// The last moment that is not in the future.
    pub at: Option<Timestamp>,
    missed: i64,
}

impl Due {
    pub(super) fn missed_many(&self) -> bool {
        self.missed > MISSED_MANY
    }
}

/// The last moment at which a Job was to start and did not. What the starting deadline has passed is not
/// looked at.
pub(super) fn unmet(cron_job: &CronJob, schedule: &Schedule, now: Timestamp) -> Result<Due, Never> {
    let deadline = cron_job.spec.starting_deadline_seconds;
    let seconds = deadline.and_then(|it| u64::try_from(it).ok());
    let since = since(cron_job);
    last(seconds.map_or(since, |it| since.max(now.minus(Duration::from_secs(it)))), schedule, now)
}

/// How long until the next moment; none if there is none.
pub(super) fn wait(cron_job: &CronJob, schedule: &Schedule, now: Timestamp) -> Option<Duration> {
    let from = match last(since(cron_job), schedule, now) {
        Err(Never) => now,
        Ok(Due { at: Some(at), .. }) => at,
        Ok(Due { since, missed: 0, .. }) => since,
        Ok(_) => now,
    };
    Some(schedule.next(from)?.plus(SLACK).since(now))
}

fn since(cron_job: &CronJob) -> Timestamp {
    let last = cron_job.status.as_ref().and_then(|it| it.last_schedule_time.as_ref());
    let time = last.or(cron_job.metadata.creation_timestamp.as_ref());
    time.map(meta::timestamp_of).unwrap_or_default()
}

fn last(since: Timestamp, schedule: &Schedule, now: Timestamp) -> Result<Due, Never> {
    let first = schedule.next(since).ok_or(Never)?;
    if now < first {
        return Ok(Due { since, at: None, missed: 0 });
    }
    let second = schedule.next(first).ok_or(Never)?;
    if now < second {
        return Ok(Due { since, at: Some(first), missed: 0 });
    }
    let between = second.since(first).as_secs();
    let between = i64::try_from(between).ok().filter(|it| *it > 0).ok_or(Never)?;
    // A guess, right for schedules with equal distances; from a little before it, each moment is walked.
    let missed = (now.seconds() - first.seconds()) / between + 1;
    let mut at = None;
    let mut next = schedule.next(Timestamp(first.0 + (missed - 2) * between * 1_000_000));
    while let Some(moment) = next.filter(|it| *it <= now) {
        at = Some(moment);
        next = schedule.next(moment);
    }
    Ok(Due { since, at, missed })
}
