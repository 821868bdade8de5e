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
fn pods_of_a_job_that_had_the_name_are_let_go() {
    let mut world = settle(world(&job("")), 0);
    let old = running(&world)[0].name().to_owned();
    let mut next = world.get::<Job>(&key()).unwrap().to_owned();
    let kind = api::kind_of::<Job>().clone();
    world.remove(&kind, &key(), world.revision + 1);
    next.metadata.uid = Some("other".to_owned());
    next.status = None;
    let mut plan = Plan::default();
    plan.write([Change::create(next)]);
    let world = settle(world.after(&plan, at(1)), 1);
    let uid = world.get::<Job>(&key()).unwrap().uid().to_owned();
    let pods: Vec<Pod> = running(&world);
    let kept = |it: &Pod| it.has_finalizer(TRACKING);
    assert_eq!(pods.len(), 2);
    for pod in &pods {
        let own = pod.metadata.owner_references.as_ref().unwrap()[0].uid == uid;
        assert_eq!((own, kept(pod)), (pod.name() != old, pod.name() != old), "{}", pod.name());
    }
}

#[test]
fn a_job_that_shrinks_has_done_what_is_left_of_it() {
    let more = "completions: 4, parallelism: 4, completionMode: Indexed,";
    let mut world = settle(world(&job(more)), 0);
    for index in [2, 3] {
        let pod = of(&world, index).unwrap();
        world = settle(end(world.clone(), &pod, "Succeeded", 1), 1);
    }
    assert_eq!(status(&world).succeeded, Some(2));
    let mut smaller = world.get::<Job>(&key()).unwrap().to_owned();
    let spec = smaller.spec.as_mut().unwrap();
    (spec.completions, spec.parallelism) = (Some(2), Some(2));
    let mut plan = Plan::default();
    plan.write([Change::update(smaller)]);
    world = settle(world.after(&plan, at(2)), 2);
    assert_eq!((status(&world).succeeded, status(&world).completed_indexes), (None, None));
    assert!(!has(&world.get::<Job>(&key()).unwrap(), "Complete"), "indexes 0 and 1 are not done");
    assert_eq!(running(&world).len(), 2);
    for index in [0, 1] {
        let pod = of(&world, index).unwrap();
        world = settle(end(world.clone(), &pod, "Succeeded", 3), 3);
    }
    assert_eq!(status(&world).completed_indexes.as_deref(), Some("0,1"));
    assert!(has(&world.get::<Job>(&key()).unwrap(), "Complete"));
}

#[test]
fn of_those_that_are_too_many_go_first_whose_index_is_gone() {
    let more = "completions: 4, parallelism: 4, completionMode: Indexed,";
    let mut world = settle(world(&job(more)), 0);
    let mut smaller = world.get::<Job>(&key()).unwrap().to_owned();
    let spec = smaller.spec.as_mut().unwrap();
    (spec.completions, spec.parallelism) = (Some(2), Some(2));
    let mut plan = Plan::default();
    plan.write([Change::update(smaller)]);
    world = settle(world.after(&plan, at(2)), 2);
    let mut left: Vec<_> = running(&world).iter().filter_map(indexes::of).collect();
    left.sort();
    assert_eq!(left, [0, 1]);
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

fn end_with(world: World, pod: &Pod, code: i32, seconds: i64) -> World {
    let world = end(world, pod, if code == 0 { "Succeeded" } else { "Failed" }, seconds);
    let mut pod = world.get::<Pod>(&ObjectKey::of(pod)).unwrap().to_owned();
    let statuses = pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
    statuses[0].name = "c".to_owned();
    let state = statuses[0].state.as_mut().unwrap();
    state.terminated.as_mut().unwrap().exit_code = code;
    let mut plan = Plan::default();
    plan.write([Change::status(pod)]);
    world.after(&plan, at(seconds))
}

fn of(world: &World, index: i32) -> Option<Pod> {
    running(world).into_iter().find(|it| indexes::of(it) == Some(index))
}

fn verdict(world: &World) -> (String, String, String) {
    let job = world.get::<Job>(&key()).unwrap();
    let last = api::batch::job::conditions(&job).last().unwrap().clone();
    (last.type_, last.reason.unwrap_or_default(), last.message.unwrap_or_default())
}

const RULES: &str = "podReplacementPolicy: Failed, podFailurePolicy: {rules: [
    {action: Ignore, onPodConditions: [{type: DisruptionTarget, status: 'True'}]},
    {action: FailIndex, onExitCodes: {operator: In, values: [13]}},
    {action: FailJob, onExitCodes: {containerName: c, operator: In, values: [42]}}]},";

#[test]
fn a_code_that_means_the_end_ends_the_job_at_its_first_failure() {
    let world = settle(world(&job(&format!("{RULES} backoffLimit: 6,"))), 0);
    let pod = running(&world).remove(0);
    let world = settle(end_with(world, &pod, 42, 1), 1);
    let why = format!(
        "Container c for pod ns/{} failed with exit code 42 matching FailJob rule at index 2",
        pod.name()
    );
    assert_eq!(verdict(&world), ("Failed".to_owned(), "PodFailurePolicy".to_owned(), why));
    assert_eq!(status(&world).failed, Some(1));
}

#[test]
fn a_disruption_that_is_ignored_does_not_count() {
    let world = settle(world(&job(&format!("{RULES} backoffLimit: 0,"))), 0);
    let mut pod = running(&world).remove(0);
    let condition = api::core::v1::PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        ..Default::default()
    };
    pod.status.get_or_insert_default().conditions = Some(vec![condition]);
    let world = settle(end(world, &pod, "Failed", 1), 1);
    let world = settle(world, 11);
    assert_eq!(running(&world).len(), 1, "another pod takes its place");
    assert_eq!(status(&world).failed, None);
}

#[test]
fn an_index_that_fails_too_often_fails_alone_and_the_others_go_on() {
    let more = "completions: 3, parallelism: 3, completionMode: Indexed, backoffLimitPerIndex: 1, backoffLimit: 2147483647,";
    let mut world = settle(world(&job(more)), 0);
    assert_eq!(status(&world).failed_indexes.as_deref(), Some(""));
    world = settle(end_with(world.clone(), &of(&world, 0).unwrap(), 1, 1), 1);
    assert!(of(&world, 0).is_none(), "its successor waits");
    let plan = JobController.reconcile(&world, &key(), at(1));
    assert_eq!(plan.requeue.map(|it| it.as_secs()), Some(10), "{plan}");
    world = settle(world, 11);
    let second = of(&world, 0).unwrap();
    assert_eq!(second.annotation("batch.kubernetes.io/job-index-failure-count"), Some("1"));
    world = settle(end_with(world.clone(), &second, 1, 12), 12);
    world = settle(world, 100);
    assert!(of(&world, 0).is_none());
    assert_eq!(status(&world).failed_indexes.as_deref(), Some("0"));
    for index in [1, 2] {
        world = settle(end_with(world.clone(), &of(&world, index).unwrap(), 0, 101), 101);
    }
    let why = ("Failed", "FailedIndexes", "Job has failed indexes");
    assert_eq!(verdict(&world), (why.0.to_owned(), why.1.to_owned(), why.2.to_owned()));
    let status = status(&world);
    assert_eq!((status.succeeded, status.failed), (Some(2), Some(2)));
    assert_eq!(status.completed_indexes.as_deref(), Some("1,2"));
}

#[test]
fn an_index_fails_at_once_where_a_rule_says_so_and_too_many_end_the_job() {
    let more = format!(
        "{RULES} completions: 4, parallelism: 4, completionMode: Indexed, backoffLimitPerIndex: 3, backoffLimit: 2147483647, maxFailedIndexes: 1,"
    );
    let mut world = settle(world(&job(&more)), 0);
    world = settle(end_with(world.clone(), &of(&world, 1).unwrap(), 13, 1), 1);
    assert_eq!(status(&world).failed_indexes.as_deref(), Some("1"));
    world = settle(end_with(world.clone(), &of(&world, 2).unwrap(), 13, 2), 2);
    assert_eq!(status(&world).failed_indexes.as_deref(), Some("1,2"));
    assert!(has(&world.get::<Job>(&key()).unwrap(), "FailureTarget"));
    assert!(running(&world).is_empty(), "the others are stopped");
}

#[test]
fn a_job_succeeds_when_those_have_that_its_rule_names() {
    for (rule, first) in [
        ("{succeededIndexes: '0,2', succeededCount: 1}", [2]),
        ("{succeededCount: 1}", [1]),
        ("{succeededIndexes: '3'}", [3]),
    ] {
        let more = format!(
            "completions: 4, parallelism: 4, completionMode: Indexed, successPolicy: {{rules: [{rule}]}},"
        );
        let mut world = settle(world(&job(&more)), 0);
        for index in first {
            world = settle(end_with(world.clone(), &of(&world, index).unwrap(), 0, 1), 1);
        }
        let job = world.get::<Job>(&key()).unwrap();
        assert!(has(&job, "SuccessCriteriaMet"), "{rule}");
        let met =
            api::batch::job::conditions(&job).iter().find(|it| it.type_ == "SuccessCriteriaMet");
        let met = met.unwrap();
        assert_eq!(met.reason.as_deref(), Some("SuccessPolicy"));
        assert_eq!(met.message.as_deref(), Some("Matched rules at index 0"));
        assert!(running(&world).is_empty(), "the rest is stopped");
    }
}
