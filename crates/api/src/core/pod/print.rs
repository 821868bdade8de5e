//! A pod as `kubectl get` shows it.
//!
//! Upstream: `pkg/printers/internalversion/printers.go` (1.36), printPod.

use super::{condition, is_terminal, node_name};
use crate::{
    k8s::api::core::v1::{
        Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod,
    },
    kind::{Column, Object, Printing},
    meta::{
        self,
        absent::{list, text as plain},
        columns::{NONE, age, name, or, text, wide},
    },
};
use stdx::Timestamp;

pub(super) const COLUMNS: &[Column<Pod>] = &[
    name(),
    text("Ready", "Containers that are ready, of all that run beside each other.", |pod, _| {
        let summary = summary(pod);
        format!("{}/{}", summary.ready, summary.total).into()
    }),
    text("Status", "What the pod is doing, in one word.", |pod, _| summary(pod).reason.into()),
    text("Restarts", "How often containers were restarted, and when last.", |pod, printing| {
        summary(pod).restarts(printing).into()
    }),
    age(),
    wide("IP", "The address of the pod.", |pod, _| {
        let ips = pod.status.as_ref().map(|it| list(&it.pod_ips)).unwrap_or_default();
        let ip = ips.first().map_or("", |it| it.ip.as_str());
        or(ip, NONE).into()
    }),
    wide("Node", "The node that the pod runs on.", |pod, _| or(node_name(pod), NONE).into()),
    wide("Nominated Node", "The node that is kept free for the pod.", |pod, _| {
        let nominated = pod.status.as_ref().map_or("", |it| plain(&it.nominated_node_name));
        or(nominated, NONE).into()
    }),
    wide("Readiness Gates", "Extra conditions that are true, of those that must be.", |pod, _| {
        readiness_gates(pod).into()
    }),
];

#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn restarts(&self, printing: &Printing) -> String {
        match self.last_restart {
            Some(last) if self.restarts != 0 => {
                format!("{} ({} ago)", self.restarts, meta::age(Some(last), printing.now))
            }
            _ => self.restarts.to_string(),
        }
    }

    fn count_restarts(&mut self, status: &ContainerStatus) {
        self.restarts += status.restart_count;
        let ended = status.last_state.as_ref().and_then(|it| it.terminated.as_ref());
        let finished = ended.and_then(|it| it.finished_at.as_ref()).map(meta::timestamp_of);
        self.last_restart = self.last_restart.max(finished);
    }
}

fn summary(pod: &Pod) -> Summary {
    let (Some(spec), status) = (&pod.spec, pod.status.clone().unwrap_or_default()) else {
        return Summary::default();
    };
    let sidecars: Vec<&str> = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|it| is_sidecar(it))
        .map(|it| it.name.as_str())
        .collect();
    let gated = list(&status.conditions)
        .iter()
        .any(|it| it.type_ == "PodScheduled" && it.reason.as_deref() == Some("SchedulingGated"));
    let reason = match (gated, plain(&status.reason)) {
        (true, _) => "SchedulingGated",
        (false, "") => plain(&status.phase),
        (false, reason) => reason,
    };
    let mut summary = Summary {
        reason: reason.to_owned(),
        total: spec.containers.len() + sidecars.len(),
        ..Summary::default()
    };
    let mut of_sidecars = Summary::default();
    let mut initializing = false;
    for (n, container) in list(&status.init_container_statuses).iter().enumerate() {
        let is_sidecar = sidecars.contains(&container.name.as_str());
        summary.count_restarts(container);
        if is_sidecar {
            of_sidecars.count_restarts(container);
        }
        let state = container.state.clone().unwrap_or_default();
        if state.terminated.as_ref().is_some_and(|it| it.exit_code == 0) {
            continue;
        }
        if is_sidecar && container.started == Some(true) {
            summary.ready += usize::from(container.ready);
            continue;
        }
        let count = list(&spec.init_containers).len();
        summary.reason = format!("Init:{}", starting(&state, n, count));
        initializing = true;
        break;
    }
    if !initializing || condition(pod, "Initialized").is_some_and(|it| it.status == "True") {
        summary.restarts = of_sidecars.restarts;
        summary.last_restart = of_sidecars.last_restart;
        add_containers(&mut summary, pod, list(&status.container_statuses));
    }
    if pod.is_deleting() && status.reason.as_deref() == Some("NodeLost") {
        summary.reason = "Unknown".to_owned();
    } else if pod.is_deleting() && !is_terminal(pod) {
        summary.reason = "Terminating".to_owned();
    }
    summary
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What follows `Init:`.
fn starting(state: &ContainerState, n: usize, count: usize) -> String {
    let waiting = state.waiting.as_ref().map_or("", |it| plain(&it.reason));
    match &state.terminated {
        Some(ended) => end(ended),
        None if !waiting.is_empty() && waiting != "PodInitializing" => waiting.to_owned(),
        None => format!("{n}/{count}"),
    }
}

fn end(ended: &ContainerStateTerminated) -> String {
    match (plain(&ended.reason), ended.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// The first container has the last word, so that one's trouble is what is seen.
fn add_containers(summary: &mut Summary, pod: &Pod, containers: &[ContainerStatus]) {
    let (mut running, mut failure) = (false, None);
    for container in containers.iter().rev() {
        summary.count_restarts(container);
        let state = container.state.clone().unwrap_or_default();
        let waiting = state.waiting.as_ref().map_or("", |it| plain(&it.reason));
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(ended) = &state.terminated {
            summary.reason = end(ended);
            if ended.exit_code != 0 {
                failure = Some(summary.reason.clone());
            }
        } else if container.ready && state.running.is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason != "Completed" {
        return;
    }
    if running && super::is_ready(pod) {
        summary.reason = "Running".to_owned();
    } else if let Some(failure) = failure {
        summary.reason = failure;
    } else if running {
        summary.reason = "NotReady".to_owned();
    }
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = pod.spec.as_ref().map(|it| list(&it.readiness_gates)).unwrap_or_default();
    let holds = |kind: &str| condition(pod, kind).is_some_and(|it| it.status == "True");
    match gates.len() {
        0 => NONE.to_owned(),
        all => {
            format!("{}/{all}", gates.iter().filter(|it| holds(&it.condition_type)).count())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::from_value,
        meta::columns::tests::{NOW, row},
    };
    use serde_json::{Value, json};

    fn printed(deleting: bool, spec: Value, status: Value) -> String {
        let mut metadata = json!({"name": "p",
            "creationTimestamp": Timestamp::from_seconds(NOW.seconds() - 5).rfc3339()});
        if deleting {
            metadata["deletionTimestamp"] = NOW.rfc3339().into();
        }
        let pod: Pod =
            from_value(&json!({"metadata": metadata, "spec": spec, "status": status})).unwrap();
        let row = row(&pod);
        row.strip_suffix(" | <none> | <none> | <none> | <none>").unwrap_or(&row).to_owned()
    }

    fn two() -> Value {
        json!({"containers": [{"name": "a"}, {"name": "b"}]})
    }

    fn status(name: &str, ready: bool, state: Value) -> Value {
        json!({"name": name, "ready": ready, "restartCount": 0, "image": "", "imageID": "",
            "state": state})
    }

    #[test]
    fn shows_one_word_for_what_a_pod_is_doing() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let ended =
            |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
        let running = || json!({"running": {}});
        let of = |phase: &str, a: Value, b: Value| {
            printed(false, two(), json!({"phase": phase, "containerStatuses": [a, b]}))
        };
        assert_eq!(
            printed(false, two(), json!({"phase": "Pending"})),
            "p | 0/2 | Pending | 0 | 5s"
        );
        assert_eq!(
            of("Running", status("a", true, running()), status("b", true, running())),
            "p | 2/2 | Running | 0 | 5s"
        );
        assert_eq!(
            of(
                "Running",
                status("a", false, waiting("CrashLoopBackOff")),
                status("b", true, running())
            ),
            "p | 1/2 | CrashLoopBackOff | 0 | 5s"
        );
        assert_eq!(
            of(
                "Succeeded",
                status("a", false, ended(0, "Completed")),
                status("b", false, ended(0, "Completed"))
            ),
            "p | 0/2 | Completed | 0 | 5s"
        );
        assert_eq!(
            of(
                "Failed",
                status("a", false, ended(0, "Completed")),
                status("b", false, ended(7, ""))
            ),
            "p | 0/2 | ExitCode:7 | 0 | 5s"
        );
        assert_eq!(
            printed(true, two(), json!({"phase": "Running"})),
            "p | 0/2 | Terminating | 0 | 5s"
        );
    }

    #[test]
    fn shows_how_far_the_start_has_come() {
        let spec = json!({"containers": [{"name": "a"}],
            "initContainers": [{"name": "i"}, {"name": "j"}]});
        let of = |init: Value| {
            printed(false, spec.clone(), json!({"phase": "Pending", "initContainerStatuses": init}))
        };
        let done = status("i", true, json!({"terminated": {"exitCode": 0}}));
        assert_eq!(
            of(json!([status("i", false, json!({"running": {}}))])),
            "p | 0/1 | Init:0/2 | 0 | 5s"
        );
        let failed = status("j", false, json!({"terminated": {"exitCode": 1, "reason": "Error"}}));
        assert_eq!(of(json!([done, failed])), "p | 0/1 | Init:Error | 0 | 5s");
    }

    #[test]
    fn shows_restarts_with_the_time_of_the_last() {
        let mut container = status("a", true, json!({"running": {}}));
        container["restartCount"] = 3.into();
        container["lastState"] = json!({"terminated": {"exitCode": 1,
            "finishedAt": Timestamp::from_seconds(NOW.seconds() - 90).rfc3339()}});
        let status = json!({"phase": "Running", "containerStatuses": [container],
            "podIPs": [{"ip": "10.1.0.4"}]});
        let spec = json!({"containers": [{"name": "a"}], "nodeName": "n1",
            "readinessGates": [{"conditionType": "x"}]});
        assert_eq!(
            printed(false, spec, status),
            "p | 1/1 | Running | 3 (90s ago) | 5s | 10.1.0.4 | n1 | <none> | 0/1"
        );
    }
}
