//! One CronJob through its hours, at times that the test says.

use super::*;
use crate::testing::world;

/// Minutes after 10:00 of the day on which it was made.
fn at(minute: i64) -> Timestamp {
    Timestamp::parse("2026-11-21T10:00:00Z")
        .unwrap()
        .plus(std::time::Duration::from_secs(u64::try_from(minute * 60).unwrap()))
}

fn key() -> ObjectKey {
    ObjectKey::new("ns", "tick")
}

fn ticking(more: &str) -> World {
    world(&format!(
        "{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: tick, namespace: ns, uid: c,
            creationTimestamp: '2026-11-21T10:00:30Z'}},
          spec: {{schedule: '*/5 * * * *', {more} jobTemplate: {{metadata: {{labels: {{app: tick}}}},
            spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}}}}}}}"
    ))
}

/// Looks until nothing moves; what was told, besides.
fn settle(mut world: World, minute: i64) -> (World, String) {
    let mut told = String::new();
    for _ in 0..20 {
        let before = world.revision;
        let plan = CronJobController.reconcile(&world, &key(), at(minute));
        let events = plan.events.iter().map(|it| format!("{}: {}\n", it.reason, it.message));
        told.extend(events);
        world = world.after(&plan, at(minute));
        if world.revision == before {
            return (world, told);
        }
    }
    panic!("it never comes to rest");
}

fn jobs(world: &World) -> Vec<Job> {
    world.list::<Job>("ns").map(|it| it.to_owned()).collect()
}

fn active(world: &World) -> Vec<String> {
    let status = world.get::<CronJob>(&key()).unwrap().status.clone().unwrap();
    status.active.unwrap_or_default().into_iter().filter_map(|it| it.name).collect()
}

fn end(world: World, name: &str, condition: &str, minute: i64) -> World {
    let job = world.get::<Job>(&ObjectKey::new("ns", name)).unwrap();
    let mut job = job.to_owned();
    let status = job.status.get_or_insert_default();
    status.start_time = Some(meta::time(at(minute - 1)));
    status.completion_time = (condition == "Complete").then(|| meta::time(at(minute)));
    status.conditions = Some(vec![api::batch::v1::JobCondition {
        type_: condition.to_owned(),
        status: "True".to_owned(),
        ..Default::default()
    }]);
    let mut plan = Plan::default();
    plan.write([Change::status(job)]);
    world.after(&plan, at(minute))
}

#[test]
fn starts_a_job_at_its_minute_and_not_before() {
    let (world, told) = settle(ticking("timeZone: Asia/Kolkata,"), 4);
    assert!(jobs(&world).is_empty() && told.is_empty());
    let plan = CronJobController.reconcile(&world, &key(), at(4));
    assert_eq!(plan.to_string(), "requeue 60.1s\n");

    let (world, told) = settle(world, 5);
    assert_eq!(told, "SuccessfulCreate: Created job tick-29920925\n");
    let [job] = jobs(&world).try_into().unwrap();
    assert_eq!(job.annotation(SCHEDULED_AT), Some("2026-11-21T15:35:00+05:30"));
    assert_eq!(job.label("app"), Some("tick"));
    assert_eq!(active(&world), ["tick-29920925"]);
    let status = world.get::<CronJob>(&key()).unwrap().status.clone().unwrap();
    assert_eq!(status.last_schedule_time, Some(meta::time(at(5))));

    let (world, told) = settle(end(world, "tick-29920925", "Complete", 7), 7);
    assert_eq!(told, "SawCompletedJob: Saw completed job: tick-29920925, condition: Complete\n");
    let status = world.get::<CronJob>(&key()).unwrap().status.clone().unwrap();
    assert_eq!((status.active, status.last_successful_time), (None, Some(meta::time(at(7)))));
}

#[test]
fn a_moment_has_one_job_even_if_that_is_deleted_at_once() {
    let (mut world, _) = settle(ticking(""), 5);
    world.remove(api::kind_of::<Job>(), &ObjectKey::new("ns", "tick-29920925"), world.revision + 1);
    let (world, told) = settle(world, 6);
    assert_eq!(told, "MissingJob: Active job went missing: tick-29920925\n");
    assert!(jobs(&world).is_empty());
}

#[test]
fn runs_may_overlap_or_wait_or_replace_each_other() {
    for (policy, left, second) in [
        (
            "Allow",
            vec!["tick-29920925", "tick-29920930"],
            "SuccessfulCreate: Created job tick-29920930\n",
        ),
        (
            "Forbid",
            vec!["tick-29920925"],
            "JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid\n",
        ),
        (
            "Replace",
            vec!["tick-29920930"],
            "SuccessfulDelete: Deleted job tick-29920925\nSuccessfulCreate: Created job tick-29920930\n",
        ),
    ] {
        let (world, _) = settle(ticking(&format!("concurrencyPolicy: {policy},")), 5);
        let (world, told) = settle(world, 10);
        assert_eq!(told, second, "{policy}");
        assert_eq!(active(&world), left, "{policy}");
        let names: Vec<String> = jobs(&world).iter().map(|it| it.name().to_owned()).collect();
        assert_eq!(names, left, "{policy}");
    }
}

#[test]
fn what_waited_for_its_turn_starts_when_the_other_is_done() {
    let (world, _) = settle(ticking("concurrencyPolicy: Forbid,"), 5);
    let (world, _) = settle(world, 10);
    let (world, told) = settle(end(world, "tick-29920925", "Failed", 11), 11);
    assert!(told.ends_with("SuccessfulCreate: Created job tick-29920930\n"), "{told}");
    assert_eq!(active(&world), ["tick-29920930"]);
}

#[test]
fn only_the_last_of_missed_moments_is_made_up_for_and_many_are_told() {
    let (world, told) = settle(ticking(""), 63);
    assert_eq!(told, "SuccessfulCreate: Created job tick-29920980\n");
    assert_eq!(jobs(&world).len(), 1);
    let (_, told) = settle(ticking(""), 5 * 102);
    assert!(told.starts_with("TooManyMissedTimes: too many missed start times."), "{told}");
    assert!(told.contains("SuccessfulCreate"), "{told}");
}

#[test]
fn what_could_not_start_in_time_does_not_start() {
    let (world, told) = settle(ticking("startingDeadlineSeconds: 60,"), 8);
    assert!(jobs(&world).is_empty(), "{told}");
    let (world, _) = settle(ticking("startingDeadlineSeconds: 120,"), 7);
    assert_eq!(jobs(&world).len(), 0, "the deadline itself is too late");
    let (world, _) = settle(ticking("startingDeadlineSeconds: 121,"), 7);
    assert_eq!(jobs(&world).len(), 1);
}

#[test]
fn suspended_it_starts_nothing() {
    let (world, told) = settle(ticking("suspend: true,"), 20);
    assert!(jobs(&world).is_empty() && told.is_empty());
    let plan = CronJobController.reconcile(&world, &key(), at(20));
    assert!(plan.is_empty(), "{plan}");
}

#[test]
fn keeps_so_many_jobs_that_are_over() {
    let mut world = ticking("successfulJobsHistoryLimit: 1, failedJobsHistoryLimit: 0,");
    for minute in [5, 10, 15] {
        (world, _) = settle(world, minute);
        let name = format!("tick-{}", 29920920 + minute);
        let condition = if minute == 15 { "Failed" } else { "Complete" };
        (world, _) = settle(end(world, &name, condition, minute + 1), minute + 1);
    }
    let names: Vec<String> = jobs(&world).iter().map(|it| it.name().to_owned()).collect();
    assert_eq!(names, ["tick-29920930"]);
}

#[test]
fn a_schedule_that_never_comes_is_told() {
    let world = ticking("timeZone: Etc/UTC,");
    let mut odd = world.get::<CronJob>(&key()).unwrap().to_owned();
    for (schedule, expected) in [
        (
            "59 23 31 2 *",
            "InvalidSchedule: invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 second\n",
        ),
        (
            "soon",
            "UnparseableSchedule: unparseable schedule: \"soon\" : expected exactly 5 fields, found 1: [soon]\n",
        ),
    ] {
        odd.spec.schedule = schedule.to_owned();
        let mut plan = Plan::default();
        plan.write([Change::update(odd.clone())]);
        let (_, told) = settle(world.after(&plan, at(1)), 5);
        assert_eq!(told, expected);
    }
}

#[test]
fn a_job_that_somebody_made_of_it_is_not_counted_as_its_own_start() {
    let world = ticking("");
    let cron_job = world.get::<CronJob>(&key()).unwrap();
    let mut job = Job { spec: cron_job.spec.job_template.spec.clone(), ..Job::default() };
    job.metadata.name = Some("by-hand".to_owned());
    job.metadata.namespace = Some("ns".to_owned());
    job.metadata.owner_references = Some(vec![owner(&*cron_job)]);
    let mut plan = Plan::default();
    plan.write([Change::create(job)]);
    let (world, told) = settle(world.after(&plan, at(1)), 2);
    assert!(
        told.starts_with("UnexpectedJob: Saw a job that the controller did not create"),
        "{told}"
    );
    assert!(active(&world).is_empty());
}
