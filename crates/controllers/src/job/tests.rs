//! Pods that end as the test wants: counts, waits, verdicts.

use super::*;
use crate::testing::world;

fn job(more: &str) -> String {
    format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {{name: work, namespace: ns, uid: j, generation: 1}},
          spec: {{{more} manualSelector: true, selector: {{matchLabels: {{app: work}}}},
          template: {{metadata: {{labels: {{app: work, 'batch.kubernetes.io/job-name': work}}}},
          spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}}}"
    )
}

fn key() -> ObjectKey {
    ObjectKey::new("ns", "work")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(10_000 + seconds)
}

/// Looks until nothing moves.
fn settle(mut world: World, seconds: i64) -> World {
    for _ in 0..50 {
        let before = world.revision;
        world = world.after(&JobController.reconcile(&world, &key(), at(seconds)), at(seconds));
        if world.revision == before {
            return world;
        }
    }
    panic!("it never comes to rest");
}

fn running(world: &World) -> Vec<Pod> {
    let pods = world.list::<Pod>("ns").filter(|it| !is_terminal(it) && !it.is_deleting());
    pods.map(|it| it.to_owned()).collect()
}

fn end(world: World, pod: &Pod, as_phase: &str, seconds: i64) -> World {
    let mut pod = pod.clone();
    let time = meta::time(at(seconds));
    let terminated =
        api::core::v1::ContainerStateTerminated { finished_at: Some(time), ..Default::default() };
    let state =
        api::core::v1::ContainerState { terminated: Some(terminated), ..Default::default() };
    let container = api::core::v1::ContainerStatus { state: Some(state), ..Default::default() };
    let status = pod.status.get_or_insert_default();
    status.phase = Some(as_phase.to_owned());
    status.container_statuses = Some(vec![container]);
    let mut plan = Plan::default();
    plan.write([Change::status(pod)]);
    world.after(&plan, at(seconds))
}

fn status(world: &World) -> JobStatus {
    world.get::<Job>(&key()).unwrap().status.clone().unwrap()
}

#[test]
fn runs_until_enough_have_succeeded() {
    let mut world = settle(world(&job("completions: 3, parallelism: 2,")), 0);
    for n in 0..3 {
        assert_eq!(running(&world).len(), 2.min(3 - n));
        world = settle(end(world.clone(), &running(&world)[0], "Succeeded", 1), 1);
    }
    let job = world.get::<Job>(&key()).unwrap();
    assert!(has(&job, "Complete") && has(&job, "SuccessCriteriaMet"));
    let status = status(&world);
    assert_eq!((status.succeeded, status.failed, status.active), (Some(3), None, None));
    assert!(status.completion_time.is_some());
    let kept = world.list::<Pod>("ns").filter(|it| it.has_finalizer(TRACKING)).count();
    assert_eq!((world.list::<Pod>("ns").count(), kept), (3, 0), "counted pods stay for their logs");
}

#[test]
fn waits_longer_after_each_failure_and_gives_up_at_the_limit() {
    let mut world = settle(world(&job("backoffLimit: 2,")), 0);
    for (second, wait) in [(1, 10), (100, 20)] {
        world = settle(end(world.clone(), &running(&world)[0], "Failed", second), second);
        assert!(running(&world).is_empty());
        let plan = JobController.reconcile(&world, &key(), at(second));
        assert_eq!(plan.requeue.map(|it| it.as_secs()), Some(wait), "{plan}");
        world = settle(world, second + wait as i64);
        assert_eq!(running(&world).len(), 1);
    }
    world = settle(end(world.clone(), &running(&world)[0], "Failed", 300), 300);
    let job = world.get::<Job>(&key()).unwrap();
    assert!(has(&job, "Failed"));
    assert_eq!(status(&world).failed, Some(3));
}

#[test]
fn a_job_past_its_deadline_stops_its_pods_and_fails_when_they_are_gone() {
    let world = settle(world(&job("activeDeadlineSeconds: 5,")), 0);
    let pod = running(&world).remove(0);
    let mut scheduled = pod.clone();
    scheduled.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
    let mut plan = Plan::default();
    plan.write([Change::both(scheduled)]);
    let world = settle(world.after(&plan, at(1)), 1);
    let world = settle(world, 6);
    let job = world.get::<Job>(&key()).unwrap();
    assert!(has(&job, "FailureTarget") && !has(&job, "Failed"), "its pod still stops");
    let pod = world.list::<Pod>("ns").next().unwrap().to_owned();
    assert!(pod.is_deleting());
    let mut plan = Plan::default();
    plan.write([Change::delete_now(&pod)]);
    let world = settle(world.after(&plan, at(7)), 7);
    assert!(has(&world.get::<Job>(&key()).unwrap(), "Failed"));
    assert_eq!(status(&world).failed, Some(1));
}

#[test]
fn each_index_is_done_once() {
    let more = "completions: 3, parallelism: 3, completionMode: Indexed,";
    let mut world = settle(world(&job(more)), 0);
    let mut hosts: Vec<_> =
        running(&world).iter().map(|it| it.spec.clone().unwrap().hostname.unwrap()).collect();
    hosts.sort();
    assert_eq!(hosts, ["work-0", "work-1", "work-2"]);
    let of = |world: &World, index| {
        running(world).into_iter().find(|it| indexes::of(it) == Some(index)).unwrap()
    };
    world = settle(end(world.clone(), &of(&world, 1), "Failed", 1), 1);
    world = settle(end(world.clone(), &of(&world, 0), "Succeeded", 1), 20);
    world = settle(end(world.clone(), &of(&world, 2), "Succeeded", 21), 21);
    assert_eq!(status(&world).completed_indexes.as_deref(), Some("0,2"));
    world = settle(end(world.clone(), &of(&world, 1), "Succeeded", 22), 22);
    assert_eq!(status(&world).completed_indexes.as_deref(), Some("0-2"));
    assert!(has(&world.get::<Job>(&key()).unwrap(), "Complete"));
}

#[test]
fn a_suspended_job_stops_without_a_failure_and_goes_on_later() {
    let mut world = settle(world(&job("parallelism: 2, completions: 2,")), 0);
    let set = |world: &World, suspend| {
        let mut job = world.get::<Job>(&key()).unwrap().to_owned();
        job.spec.as_mut().unwrap().suspend = Some(suspend);
        let mut plan = Plan::default();
        plan.write([Change::update(job)]);
        world.after(&plan, at(1))
    };
    world = settle(set(&world, true), 1);
    assert!(running(&world).is_empty() && status(&world).failed.is_none());
    assert!(status(&world).start_time.is_none());
    world = settle(set(&world, false), 2);
    assert_eq!(running(&world).len(), 2);
}

#[test]
fn pods_of_a_job_that_is_gone_are_let_go() {
    let mut world = settle(world(&job("")), 0);
    let kind = api::kind_of::<Job>().clone();
    world.remove(&kind, &key(), world.revision + 1);
    let world = settle(world, 1);
    assert!(world.list::<Pod>("ns").all(|it| !it.has_finalizer(TRACKING)));
}

#[test]
fn a_finished_job_goes_after_its_time() {
    let world = settle(world(&job("ttlSecondsAfterFinished: 30,")), 0);
    let world = settle(end(world.clone(), &running(&world)[0], "Succeeded", 1), 1);
    let plan = JobController.reconcile(&world, &key(), at(2));
    assert_eq!(plan.requeue.map(|it| it.as_secs()), Some(29), "{plan}");
    let plan = JobController.reconcile(&world, &key(), at(31));
    assert_eq!(plan.changes().map(|it| it.to_string()).collect::<Vec<_>>(), ["delete Job ns/work"]);
}
