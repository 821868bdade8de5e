//! More than one machine: nodes join a server with a token, run pods with volumes, are asked for logs, restart, are
//! drained, deleted, and die.

use serde_json::Value;
use std::{fs, path::Path};
use tests::{Host, Hosts, Kubectl, Running, until};

const RANGES: [&str; 2] = ["--cluster-cidr=10.118.0.0/16", "--service-cidr=10.119.0.0/16"];

/// A server without a node of its own.
fn server(host: &Host, more: &[&str]) -> Running {
    let listen = format!("--listen={}:6443", host.address());
    let data = format!("--data-dir={}", host.data_dir().display());
    let words = [&["server", &listen, &data][..], &RANGES, more].concat();
    let mut server = host.serve("server", &words);
    server.line("the ready line", |it| it.starts_with("ready in "));
    server
}

fn token(host: &Host) -> String {
    let said = host.stanchion(&["token", "create"]);
    assert!(said.ok, "{said:?}");
    said.out.trim().to_owned()
}

fn node(host: &Host, more: &[&str]) -> Running {
    let data = format!("--data-dir={}", host.data_dir().display());
    // However full the disk of this machine is.
    let words = ["node", &data, "--eviction-hard=memory.available<1Mi"];
    host.serve("node", &[&words[..], more].concat())
}

fn joined(host: &Host, token: &str) -> Running {
    let mut node = node(host, &["--server=https://h1:6443", "--token", token]);
    node.line("the node's ready line", |it| it.starts_with("ready in "));
    node
}

/// A set of one pod with a volume, on the node of this name.
fn set(name: &str, node: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  serviceName: {name}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      nodeSelector: {{kubernetes.io/hostname: {node}}}
      tolerations:
      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}
      initContainers:
      - name: first
        image: stanchion.dev/toolbox:1
        args: [echo, hello from {node}]
      containers:
      - name: main
        image: stanchion.dev/toolbox:1
        args: [sleep, infinity]
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {{requests: {{storage: 16Mi}}}}
---
"
    )
}

fn ready_node(kubectl: &Kubectl, name: &str) -> Value {
    kubectl.wait_for(&format!("node {name} is Ready"), &["node", name], |it| {
        condition(it, "Ready").filter(|it| it["status"] == "True").map(|_| it.clone())
    })
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == kind)
}

fn taints(node: &Value) -> String {
    node["spec"]["taints"].to_string()
}

fn started(pod: &Value) -> Value {
    pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"].clone()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_machine_joins_with_a_token_and_is_a_node() {
    let Some(hosts) = Hosts::start("join", &["h1", "h2"]) else { return };
    let (h1, h2) = (hosts.host("h1"), hosts.host("h2"));
    // Certificates of nodes last half a minute here.
    let mut main = server(h1, &["--cluster-signing-duration=30s"]);
    let token = token(h1);

    // One with another authority's hash, and one that nobody made, get nowhere.
    let (own, _) = token.rsplit_once('.').unwrap();
    for wrong in
        [format!("{own}.{}", "0".repeat(64)), token.replacen(own, "aaaaaa.0123456789abcdef", 1)]
    {
        let said = h2.stanchion(&["node", "--server=https://h1:6443", "--token", &wrong]);
        assert!(!said.ok && said.errors.starts_with("error: "), "{said:?}");
    }

    let mut running = joined(h2, &token);
    let kubectl = h1.kubectl(&h1.data_dir().join("admin.kubeconfig"));
    let seen = ready_node(&kubectl, "h2");
    assert_eq!(seen["status"]["addresses"][0]["address"], h2.address().to_string());
    assert!(seen["spec"]["podCIDR"].as_str().unwrap().starts_with("10.118."), "{seen}");

    // A volume is made on the machine of its pod, and the pod answers.
    kubectl.apply(&set("web", "h2"));
    let pod = kubectl.wait_ready("web-0");
    assert_eq!(pod["status"]["hostIP"], h2.address().to_string());
    assert_eq!(kubectl.kubectl(&["logs", "web-0", "-c", "first"]), "hello from h2\n");
    kubectl.exec("web-0", &["tee", "/data/file"], "kept\n");
    let events = kubectl.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]);
    assert!(events.contains("Started"), "{events}");

    // A node may what a node may, and no more.
    let requests = kubectl.json(&["get", "csr"]);
    let requests = requests["items"].as_array().unwrap();
    assert!(requests.iter().all(|it| condition(it, "Approved").is_some()), "{requests:#?}");
    let signers: Vec<&str> =
        requests.iter().filter_map(|it| it["spec"]["signerName"].as_str()).collect();
    assert!(signers.contains(&"kubernetes.io/kube-apiserver-client-kubelet"), "{signers:?}");
    assert!(signers.contains(&"kubernetes.io/kubelet-serving"), "{signers:?}");

    // Killed and back, without the token, it has its pod still: nothing was restarted.
    running.kill();
    let mut running = node(h2, &[]);
    running.line("the node's ready line", |it| it.starts_with("ready in "));
    let again = kubectl.wait_ready("web-0");
    assert_eq!(started(&again), started(&pod));
    assert_eq!(kubectl.exec("web-0", &["cat", "/data/file"], ""), "kept\n");

    // The server goes and comes, and the node is there as before.
    main.kill();
    let _main = server(h1, &["--cluster-signing-duration=30s"]);
    let since = kubectl.json(&["get", "node", "h2"])["metadata"]["resourceVersion"].clone();
    kubectl.wait_for("the node is heard of again", &["node", "h2"], |_| {
        let lease = kubectl.look(&["get", "lease", "h2", "-n", "kube-node-lease"]);
        let revision = |it: &Value| it.as_str()?.parse::<u64>().ok();
        (revision(&lease["metadata"]["resourceVersion"]) > revision(&since)).then_some(())
    });
    assert_eq!(kubectl.kubectl(&["logs", "web-0", "-c", "first"]), "hello from h2\n");

    // Both certificates have made way for others, and all goes on.
    for file in ["node-client.pem", "node-serving.pem"] {
        let path = h2.data_dir().join("pki").join(file);
        let first = text(&path);
        until(&format!("{file} is renewed"), || match text(&path) {
            it if it != first && !it.is_empty() => Ok(()),
            _ => Err(first.clone()),
        });
    }
    assert_eq!(kubectl.exec("web-0", &["cat", "/data/file"], ""), "kept\n");

    // The volume goes with its claim, on the machine where it is.
    kubectl.kubectl(&["delete", "statefulset", "web"]);
    kubectl.kubectl(&["delete", "pvc", "data-web-0"]);
    until("the volume is gone", || {
        let said = kubectl.try_kubectl(&["get", "pv", "-o", "name"]);
        if said.ok && said.out.is_empty() { Ok(()) } else { Err(said.out + &said.errors) }
    });
    let doctor = h2.stanchion(&["doctor"]);
    assert!(doctor.out.contains("node-client until"), "{doctor:?}");
    running.stop();
    let down = h2.stanchion(&["down"]);
    assert!(down.ok, "{down:?}");
}

#[test]
fn machines_join_in_other_ways_and_are_told_why_they_may_not() {
    let Some(hosts) = Hosts::start("ways", &["h1", "h2", "h3"]) else { return };
    let (h1, h2, h3) = (hosts.host("h1"), hosts.host("h2"), hosts.host("h3"));
    let _main = server(h1, &[]);
    let admin = h1.data_dir().join("admin.kubeconfig");
    let kubectl = h1.kubectl(&admin);
    let whole = token(h1);
    let (token, hash) = whole.rsplit_once('.').unwrap();
    let refused = |host: &Host, words: &[&str], why: &str| {
        let said = host.stanchion(&[&["node"], words].concat());
        assert!(!said.ok && said.errors.contains(why), "{words:?}: {said:?}");
        let lines = said.errors.lines().filter(|it| it.starts_with("error: ")).count();
        assert_eq!(lines, 1, "{said:?}");
    };

    // The hash beside a token as kubeadm prints it. Another hash: the server is not believed, and sees no token.
    let to = "--server=https://h1:6443";
    let by = |hash: &str| format!("--discovery-token-ca-cert-hash=sha256:{hash}");
    refused(h2, &[to, "--token", token], "--discovery-token-ca-cert-hash");
    let another = by(&"0".repeat(64));
    refused(h2, &[to, "--token", token, &another], "ask h1:6443 for its authority");
    assert!(!h2.data_dir().join("pki/cluster-ca.crt").exists());

    // Tokens end.
    kubectl.apply(
        "apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-aaaaaa, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData:
  token-id: aaaaaa
  token-secret: 0123456789abcdef
  expiration: '2020-01-01T00:00:00Z'
  usage-bootstrap-authentication: 'true'
  auth-extra-groups: system:bootstrappers:nodes
",
    );
    let over = "aaaaaa.0123456789abcdef";
    refused(h2, &[to, "--token", over, &by(hash)], "Unauthorized");

    // An address that is another machine's.
    let why = "be reached at 192.0.2.77 (--node-ip): this machine has no such address";
    refused(h2, &[to, "--token", &whole, "--node-ip=192.0.2.77"], why);
    assert_eq!(kubectl.kubectl(&["get", "nodes,csr", "-o", "name"]), "");

    let own = h2.address().to_string();
    let mut second = node(h2, &[to, "--token", token, &by(hash), "--node-ip", &own]);
    second.line("the node's ready line", |it| it.starts_with("ready in "));
    ready_node(&kubectl, "h2");

    // Nobody becomes a node that is there. Under its own name this one joins as the kubeconfig's user.
    let admin = admin.to_str().unwrap();
    let why = "already exists in the cluster";
    refused(h3, &["--kubeconfig", admin, "--node-name=h2"], why);
    let mut third = node(h3, &["--kubeconfig", admin, "--node-name=h3"]);
    third.line("the node's ready line", |it| it.starts_with("ready in "));
    let seen = ready_node(&kubectl, "h3");
    assert_eq!(seen["status"]["addresses"][0]["address"], h3.address().to_string());
    let requests = kubectl.json(&["get", "csr"]);
    let denied = |it: &&Value| condition(it, "Denied").is_some();
    let denied = requests["items"].as_array().unwrap().iter().find(denied).unwrap();
    assert_eq!(condition(denied, "Denied").unwrap()["reason"], "NodeIsThere");
}

/// A pod on node h2 that leaves a file on the machine when it is told to end.
fn marking(name: &str, place: &Path) -> String {
    format!(
        "apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {{name: {name}}}
value: {}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: h2
  priorityClassName: {name}
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: stanchion.dev/toolbox:1
    args: [sleep, infinity]
    volumeMounts: [{{name: seen, mountPath: /seen}}]
    lifecycle: {{preStop: {{exec: {{command: [touch, /seen/{name}]}}}}}}
  volumes: [{{name: seen, hostPath: {{path: {}, type: DirectoryOrCreate}}}}]
---
",
        if name == "high" { 1000 } else { 10 },
        place.display()
    )
}

#[test]
fn a_node_goes_on_without_its_server_and_ends_as_its_pods_want() {
    let Some(hosts) = Hosts::start("alone", &["h1", "h2"]) else { return };
    let (h1, h2) = (hosts.host("h1"), hosts.host("h2"));
    let mut main = server(h1, &[]);
    let mut running = joined(h2, &token(h1));
    let kubectl = h1.kubectl(&h1.data_dir().join("admin.kubeconfig"));
    let seen = h2.directory().join("seen");
    kubectl.apply(&[marking("low", &seen), marking("high", &seen)].concat());
    let before = ["low", "high"].map(|it| started(&kubectl.wait_ready(it)));

    // The node starts again while its server is away: it waits, and its containers run.
    main.kill();
    running.stop();
    let mut running = node(h2, &[]);
    until("the node has tried", || match text(&h2.log("node")) {
        log if log.contains("trying again") => Ok(()),
        log => Err(log),
    });
    let main = server(h1, &[]);
    running.line("the node's ready line", |it| it.starts_with("ready in "));
    ready_node(&kubectl, "h2");
    for (name, before) in ["low", "high"].iter().zip(&before) {
        let pod = kubectl.wait_ready(name);
        assert_eq!(started(&pod), *before);
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    }

    // Taken down without its server: the process ends, then pods, the less important one first, each with its hook.
    drop(main);
    let down = h2.stanchion(&["down"]);
    assert!(down.ok, "{down:?}");
    let told: Vec<&str> = down.out.lines().collect();
    assert!(told[0].starts_with("asked process "), "{down:?}");
    assert_eq!(told[1..3], ["stopped pod default/low", "stopped pod default/high"], "{down:?}");
    assert!(told[3].starts_with("stopped 2 pods, "), "{down:?}");
    let at = |name: &str| fs::metadata(seen.join(name)).unwrap().modified().unwrap();
    assert!(at("low") < at("high"), "{:?} {:?}", at("low"), at("high"));
    let again = h2.stanchion(&["down"]);
    assert!(again.ok && again.out.starts_with("stopped 0 pods, "), "{again:?}");
}

#[test]
fn nodes_are_emptied_deleted_and_die() {
    let Some(hosts) = Hosts::start("nodes", &["h1", "h2", "h3"]) else { return };
    let (h1, h2, h3) = (hosts.host("h1"), hosts.host("h2"), hosts.host("h3"));
    let _main = server(h1, &[]);
    let token = token(h1);
    let _second = joined(h2, &token);
    let mut third = joined(h3, &token);
    let kubectl = h1.kubectl(&h1.data_dir().join("admin.kubeconfig"));
    let shares = ["h2", "h3"].map(|it| ready_node(&kubectl, it)["spec"]["podCIDR"].clone());
    assert_ne!(shares[0], shares[1]);
    kubectl.apply(&[set("two", "h2"), set("three", "h3")].concat());
    let before = kubectl.wait_ready("two-0");
    kubectl.wait_ready("three-0");
    kubectl.exec("two-0", &["tee", "/data/file"], "of two\n");

    // Drained, the node has no pod; open again, the pod is back with its data.
    let drained =
        kubectl.kubectl(&["drain", "h2", "--ignore-daemonsets", "--delete-emptydir-data"]);
    assert!(drained.contains("drained"), "{drained}");
    assert!(taints(&kubectl.json(&["get", "node", "h2"])).contains("unschedulable"));
    kubectl.kubectl(&["uncordon", "h2"]);
    let after = kubectl.wait_for("pod two-0 is back", &["pod", "two-0"], |it| {
        let is_other = it["metadata"]["uid"] != before["metadata"]["uid"];
        (is_other && tests::is_ready(it)).then(|| it.clone())
    });
    assert_eq!(after["spec"]["nodeName"], "h2");
    assert_eq!(kubectl.exec("two-0", &["cat", "/data/file"], ""), "of two\n");

    // A node that dies is unknown, then unreachable; its pod ends when its time is over, but nobody can say that it has.
    third.kill();
    let lost = kubectl.wait_for("node h3 is unknown", &["node", "h3"], |it| {
        let unknown = condition(it, "Ready").filter(|it| it["status"] == "Unknown");
        unknown.and_then(|_| taints(it).contains("unreachable").then(|| it.clone()))
    });
    assert_eq!(condition(&lost, "Ready").unwrap()["reason"], "NodeStatusUnknown");
    let ending = kubectl.wait_for("pod three-0 is to end", &["pod", "three-0"], |it| {
        it["metadata"]["deletionTimestamp"].is_string().then(|| it.clone())
    });
    assert_eq!(condition(&ending, "Ready").unwrap()["status"], "False");
    assert_eq!(condition(&ending, "DisruptionTarget").unwrap()["reason"], "DeletionByTaintManager");

    // Somebody says that the machine is off: the pod goes, and waits for a machine with its volume.
    let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    kubectl.kubectl(&["taint", "node", "h3", taint]);
    kubectl.wait_for("another three-0", &["pod", "three-0"], |it| {
        let is_other =
            it["metadata"]["uid"].is_string() && it["metadata"]["uid"] != ending["metadata"]["uid"];
        is_other.then_some(())
    });

    // It comes back: what ran there meanwhile is ended, and the pod has its data.
    kubectl.kubectl(&["taint", "node", "h3", &format!("{taint}-")]);
    let mut third = node(h3, &[]);
    third.line("the node's ready line", |it| it.starts_with("ready in "));
    kubectl.wait_ready("three-0");

    // A node that is deleted takes its pods with it.
    kubectl.kubectl(&["cordon", "h3"]);
    third.stop();
    let last = kubectl.json(&["get", "pod", "three-0"])["metadata"]["uid"].clone();
    kubectl.kubectl(&["delete", "node", "h3"]);
    kubectl.wait_for("the pod of the deleted node is gone", &["pods"], |it| {
        let all = it["items"].as_array()?;
        all.iter().all(|it| it["metadata"]["uid"] != last).then_some(())
    });
    let down = h3.stanchion(&["reset", "--yes"]);
    assert!(down.ok, "{down:?}");
    assert!(!h3.data_dir().exists());
}
