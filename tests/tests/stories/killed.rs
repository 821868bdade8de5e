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

    let group = group_of(lives(&cluster)["still"].2.0).expect("containers have a control group");
    let mut known = Known { replicas: 3, ..Known::default() };
    for round in 0..rounds {
        let before = lives(&cluster);
        let writer = Writer::start(&cluster, round);
        let disturbed = known.disturb(&cluster, chance.below(5));
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
        known.written.extend(writer.stop());
        cluster.up();

        known.assert_kept(&cluster);
        // Whom nobody touched lives on as the same process.
        let after = lives(&cluster);
        assert_eq!(before["still"], after["still"], "the container that nobody touched");
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
    assert_eq!(processes_in(&group), Vec::<u32>::new());
}

/// What the server acknowledged.
#[derive(Default)]
struct Known {
    /// Names of ConfigMaps.
    written: Vec<String>,
    /// What the set was last scaled to.
    replicas: u32,
    /// The uid of a pod that is to go.
    deleted: Option<String>,
    /// Whether the pod `comer` and its claim are to be there.
    comer: bool,
}

impl Known {
    /// Sets something going that the kill will meet half way.
    fn disturb(&mut self, cluster: &Cluster, what: u64) -> &'static str {
        match what {
            0 => {
                let pod = cluster.look(&["get", "pod", "web-1"]);
                cluster.kubectl(&["delete", "pod", "web-1", "--wait=false", "--ignore-not-found"]);
                self.deleted = pod["metadata"]["uid"].as_str().map(str::to_owned);
                "deleting web-1"
            }
            1 => {
                cluster.kubectl(&["scale", "statefulset", "web", "--replicas=1"]);
                self.replicas = 1;
                "scaling to 1"
            }
            2 => {
                cluster.kubectl(&["scale", "statefulset", "web", "--replicas=3"]);
                self.replicas = 3;
                "scaling to 3"
            }
            3 => {
                // Whoever goes must be gone before a namesake comes.
                if !self.comer {
                    cluster.wait_gone(&["pod", "comer"]);
                    cluster.wait_gone(&["pvc", "come"]);
                }
                cluster.apply(&(claim("come", "64Mi") + &pod_with("comer", "come")));
                self.comer = true;
                "a claim and a pod coming"
            }
            _ => {
                let words =
                    ["delete", "pod/comer", "pvc/come", "--wait=false", "--ignore-not-found"];
                cluster.kubectl(&words);
                self.comer = false;
                "a claim and a pod going"
            }
        }
    }

    #[track_caller]
    fn assert_kept(&self, cluster: &Cluster) {
        let names = cluster.kubectl(&["get", "configmaps", "-o", "name"]);
        for name in &self.written {
            let is_there = names.lines().any(|it| it == format!("configmap/{name}"));
            assert!(is_there, "{name} was acknowledged and is lost");
        }
        let set = cluster.json(&["get", "statefulset", "web"]);
        assert_eq!(set["spec"]["replicas"], self.replicas, "what the set was scaled to");
        if let Some(uid) = &self.deleted {
            let pod = cluster.look(&["get", "pod", "web-1"]);
            let meta = &pod["metadata"];
            let is_going = meta["uid"] != **uid || !meta["deletionTimestamp"].is_null();
            assert!(is_going, "the deletion of web-1 was acknowledged and is lost: {pod:#}");
        }
        for words in [["get", "pod", "comer"], ["get", "pvc", "come"]] {
            let seen = cluster.look(&words);
            let stays = !seen.is_null() && seen["metadata"]["deletionTimestamp"].is_null();
            assert_eq!(stays, self.comer, "{}: {seen:#}", words[2]);
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

/// The control group of all containers of the instance that a process belongs to.
fn group_of(process: u32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let names = groups.lines().filter_map(|it| it.split('/').nth(1));
    names.into_iter().find(|it| it.starts_with("stanchion-")).map(str::to_owned)
}

/// Processes of an instance.
fn processes_in(group: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let numbers = processes.filter_map(|it| it.file_name().to_str()?.parse().ok());
    numbers.filter(|it| group_of(*it).is_some_and(|it| it == group)).collect()
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
