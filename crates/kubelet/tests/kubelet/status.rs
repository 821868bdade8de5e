//! Golden statuses: a pod and what was observed in, what the API is told out.

use crate::fakes::yaml;
use api::core::v1::{Pod, PodStatus};
use kubelet::{
    plan::{Memory, Waiting, resize::Refusal},
    runtime::{Container, Limits, Observed, Sandbox, State},
    status::{Inputs, compute},
};
use std::collections::{BTreeMap, BTreeSet};
use stdx::Timestamp;

const NOW: Timestamp = Timestamp::from_seconds(1000);

struct Case {
    pod: Pod,
    observed: Observed,
    memory: Memory,
    waiting: BTreeMap<String, Waiting>,
    ended: bool,
    starting: BTreeSet<String>,
}

fn case(text: &str) -> Case {
    Case {
        pod: yaml(text),
        observed: Observed::default(),
        memory: Memory::default(),
        waiting: BTreeMap::new(),
        ended: false,
        starting: BTreeSet::new(),
    }
}

impl Case {
    fn seen(mut self, name: &str, state: State, code: i32) -> Case {
        if self.observed.sandboxes.is_empty() {
            self.observed.sandboxes.push(Sandbox {
                id: "s".to_owned(),
                ready: true,
                ip: "10.0.0.2".to_owned(),
                ..Sandbox::default()
            });
        }
        self.observed.containers.push(Container {
            id: format!("id-{name}"),
            sandbox: "s".to_owned(),
            name: name.to_owned(),
            state,
            started: Timestamp::from_seconds(900),
            finished: Timestamp::from_seconds(950),
            exit_code: code,
            image: "a".to_owned(),
            image_ref: "sha256:a".to_owned(),
            ..Container::default()
        });
        self
    }

    fn status(&self) -> PodStatus {
        compute(&Inputs {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
            waiting: &self.waiting,
            last_words: &BTreeMap::new(),
            node_address: "192.0.2.1",
            verdict: None,
            resizing: false,
            starting: &self.starting,
            ended: self.ended,
            now: NOW,
        })
    }

    /// Phase, then each condition that is not true with its reason and message, then each container in a word.
    fn check(&self, expected: &str) {
        let status = self.status();
        let mut lines = vec![status.phase.clone().unwrap_or_default()];
        for it in status.conditions.iter().flatten().filter(|it| it.status != "True") {
            let text = |it: &Option<String>| it.clone().unwrap_or_default();
            lines.push(
                format!("not {}: {} {}", it.type_, text(&it.reason), text(&it.message))
                    .trim_end()
                    .to_owned(),
            );
        }
        let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        for it in all {
            let state = it.state.clone().unwrap_or_default();
            let state = match (state.waiting, state.running, state.terminated) {
                (Some(it), ..) => it.reason.unwrap_or_default(),
                (_, Some(_), _) => "running".to_owned(),
                (.., Some(it)) => format!("{} {}", it.reason.unwrap_or_default(), it.exit_code),
                _ => "?".to_owned(),
            };
            let ready = if it.ready { ", ready" } else { "" };
            lines.push(format!("{}: {state}{ready}", it.name));
        }
        assert_eq!(lines.join("\n"), expected.trim(), "{status:#?}");
    }
}

const ONE: &str =
    "{metadata: {name: p, generation: 1}, spec: {containers: [{name: app, image: a}]}}";

#[test]
fn a_new_pod_is_being_created() {
    case(ONE).check(
        "
Pending
not PodReadyToStartContainers:
not Ready: ContainersNotReady containers with unready status: [app]
not ContainersReady: ContainersNotReady containers with unready status: [app]
app: ContainerCreating",
    );
}

/// A client that watches for "PodInitializing" took a container that was made and not yet started for a stuck one.
#[test]
fn a_container_that_is_made_and_not_started_says_what_it_waits_for() {
    let pod = "{metadata: {name: p}, spec: {initContainers: [{name: init, image: a}], containers: [{name: app, image: a}]}}";
    case(pod).seen("init", State::Created, 0).check(
        "
Pending
not Initialized: ContainersNotInitialized containers with incomplete status: [init]
not Ready: ContainersNotReady containers with unready status: [app]
not ContainersReady: ContainersNotReady containers with unready status: [app]
init: PodInitializing
app: PodInitializing",
    );
}

#[test]
fn a_running_container_without_probes_is_ready() {
    case(ONE).seen("app", State::Running, 0).check("Running\napp: running, ready");
}

#[test]
fn a_readiness_probe_must_have_spoken() {
    let probed = "{metadata: {name: p}, spec: {containers: [{name: app, image: a, readinessProbe: {exec: {command: [x]}}}]}}";
    let mut probed = case(probed).seen("app", State::Running, 0);
    probed.check(
        "
Running
not Ready: ContainersNotReady containers with unready status: [app]
not ContainersReady: ContainersNotReady containers with unready status: [app]
app: running",
    );
    probed.memory.probes.entry("id-app".to_owned()).or_default().ready = Some(true);
    probed.check("Running\napp: running, ready");
    // A new server has not asked yet: what was said of this very container stands.
    probed.pod.status = Some(probed.status());
    probed.memory = Memory::default();
    probed.check("Running\napp: running, ready");
}

#[test]
fn a_crash_loop_is_running_and_not_ready() {
    let mut looping = case(ONE).seen("app", State::Exited, 1);
    let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), message: "back-off".to_owned() };
    looping.waiting.insert("app".to_owned(), waiting);
    looping.check(
        "
Running
not Ready: ContainersNotReady containers with unready status: [app]
not ContainersReady: ContainersNotReady containers with unready status: [app]
app: CrashLoopBackOff",
    );
    let last = looping.status().container_statuses.unwrap()[0].last_state.clone().unwrap();
    assert_eq!(last.terminated.unwrap().exit_code, 1);
}

#[test]
fn a_pod_that_does_not_restart_succeeds_or_fails() {
    let never =
        "{metadata: {name: p}, spec: {restartPolicy: Never, containers: [{name: app, image: a}]}}";
    case(never).seen("app", State::Exited, 0).check(
        "
Succeeded
not Ready: PodCompleted
not ContainersReady: PodCompleted
app: Completed 0",
    );
    case(never).seen("app", State::Exited, 2).check(
        "
Failed
not Ready: PodFailed
not ContainersReady: PodFailed
app: Error 2",
    );
}

#[test]
fn init_containers_hold_the_pod_back() {
    let init = "{metadata: {name: p}, spec: {initContainers: [{name: i, image: a}], containers: [{name: app, image: a}]}}";
    case(init).seen("i", State::Running, 0).check(
        "
Pending
not Initialized: ContainersNotInitialized containers with incomplete status: [i]
not Ready: ContainersNotReady containers with unready status: [app]
not ContainersReady: ContainersNotReady containers with unready status: [app]
i: running
app: PodInitializing",
    );
    case(init)
        .seen("i", State::Exited, 0)
        .seen("app", State::Running, 0)
        .check("Running\ni: Completed 0, ready\napp: running, ready");
}

#[test]
fn an_ended_pod_says_what_became_of_each_container() {
    let mut ended = case(ONE).seen("app", State::Exited, 0);
    ended.ended = true;
    ended.check(
        "
Succeeded
not Ready: PodCompleted
not ContainersReady: PodCompleted
app: Completed 0",
    );
    let mut lost = case(ONE).seen("app", State::Running, 0);
    lost.pod.status = Some(lost.status());
    lost.observed = Observed::default();
    lost.ended = true;
    lost.check(
        "
Failed
not PodReadyToStartContainers:
not Ready: PodFailed
not ContainersReady: PodFailed
app: ContainerStatusUnknown 137",
    );
    assert_eq!(lost.status().pod_ip.as_deref(), Some("10.0.0.2"), "it stays readable who it was");
}

#[test]
fn conditions_keep_their_time_while_nothing_changes() {
    let mut pod = case(ONE).seen("app", State::Running, 0);
    pod.pod.status = Some(pod.status());
    for it in pod.pod.status.as_mut().unwrap().conditions.as_mut().unwrap() {
        it.last_transition_time = Some(api::meta::time(Timestamp::from_seconds(5)));
    }
    let before = pod.pod.status.clone();
    assert_eq!(Some(pod.status()), before, "the same look gives the same status");
}

#[test]
fn what_was_lost_with_its_machine_is_over_if_it_runs_only_once() {
    let pod = |policy: &str| {
        let status = "{phase: Running, startTime: '2026-01-01T00:00:00Z', containerStatuses: [{name: app, containerID: 'x://1', image: a, imageID: '', ready: true, restartCount: 2, state: {running: {}}}]}";
        case(&format!(
            "{{metadata: {{name: p, uid: u}}, spec: {{restartPolicy: {policy}, containers: [{{name: app}}]}}, status: {status}}}"
        ))
    };
    let of = |policy: &str| pod(policy).status().container_statuses.unwrap().remove(0);
    let again = of("Always");
    assert_eq!((again.restart_count, again.container_id), (3, None));
    let last = again.last_state.unwrap().terminated.unwrap();
    assert_eq!(last.reason.as_deref(), Some("ContainerStatusUnknown"));
    let over = of("Never");
    assert_eq!(over.restart_count, 2);
    assert_eq!(over.state.unwrap().terminated.unwrap().exit_code, 137);
}

#[test]
fn a_restart_of_all_is_not_over_while_one_is_still_being_started() {
    let mut cleared = case(
        "{metadata: {name: p}, spec: {containers: [{name: app, image: a, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}]}, status: {phase: Running, conditions: [{type: AllContainersRestarting, status: 'True'}]}}",
    );
    let restarting = |case: &Case| {
        let conditions = case.status().conditions.unwrap();
        conditions.into_iter().find(|it| it.type_ == "AllContainersRestarting").unwrap().status
    };
    assert_eq!(restarting(&cleared), "False");
    cleared.starting.insert("app".to_owned());
    assert_eq!(restarting(&cleared), "True");
}

#[test]
fn a_container_that_runs_with_other_limits_does_not_say_it_has_those_of_its_spec() {
    let pod = ONE.replace("image: a", "image: a, resources: {limits: {memory: 64Mi}}");
    let resources = |memory: i64| {
        let mut case = case(&pod).seen("app", State::Running, 0);
        let limits = Limits { cpu_shares: 2, cpu_quota: 0, memory };
        case.observed.containers[0].limits = Some(limits);
        case
    };
    let told = |case: &Case| {
        let resources = case.status().container_statuses.unwrap().remove(0).resources;
        resources.map(|it| it.limits.unwrap()["memory"].0.clone())
    };
    assert_eq!(told(&resources(64 << 20)).as_deref(), Some("64Mi"));
    let mut outdated = resources(32 << 20);
    assert_eq!(told(&outdated), None, "nobody was told before");
    let before: Pod = yaml(
        "{metadata: {name: p}, status: {containerStatuses: [{name: app, image: a, imageID: '', ready: true, restartCount: 0, resources: {limits: {memory: 32Mi}}}]}}",
    );
    outdated.pod.status = before.status;
    assert_eq!(told(&outdated).as_deref(), Some("32Mi"));
}

#[test]
fn a_container_runs_once_its_hook_is_over() {
    let mut starting = case(ONE).seen("app", State::Running, 0);
    starting.starting.insert("app".to_owned());
    starting.check(
        "
Pending
not Ready: ContainersNotReady containers with unready status: [app]
not ContainersReady: ContainersNotReady containers with unready status: [app]
app: ContainerCreating",
    );
    starting.starting.clear();
    starting.check("Running\napp: running, ready");
}

#[test]
fn a_request_for_which_there_is_no_room_is_not_told_as_given() {
    let with = |request: &str| {
        let resources = format!("image: a, resources: {{requests: {{memory: {request}}}}}");
        case(&ONE.replace("image: a", &resources)).seen("app", State::Running, 0)
    };
    let told = |case: &Case| {
        let resources = case.status().container_statuses.unwrap().remove(0).resources;
        resources.unwrap().requests.unwrap()["memory"].0.clone()
    };
    let before = with("32Mi").status();
    let mut case = with("64Mi");
    case.pod.status = Some(before);
    case.memory.resize_refused =
        Some(Refusal { reason: "Deferred", message: "no room".to_owned() });
    assert_eq!(told(&case), "32Mi");
    case.memory.resize_refused = None;
    assert_eq!(told(&case), "64Mi");
}
