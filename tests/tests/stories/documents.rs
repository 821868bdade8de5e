//! The sessions of documents about NFS and ordered sets, command by command, on a storage host, a server with a node,
//! and two more nodes: static volumes, names, scale, a provisioner in the cluster, a default class.

mod dynamic;
mod names;
mod volumes;

use serde_json::Value;
use std::{fs, path::PathBuf, process::Command};
use tests::{Host, Hosts, Kubectl, NfsServer, Running, images, process_of};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// A disk that is full is another story.
const NO_EVICTION: &str = "--eviction-hard=memory.available<1Mi";
const DNS: &str = "@10.96.0.10";

/// A storage host, and three machines of a cluster.
struct Site {
    // End before their hosts do.
    _running: Vec<Running>,
    server: NfsServer,
    kubectl: Kubectl,
    hosts: Hosts,
}

impl Site {
    fn start() -> Option<Site> {
        let has = |program: &str| {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            found.is_ok_and(|it| it.status.success())
        };
        if let Some(lacking) = ["dig", "script"].into_iter().find(|it| !has(it)) {
            println!("skipped: documents needs {lacking}");
            return None;
        }
        let hosts = Hosts::start("documents", &["storage", "n1", "n2", "n3"])?;
        let server = NfsServer::start(hosts.host("storage"))?;
        // As `docker load` on each machine: there is no registry.
        let archives = [&images().busybox, &images().nginx];
        let archives = archives.map(|it| it.to_str().expect("a path in UTF-8"));
        std::thread::scope(|scope| {
            for (node, archive) in NODES.iter().flat_map(|node| archives.map(|it| (node, it))) {
                let host = hosts.host(node);
                scope.spawn(move || {
                    let said = host.stanchion(&["image", "import", archive]);
                    assert!(said.ok, "{}", said.errors);
                });
            }
        });
        let data = |host: &Host| format!("--data-dir={}", host.data_dir().display());
        let first = hosts.host("n1");
        let listen = format!("--listen={}:6443", first.address());
        let mut up = first.serve("up", &["up", &listen, NO_EVICTION, &data(first)]);
        up.line("the ready line", |it| it.starts_with("ready in "));
        let mut running = vec![up];
        let token = first.stanchion(&["token", "create"]);
        assert!(token.ok, "{token:?}");
        for node in &NODES[1..] {
            let host = hosts.host(node);
            let joining = ["node", "--server=https://n1:6443", "--token", token.out.trim()];
            let flags = [NO_EVICTION, &data(host)];
            running.push(host.serve("node", &[&joining[..], &flags].concat()));
        }
        for node in &mut running[1..] {
            node.line("the node's ready line", |it| it.starts_with("ready in "));
        }
        let kubectl = first.kubectl(&first.data_dir().join("admin.kubeconfig"));
        kubectl.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"]);
        Some(Site { _running: running, server, kubectl, hosts })
    }

    fn share(&self) -> PathBuf {
        self.server.share().to_owned()
    }

    /// The directories of the share.
    fn directories(&self) -> Vec<String> {
        let all = fs::read_dir(self.share()).expect("the share").flatten();
        let mut names: Vec<String> =
            all.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn wait_bound(&self, claim: &str) -> Value {
        self.kubectl.wait_for(&format!("claim {claim} is Bound"), &["pvc", claim], |it| {
            (it["status"]["phase"] == "Bound").then(|| it.clone())
        })
    }

    /// Pods `web-0` and so on of a set, all Ready.
    fn wait_set(&self, replicas: usize) -> Vec<Value> {
        self.kubectl.wait_for(&format!("{replicas} pods of web"), &["sts", "web"], |it| {
            let status = |field: &str| it["status"][field].as_u64();
            let wanted = Some(replicas as u64);
            let count = |field: &str| status(field).or(Some(0));
            let current = it["metadata"]["generation"] == it["status"]["observedGeneration"];
            (current && count("readyReplicas") == wanted && count("replicas") == wanted)
                .then_some(())
        });
        (0..replicas).map(|it| self.kubectl.wait_ready(&format!("web-{it}"))).collect()
    }

    /// What a program on the node of a pod prints, run in the pod's network.
    fn beside(&self, pod: &Value, words: &[&str]) -> String {
        let container = text(pod, "/status/containerStatuses/0/containerID");
        let (process, _) = process_of(container).expect("the container's process");
        let mut command = Command::new("nsenter");
        command.args(["--target", &process.to_string(), "--net", "--"]).args(words);
        let output = command.output().expect("nsenter runs");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `kubectl get WORDS`, with the addresses that the nodes of the pods have for them.
    fn wide(&self, pods: &[Value]) -> String {
        let wide = self.kubectl.kubectl(&["get", "sts,svc,po", "-o", "wide"]);
        for pod in pods {
            let (node, address) = (text(pod, "/spec/nodeName"), text(pod, "/status/podIP"));
            let range = self.kubectl.json(&["get", "node", node]);
            let range = text(&range, "/spec/podCIDR").trim_end_matches("0/24").to_owned();
            assert!(address.starts_with(&range), "{address} on {node}, which has {range}");
            let name = format!("pod/{} ", text(pod, "/metadata/name"));
            let line = wide.lines().find(|it| it.starts_with(&name)).unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(words.contains(&address) && words.contains(&node), "{wide}");
        }
        wide
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let questions: [&[&str]; 4] = [
                &["get", "nodes,sts,pods,pvc,pv,sc", "-Ao", "wide"],
                &["get", "events", "-A", "--sort-by=.lastTimestamp"],
                &["describe", "pods"],
                &["logs", "-l", "app=nfs-client-provisioner"],
            ];
            for words in questions {
                let said = self.kubectl.try_kubectl(words);
                println!("$ kubectl {}\n{}{}", words.join(" "), said.out, said.errors);
            }
        }
    }
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn nodes_of(pods: &[Value]) -> Vec<&str> {
    let mut nodes: Vec<&str> = pods.iter().map(|it| text(it, "/spec/nodeName")).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

#[test]
fn the_sessions_of_documents_end_as_they_are_told() {
    let Some(site) = Site::start() else { return };
    names::a_headless_service_is_scaled_in_four_ways_and_asked_for_by_name(&site);
    volumes::a_set_keeps_its_data_on_static_volumes_wherever_it_goes(&site);
    dynamic::a_provisioner_in_the_cluster_serves_its_class(&site);
    dynamic::a_class_becomes_the_default(&site);
}
