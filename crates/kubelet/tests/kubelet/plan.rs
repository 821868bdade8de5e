//! Golden plans: a pod and what was observed in, decisions out.

use crate::fakes::yaml;
use api::core::v1::Pod;
use expect_test::{Expect, expect};
use kubelet::{
    plan::{Ensured, Failure, Look, Memory, Slot, VolumeState, next, resize::Refusal},
    runtime::{Container, Limits, Observed, Sandbox, State},
};
use std::collections::{BTreeMap, BTreeSet};
use stdx::Timestamp;

struct Case {
    pod: Option<Pod>,
    observed: Observed,
    volumes: BTreeMap<String, VolumeState>,
    mounted: Vec<String>,
    memory: Memory,
    busy: BTreeSet<Slot>,
}

const NOW: Timestamp = Timestamp::from_seconds(1000);

fn case(spec: &str) -> Case {
    let pod: Pod = yaml(&format!(
        "{{metadata: {{name: p, namespace: d, uid: u}}, spec: {{nodeName: n1, {spec}}}}}"
    ));
    Case {
        pod: Some(pod),
        observed: Observed::default(),
        volumes: BTreeMap::new(),
        mounted: Vec::new(),
        memory: Memory::default(),
        busy: BTreeSet::new(),
    }
}

impl Case {
    fn sandbox(mut self, id: &str, attempt: u32, ready: bool) -> Case {
        let sandbox = Sandbox {
            id: id.to_owned(),
            attempt,
            ready,
            ip: "10.0.0.2".to_owned(),
            ..Sandbox::default()
        };
        self.observed.sandboxes.push(sandbox);
        self
    }

    fn container(mut self, id: &str, name: &str, attempt: u32, state: State, code: i32) -> Case {
        let at = Timestamp::from_seconds(900 + i64::from(attempt));
        let sandbox = self.observed.sandboxes.last().map(|it| it.id.clone()).unwrap_or_default();
        self.observed.containers.push(Container {
            id: id.to_owned(),
            sandbox,
            name: name.to_owned(),
            attempt,
            state,
            created: at,
            started: at,
            finished: if state == State::Exited {
                Timestamp::from_seconds(999)
            } else {
                Timestamp(0)
            },
            exit_code: code,
            ..Container::default()
        });
        self
    }

    fn image(mut self, container: &str) -> Case {
        self.memory.images.insert(container.to_owned(), Ensured::default());
        self
    }

    fn volume(mut self, name: &str, state: VolumeState) -> Case {
        self.volumes.insert(name.to_owned(), state);
        self
    }

    fn deleting(mut self, grace: i64) -> Case {
        let pod = self.pod.as_mut().unwrap();
        pod.metadata.deletion_timestamp =
            Some(api::meta::time(Timestamp::from_seconds(1000 + grace)));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self
    }

    fn check(mut self, expected: Expect) {
        self.observed.sort();
        let look = Look {
            pod: self.pod.as_ref(),
            observed: &self.observed,
            volumes: &self.volumes,
            mounted: &self.mounted,
            memory: &self.memory,
            busy: &self.busy,
            ending_since: NOW,
            now: NOW,
        };
        expected.assert_eq(&next(&look).to_string());
    }
}

const ONE: &str = "containers: [{name: app, image: a}]";

#[test]
fn everything_that_can_begin_begins_at_once() {
    case(ONE).volume("data", VolumeState::Wanted { outdated: false }).check(expect![[r#"
        Up
          publish data
          run sandbox #0
          ensure image of app
    "#]]);
}

#[test]
fn a_container_starts_when_sandbox_image_and_volumes_are_there() {
    let ready = || case(ONE).sandbox("s", 0, true).image("app");
    ready().volume("data", VolumeState::Ready).check(expect![[r#"
        Up
          start app #0 in s
    "#]]);
    ready().volume("data", VolumeState::Waiting { outdated: false }).check(expect![[r#"
        Up
    "#]]);
    ready().volume("data", VolumeState::Wanted { outdated: true }).check(expect![[r#"
        Up
          publish data
          start app #0 in s
    "#]]);
    let until = Timestamp::from_seconds(1003);
    ready().volume("data", VolumeState::Held { until, outdated: false }).check(expect![[r#"
        Up
          look again at 1003
    "#]]);
}

#[test]
fn what_is_under_way_is_not_begun_again() {
    let mut case = case(ONE).sandbox("s", 0, true).image("app");
    case.busy.insert(Slot::Container("app".to_owned()));
    case.check(expect![[r#"
        Up
    "#]]);
}

#[test]
fn a_dead_sandbox_is_cleared_before_the_next_one() {
    let dead = || case(ONE).sandbox("s", 0, false).container("c", "app", 0, State::Exited, 137);
    dead().check(expect![[r#"
        Up
          stop sandbox s
          ensure image of app
    "#]]);
    let mut cleared = dead();
    cleared.memory.stopped.insert("s".to_owned());
    cleared.check(expect![[r#"
        Up
          run sandbox #1
          ensure image of app
    "#]]);
}

#[test]
fn a_restart_waits_for_its_back_off() {
    let mut case = case(ONE)
        .sandbox("s", 0, true)
        .image("app")
        .container("c0", "app", 0, State::Exited, 1)
        .container("c1", "app", 1, State::Exited, 1);
    case.memory.restarted("app", Timestamp::from_seconds(990));
    case.check(expect![[r#"
        Up
          app waits: CrashLoopBackOff: back-off 10s restarting failed container=app pod=p_d(u)
          look again at 1009
    "#]]);
}

#[test]
fn a_container_that_was_never_started_is_made_again() {
    case(ONE).sandbox("s", 0, true).image("app").container("c", "app", 0, State::Created, 0).check(
        expect![[r#"
            Up
              remove app c
        "#]],
    );
}

#[test]
fn init_containers_come_first_and_in_order() {
    let two = "initContainers: [{name: a, image: a}, {name: b, image: a}], containers: [{name: app, image: a}]";
    case(two).sandbox("s", 0, true).image("a").check(expect![[r#"
        Up
          start a #0 in s
    "#]]);
    case(two).sandbox("s", 0, true).container("c", "a", 0, State::Running, 0).check(expect![[r#"
        Up
    "#]]);
    case(two).sandbox("s", 0, true).image("b").container("c", "a", 0, State::Exited, 0).check(
        expect![[r#"
            Up
              start b #0 in s
        "#]],
    );
    case(&format!("restartPolicy: Never, {two}"))
        .sandbox("s", 0, true)
        .container("c", "a", 0, State::Exited, 1)
        .check(expect![[r#"
            Finished
              stop sandbox s
        "#]]);
}

#[test]
fn a_sidecar_runs_beside_the_others() {
    let sidecar = "initContainers: [{name: log, image: a, restartPolicy: Always}], containers: [{name: app, image: a}]";
    case(sidecar)
        .sandbox("s", 0, true)
        .image("app")
        .container("c", "log", 0, State::Running, 0)
        .check(expect![[r#"
            Up
              start app #0 in s
        "#]]);
}

#[test]
fn an_end_goes_from_the_processes_to_the_object() {
    let up = || case(ONE).sandbox("s", 0, true);
    let mut living = up().container("c", "app", 0, State::Running, 0).deleting(30);
    living.mounted = vec!["data".to_owned()];
    living.check(expect![[r#"
        Terminating
          stop app c by 1031 (Ending)
    "#]]);
    let mut stopping = up().container("c", "app", 0, State::Running, 0).deleting(5);
    stopping.memory.stopping.insert("c".to_owned(), Timestamp::from_seconds(1031));
    stopping.check(expect![[r#"
        Terminating
          stop app c by 1006 (Ending)
    "#]]);
    let ended = || up().container("c", "app", 0, State::Exited, 0).deleting(30);
    ended().check(expect![[r#"
        Terminating
          stop sandbox s
    "#]]);
    let mut stopped =
        case(ONE).sandbox("s", 0, false).container("c", "app", 0, State::Exited, 0).deleting(30);
    stopped.memory.stopped.insert("s".to_owned());
    stopped.mounted = vec!["data".to_owned()];
    stopped.check(expect![[r#"
        Terminating, ended
          unpublish data
    "#]]);
    let mut empty = case(ONE).sandbox("s", 0, false).deleting(30);
    empty.memory.stopped.insert("s".to_owned());
    empty.check(expect![[r#"
        Terminating, ended
          delete the object
    "#]]);
}

#[test]
fn an_end_waits_for_what_was_begun() {
    let mut case = case(ONE).sandbox("s", 0, true).deleting(30);
    case.busy.insert(Slot::Container("app".to_owned()));
    case.check(expect![[r#"
        Terminating
    "#]]);
}

#[test]
fn what_is_left_of_a_gone_pod_goes_too() {
    let mut running = case(ONE).sandbox("s", 0, true).container("c", "app", 0, State::Running, 0);
    running.pod = None;
    running.check(expect![[r#"
        Gone
          stop app c by 1030 (Ending)
    "#]]);
    let mut stopped = case(ONE).sandbox("s", 0, false);
    stopped.pod = None;
    stopped.memory.stopped.insert("s".to_owned());
    stopped.check(expect![[r#"
        Gone, ended
          remove sandbox s
    "#]]);
    let mut nothing = case(ONE);
    nothing.pod = None;
    nothing.check(expect![[r#"
        Gone, ended
          forget
    "#]]);
}

/// Its sandbox was made again, its init containers ran again, failed again, and so on without end.
#[test]
fn a_failed_init_container_stays_the_end_when_the_sandbox_is_stopped() {
    let spec = "restartPolicy: Never, initContainers: [{name: a, image: a}, {name: b, image: a}], containers: [{name: app, image: a}]";
    let case = case(spec)
        .sandbox("s", 0, false)
        .container("c1", "a", 0, State::Exited, 0)
        .container("c2", "b", 0, State::Exited, 1);
    let mut stopped = case;
    stopped.memory.stopped.insert("s".to_owned());
    stopped.check(expect![[r#"
        Finished, ended
    "#]]);
}

#[test]
fn a_pod_that_never_restarts_is_finished_with_its_last_container() {
    let two = "restartPolicy: Never, containers: [{name: a, image: a}, {name: b, image: a}]";
    case(two)
        .sandbox("s", 0, true)
        .container("c1", "a", 0, State::Exited, 0)
        .container("c2", "b", 0, State::Running, 0)
        .check(expect![[r#"
            Up
        "#]]);
    case(two)
        .sandbox("s", 0, true)
        .container("c1", "a", 0, State::Exited, 0)
        .container("c2", "b", 0, State::Exited, 1)
        .check(expect![[r#"
            Finished
              stop sandbox s
        "#]]);
}

#[test]
fn one_run_before_the_latest_is_kept_for_those_who_ask_what_happened() {
    case(ONE)
        .sandbox("s", 0, true)
        .container("c0", "app", 0, State::Exited, 1)
        .container("c1", "app", 1, State::Exited, 1)
        .container("c2", "app", 2, State::Running, 0)
        .check(expect![[r#"
            Up
              remove app c0
        "#]]);
}

#[test]
fn a_pod_past_its_deadline_is_ended() {
    let active = |seconds: i64| {
        let mut it = case(&format!("activeDeadlineSeconds: {seconds}, {ONE}"))
            .sandbox("s", 0, true)
            .container("c", "app", 0, State::Running, 0);
        let pod = it.pod.as_mut().unwrap();
        let start = api::meta::time(Timestamp::from_seconds(990));
        pod.status.get_or_insert_default().start_time = Some(start);
        it
    };
    active(15).check(expect![[r#"
        Up
          look again at 1005
    "#]]);
    active(10).check(expect![[r#"
        Finished
          because of DeadlineExceeded: Pod was active on the node longer than the specified deadline
          stop app c by 1030 (Ending)
    "#]]);
}

#[test]
fn sidecars_end_after_what_they_served_and_in_reverse_order() {
    let spec = "containers: [{name: app}], initContainers: [{name: one, restartPolicy: Always}, {name: two, restartPolicy: Always}]";
    let running = || {
        case(spec)
            .deleting(30)
            .sandbox("s", 0, true)
            .container("1", "one", 0, State::Running, 0)
            .container("2", "two", 0, State::Running, 0)
    };
    running().container("3", "app", 0, State::Running, 0).check(expect![[r#"
        Terminating
          stop app 3 by 1031 (Ending)
          tell two 2 of its end by 1031
          tell one 1 of its end by 1031
          look again at 1031
    "#]]);
    let mut served = running().container("3", "app", 0, State::Exited, 0);
    served.memory.hooked.extend(["1".to_owned(), "2".to_owned()]);
    served.check(expect![[r#"
        Terminating
          stop two 2 by 1031 (Ending)
          look again at 1031
    "#]]);
    let mut hook_runs = running().container("3", "app", 0, State::Exited, 0);
    hook_runs.memory.hooked.extend(["1".to_owned(), "2".to_owned()]);
    hook_runs.busy.insert(Slot::Hook("2".to_owned()));
    hook_runs.check(expect![[r#"
        Terminating
          look again at 1031
    "#]]);
}

#[test]
fn an_ephemeral_container_runs_once_whatever_the_others_do() {
    let spec = "containers: [{name: app}], initContainers: [{name: first}], ephemeralContainers: [{name: debug}]";
    let begun = || {
        case(spec).sandbox("s", 0, true).image("debug").container(
            "1",
            "first",
            0,
            State::Running,
            0,
        )
    };
    begun().check(expect![[r#"
        Up
          start debug #0 in s
    "#]]);
    begun().container("2", "debug", 0, State::Exited, 1).check(expect![[r#"
        Up
    "#]]);
}

#[test]
fn a_rule_for_an_exit_code_goes_before_the_policy() {
    let spec = "restartPolicy: Never, containers: [{name: app, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}]";
    let ended =
        |code| case(spec).sandbox("s", 0, true).container("c", "app", 0, State::Exited, code);
    ended(42).image("app").check(expect![[r#"
        Up
          start app #1 in s
    "#]]);
    ended(1).check(expect![[r#"
        Finished
          stop sandbox s
    "#]]);
}

#[test]
fn other_resources_are_given_to_what_runs_or_to_a_new_run() {
    let spec = |policy: &str| {
        format!(
            "containers: [{{name: app, image: a, {policy} resources: {{limits: {{memory: 64Mi}}}}}}]"
        )
    };
    let runs = |policy: &str, memory: i64| {
        let mut it =
            case(&spec(policy)).sandbox("s", 0, true).container("c", "app", 0, State::Running, 0);
        let limits = Limits { cpu_shares: 2, cpu_quota: 0, memory };
        it.observed.containers[0].limits = Some(limits);
        it
    };
    runs("", 64 << 20).check(expect![[r#"
        Up
    "#]]);
    runs("", 32 << 20).check(expect![[r#"
        Up
          resize what runs in s
    "#]]);
    runs("resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}],", 32 << 20)
        .check(expect![[r#"
            Up
              stop app c by 1030 (Resize)
        "#]]);
    let mut refused = runs("", 32 << 20);
    refused.memory.resize_refused =
        Some(Refusal { reason: "Infeasible", message: "no room".to_owned() });
    refused.check(expect![[r#"
        Up
    "#]]);
}

/// Each container had its share, the pod as a whole did not get its own: nobody tried again.
#[test]
fn a_resize_that_failed_is_tried_again_until_the_whole_has_its_share_too() {
    let failed = |retry_at: i64| {
        let mut it = case(ONE).sandbox("s", 0, true).container("c", "app", 0, State::Running, 0);
        it.observed.containers[0].limits = Some(Limits { cpu_shares: 2, cpu_quota: 0, memory: 0 });
        let at = Timestamp::from_seconds(retry_at);
        let mut failure = Failure::new("Error", "busy", NOW, None, Default::default());
        failure.retry_at = at;
        it.memory.resize_failed = Some(failure);
        it
    };
    failed(1000).check(expect![[r#"
        Up
          resize what runs in s
    "#]]);
    failed(1007).check(expect![[r#"
        Up
          look again at 1007
    "#]]);
    let mut other = failed(1007);
    other.pod.as_mut().unwrap().metadata.generation = Some(2);
    other.check(expect![[r#"
        Up
          resize what runs in s
    "#]]);
    let mut refused = failed(1000);
    refused.memory.resize_refused =
        Some(Refusal { reason: "Deferred", message: "no room".to_owned() });
    refused.check(expect![[r#"
        Up
    "#]]);
}

#[test]
fn another_image_is_run_in_place_of_the_one_that_runs() {
    let mut it = case(ONE).sandbox("s", 0, true).container("c", "app", 0, State::Running, 0);
    it.observed.containers[0].spec_image = "b".to_owned();
    it.check(expect![[r#"
        Up
          stop app c by 1030 (Changed)
    "#]]);
}

#[test]
fn a_run_that_the_status_has_counted_is_not_counted_again() {
    let mut it = case(ONE).sandbox("s", 0, true).image("app");
    let status = "{phase: Running, containerStatuses: [{name: app, image: a, imageID: '', ready: false, restartCount: 3, state: {waiting: {}}}]}";
    let value: Pod = yaml(&format!("{{status: {status}}}"));
    it.pod.as_mut().unwrap().status = value.status;
    it.check(expect![[r#"
        Up
          start app #3 in s
    "#]]);
}

const ALL_AGAIN: &str = "restartPolicy: Never, initContainers: [{name: first, image: a}], containers: [{name: cause, image: a, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}, {name: other, image: a}]";

/// A pod that runs, and whose status says whether all containers are to begin again.
fn all_again(restarting: &str) -> Case {
    let mut case = case(ALL_AGAIN).sandbox("s", 0, true);
    let status: Pod = yaml(&format!(
        "{{metadata: {{name: p}}, status: {{conditions: [{{type: AllContainersRestarting, status: '{restarting}'}}]}}}}"
    ));
    case.pod.as_mut().unwrap().status = status.status;
    case
}

#[test]
fn all_containers_begin_again_once_the_api_knows_and_those_that_began_it_go_last() {
    let ended = |restarting: &str| {
        all_again(restarting).container("i1", "first", 0, State::Exited, 0).container(
            "c1",
            "cause",
            0,
            State::Exited,
            42,
        )
    };
    // Nothing is taken away, and nothing begins, before the condition is written.
    ended("False").container("o1", "other", 0, State::Running, 0).check(expect![[r#"
        Up
    "#]]);
    ended("True").container("o1", "other", 0, State::Running, 0).check(expect![[r#"
        Up
          stop other o1 by 1000 (RestartAll)
          remove first i1
    "#]]);
    ended("True").container("o1", "other", 0, State::Exited, 137).check(expect![[r#"
        Up
          remove other o1
          remove first i1
    "#]]);
    all_again("True").container("c1", "cause", 0, State::Exited, 42).check(expect![[r#"
        Up
          remove cause c1
    "#]]);
    // What is being started is taken away when that is over, and what began it stays until then.
    let mut starting = ended("True").container("o1", "other", 0, State::Created, 0);
    starting.busy.insert(Slot::Container("other".to_owned()));
    starting.check(expect![[r#"
        Up
          remove first i1
    "#]]);
    let mut starting = all_again("True").container("c1", "cause", 0, State::Exited, 42);
    starting.busy.insert(Slot::Container("other".to_owned()));
    starting.check(expect![[r#"
        Up
    "#]]);
    // Nothing begins before the status says how often each has run.
    all_again("True").check(expect![[r#"
        Up
    "#]]);
    all_again("False").image("first").check(expect![[r#"
        Up
          start first #0 in s
    "#]]);
}

#[test]
fn another_end_of_the_same_container_begins_nothing_again() {
    all_again("False")
        .container("i1", "first", 0, State::Exited, 0)
        .container("c1", "cause", 0, State::Exited, 1)
        .container("o1", "other", 0, State::Exited, 0)
        .check(expect![[r#"
            Finished
              stop sandbox s
        "#]]);
}

#[test]
fn what_an_evicted_pod_wrote_goes_once_its_status_is_written() {
    let evicted = |reason: &str| {
        let mut case =
            case(ONE).sandbox("s", 0, false).container("c1", "app", 0, State::Exited, 137);
        case.memory.stopped.insert("s".to_owned());
        let status: Pod = yaml(&format!(
            "{{metadata: {{name: p}}, status: {{phase: Failed, reason: {reason}}}}}"
        ));
        case.pod.as_mut().unwrap().status = status.status;
        case
    };
    evicted("Evicted").check(expect![[r#"
        Finished, ended
          remove app c1
    "#]]);
    evicted("Other").check(expect![[r#"
        Finished, ended
    "#]]);
}

#[test]
fn what_follows_a_sidecar_waits_for_its_hook_and_the_end_of_the_pod_does_not() {
    let spec = "initContainers: [{name: proxy, restartPolicy: Always}], containers: [{name: app}]";
    let running = || {
        let proxy = |it: Case| it.container("1", "proxy", 0, State::Running, 0);
        let mut case = proxy(case(spec).sandbox("s", 0, true)).image("app");
        case.busy.insert(Slot::Container("proxy".to_owned()));
        case
    };
    running().check(expect![[r#"
        Up
    "#]]);
    let mut over = running();
    over.busy.clear();
    over.check(expect![[r#"
        Up
          start app #0 in s
    "#]]);
    running().deleting(30).check(expect![[r#"
        Terminating
          stop proxy 1 by 1031 (Ending)
    "#]]);
}
