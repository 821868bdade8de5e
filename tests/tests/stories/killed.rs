//! The server is killed at moments of chance, in the middle of everything: nothing that was acknowledged is
//! lost, containers go on, nobody is doubled, and nothing is left behind.

use crate::manifest::{claim, pod_with};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tests::{Chance, Cluster, is_ready, leftovers, process_of, until};

const SET: &str = include_str!("../../../examples/web/web.yaml");

/// What a container is known by: pod uid, container id, process, start.
type Lives = BTreeMap<String, (String, String, (u32, u64))>;

#[test]
fn a_server_killed_at_any_moment_loses_nothing() {
    let Some(mut cluster) = Cluster::start("killed") else { return };
    let mut chance = Chance::of("killed");
    let long = std::env::var("STANCHION_TEST_LONG").is_ok_and(|it| !it.is_empty());
    let rounds = if long { 50 } else { 5 };

    cluster.apply(&SET.replace("storage: 1Gi", "storage: 64Mi"));
    cluster.apply(&(claim("kept", "64Mi") + &pod_with("still", "kept")));
    for pod in ["web-0", "web-1", "web-2", "still"] {
        cluster.wait_ready(pod);
        let at = if pod == "still" { "/data/text" } else { "/data/index.html" };
        cluster.exec(pod, &["tee", at], &format!("text of {pod}"));
    }

    let mut written: Vec<String> = Vec::new();
    for round in 0..rounds {
        let before = lives(&cluster);
        let writer = Writer::start(&cluster, round);
        let disturbed = disturb(&cluster, chance.below(5));
        let moment = Duration::from_millis(chance.below(1500));
        cluster.let_pass(moment);
        cluster.kill();
        let mut said =
            format!("killed: {round}: {disturbed}, killed after {} ms", moment.as_millis());
        if chance.below(3) == 0 {
            let moment = Duration::from_millis(chance.below(400));
            cluster.spawn(&[]);
            cluster.let_pass(moment);
            cluster.kill();
            said += &format!(", and {} ms into its start", moment.as_millis());
        }
        println!("{said}");
        written.extend(writer.stop());
        cluster.up();

        // What was answered is there.
        let names = cluster.kubectl(&["get", "configmaps", "-o", "name"]);
        for name in &written {
            assert!(
                names.lines().any(|it| it == format!("configmap/{name}")),
                "{name} was acknowledged and is lost"
            );
        }
        // Whom nobody touched lives on as the same process.
        let after = lives(&cluster);
        assert_eq!(before.get("still"), after.get("still"), "the container that nobody touched");
        for (pod, (uid, container, process)) in &after {
            if let Some((old_uid, old_container, old_process)) = before.get(pod)
                && (uid, container) == (old_uid, old_container)
            {
                assert_eq!(process, old_process, "the process of {pod}");
            }
        }
        assert_eq!(cluster.exec("still", &["cat", "/data/text"], ""), "text of still");
    }

    // It settles: everybody once, with what is his.
    cluster.kubectl(&["scale", "statefulset", "web", "--replicas=3"]);
    for pod in ["web-0", "web-1", "web-2"] {
        cluster.wait_ready(pod);
        assert_eq!(cluster.exec(pod, &["cat", "/data/index.html"], ""), format!("text of {pod}"));
    }
    until("pods of the disturbances are gone or run", || {
        let pods = cluster.json(&["get", "pods"]);
        let all = pods["items"].as_array().unwrap();
        let unsettled: Vec<&Value> = all.iter().filter(|it| !is_ready(it)).collect();
        if unsettled.is_empty() { Ok(()) } else { Err(format!("{unsettled:#?}")) }
    });
    assert_nobody_is_doubled(&cluster);
    let volumes = cluster.json(&["get", "pv"]);
    let mut claims: Vec<&str> = volumes["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it["spec"]["claimRef"]["uid"].as_str())
        .collect();
    let count = claims.len();
    claims.sort_unstable();
    claims.dedup();
    assert_eq!(claims.len(), count, "two volumes for one claim");

    cluster.stop();
    let said = cluster.down();
    assert!(said.ok, "{}{}", said.out, said.errors);
    assert_eq!(leftovers(cluster.directory()), Vec::<String>::new());
    assert_eq!(runners(&cluster), Vec::<String>::new());
}

/// Sets something going that the kill will meet half way.
fn disturb(cluster: &Cluster, what: u64) -> &'static str {
    match what {
        0 => {
            cluster.kubectl(&["delete", "pod", "web-1", "--wait=false", "--ignore-not-found"]);
            "deleting web-1"
        }
        1 => {
            cluster.kubectl(&["scale", "statefulset", "web", "--replicas=1"]);
            "scaling to 1"
        }
        2 => {
            cluster.kubectl(&["scale", "statefulset", "web", "--replicas=3"]);
            "scaling to 3"
        }
        3 => {
            cluster.apply(&(claim("come", "64Mi") + &pod_with("comer", "come")));
            "a claim and a pod coming"
        }
        _ => {
            cluster.kubectl(&[
                "delete",
                "pod/comer",
                "pvc/come",
                "--wait=false",
                "--ignore-not-found",
            ]);
            "a claim and a pod going"
        }
    }
}

/// Containers that run, by their pods.
fn lives(cluster: &Cluster) -> Lives {
    let pods = cluster.json(&["get", "pods"]);
    let pods = pods["items"].as_array().unwrap();
    pods.iter()
        .filter_map(|pod| {
            let container = pod["status"]["containerStatuses"][0]["containerID"].as_str()?;
            let said = |it: &Value| it.as_str().unwrap_or_default().to_owned();
            let process = process_of(container)?;
            let meta = &pod["metadata"];
            Some((said(&meta["name"]), (said(&meta["uid"]), container.to_owned(), process)))
        })
        .collect()
}

/// First arguments of the processes whose parents are shims of this cluster.
fn runners(cluster: &Cluster) -> Vec<String> {
    let place = cluster.data_dir().display().to_string();
    let output = Command::new("ps").args(["-eo", "pid,args"]).output().expect("ps");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|it| it.contains(&place)).map(str::to_owned).collect()
}

/// One sandbox for each pod of the API.
fn assert_nobody_is_doubled(cluster: &Cluster) {
    let pods = cluster.json(&["get", "pods"]);
    let sandboxes =
        std::fs::read_dir(cluster.data_dir().join("runtime/sandboxes")).expect("sandboxes");
    let names: Vec<String> =
        sandboxes.flatten().map(|it| it.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), pods["items"].as_array().unwrap().len(), "sandboxes {names:?}");
}

/// Creates one object after the other until it is told to stop, and remembers those that were acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(cluster: &Cluster, round: u32) -> Writer {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, acknowledged) = (stop.clone(), written.clone());
        let (home, kubeconfig) = (cluster.directory().to_owned(), cluster.kubeconfig());
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let name = format!("written-{round}-{number}");
                let mut kubectl = Command::new("kubectl");
                kubectl.args(["create", "configmap", &name, "--request-timeout=5s"]);
                kubectl.env("HOME", &home).env("KUBECONFIG", &kubeconfig);
                kubectl.stdout(Stdio::null()).stderr(Stdio::null());
                match kubectl.status() {
                    Ok(status) if status.success() => acknowledged.lock().unwrap().push(name),
                    // The server is gone: so will be the writer.
                    _ => return,
                }
            }
        });
        Writer { stop, written, thread }
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends");
        self.written.lock().unwrap().clone()
    }
}
