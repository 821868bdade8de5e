//! A walk through kubectl's words, whichever kubectl is on the PATH: what it says, and whether it is
//! content. Words that came later are left out for those that do not know them.

mod more;

use std::{fs, path::Path, process::Output};
use tests::Cluster;

const MANIFEST: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80, name: http}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  replicas: 3
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      initContainers:
      - {name: greet, image: stanchion.dev/toolbox:1, command: [echo, hello]}
      containers:
      - {name: c, image: stanchion.dev/toolbox:1, command: [sleep, infinity], ports: [{containerPort: 80}]}
";

/// What is said, and what must be heard.
struct Step {
    /// The first minor version of kubectl that knows these words.
    since: u32,
    words: &'static str,
    ok: bool,
    /// Each of these is in what it prints, on either channel.
    says: &'static [&'static str],
}

const fn ok(words: &'static str, says: &'static [&'static str]) -> Step {
    Step { since: 20, words, ok: true, says }
}

const fn since(since: u32, words: &'static str, says: &'static [&'static str]) -> Step {
    Step { since, words, ok: true, says }
}

const fn refused(words: &'static str, says: &'static [&'static str]) -> Step {
    Step { since: 20, words, ok: false, says }
}

/// Words are parted by spaces; `_` in a word stands for a space.
const WALK: &[Step] = &[
    ok("apply -f MANIFEST", &["service/web created", "statefulset.apps/web created"]),
    ok("apply -f MANIFEST", &["service/web unchanged", "statefulset.apps/web unchanged"]),
    ok("rollout status sts/web --timeout=120s", &["partitioned roll out complete: 3 new pods"]),
    // Looking.
    ok("get pods", &["NAME    READY   STATUS    RESTARTS   AGE", "web-2   1/1     Running"]),
    ok("get pods -o wide", &["NOMINATED NODE   READINESS GATES"]),
    ok("get all", &["pod/web-0", "service/web", "statefulset.apps/web   3/3"]),
    ok("get pods -o name", &["pod/web-0\npod/web-1\npod/web-2"]),
    ok("get pods -o jsonpath={.items[*].metadata.name}", &["web-0 web-1 web-2"]),
    ok("get pods -o custom-columns=N:.metadata.name", &["N\nweb-0\nweb-1"]),
    ok("get pods -o go-template={{range_.items}}{{.status.phase}},{{end}}", &["Running,Running,"]),
    ok("get pods -o yaml", &["kind: List"]),
    ok("get pod web-0 -o json", &["\"kind\": \"Pod\""]),
    ok("get pods -l app=web --sort-by=.metadata.name --no-headers", &["web-0   1/1"]),
    ok("get pods --field-selector status.phase=Running -o name", &["pod/web-0"]),
    ok("get pods -l app_in_(web),!x -L app", &["AGE   APP"]),
    ok("get pods --chunk-size=1 -o name", &["pod/web-0\npod/web-1\npod/web-2"]),
    ok("get pods -A", &["NAMESPACE"]),
    ok("get sc", &["ALLOWVOLUMEEXPANSION", "local (default)"]),
    ok("get priorityclass", &["system-node-critical      2000001000   false"]),
    refused(
        "get pods --field-selector spec.nonsense=x",
        &["field label not supported: spec.nonsense"],
    ),
    refused("get pod web-0 web-9", &["web-0   1/1", "pods \"web-9\" not found"]),
    refused("get nonsense", &["the server doesn't have a resource type \"nonsense\""]),
    ok("describe sts web", &["3 desired | 3 total", "3 Running / 0 Waiting", "SuccessfulCreate"]),
    ok(
        "describe pod web-0",
        &["QoS Class:", "node.kubernetes.io/not-ready:NoExecute op=Exists for 300s", "Scheduled"],
    ),
    ok("describe svc web", &["TargetPort:"]),
    ok("describe node", &["Allocated resources:", "Non-terminated Pods:"]),
    ok("describe sc local", &["IsDefaultClass:        Yes"]),
    ok("explain sts.spec.replicas", &["replicas", "integer"]),
    ok("explain pod.spec.volumes --recursive", &["azureDisk"]),
    ok("api-resources", &["statefulsets", "poddisruptionbudgets", "resourcequotas", "limitranges"]),
    ok("api-versions", &["apps/v1", "events.k8s.io/v1", "policy/v1"]),
    ok("version", &["v1.36"]),
    ok("cluster-info", &["is running at"]),
    // Making.
    ok("create configmap cm --from-literal=a=b", &["configmap/cm created"]),
    ok("create secret generic s --from-literal=a=b", &["secret/s created"]),
    ok(
        "create secret docker-registry dr --docker-username=u --docker-password=p --docker-server=x",
        &["secret/dr created"],
    ),
    ok("create serviceaccount sa1", &["serviceaccount/sa1 created"]),
    ok("create service clusterip c1 --tcp=80:8080", &["service/c1 created"]),
    ok("create service nodeport n1 --tcp=80:8080", &["service/n1 created"]),
    ok("create service loadbalancer l1 --tcp=80", &["service/l1 created"]),
    ok("create service externalname e1 --external-name example.com", &["service/e1 created"]),
    ok("create quota q --hard=pods=10,services=10", &["resourcequota/q created"]),
    ok("create poddisruptionbudget p1 --selector=app=web --min-available=1", &["/p1 created"]),
    ok("create priorityclass high --value=10 --description=x", &["/high created"]),
    ok("create namespace other --dry-run=server", &["namespace/other created (server dry run)"]),
    refused("create ingress i --rule=a/b=c:80", &["ingresses.networking.k8s.io cannot be created"]),
    refused("create configmap cm", &["configmaps \"cm\" already exists"]),
    ok("describe quota q", &["pods", "10", "services"]),
    // Changing.
    ok("label pods -l app=web tier=1", &["pod/web-0 labeled"]),
    refused("label pod web-0 tier=2", &["already has a value (1), and --overwrite is false"]),
    ok("label pod web-0 tier=2 --overwrite", &["pod/web-0"]),
    ok("label pod web-0 tier-", &["pod/web-0"]),
    ok("annotate pod web-0 note=hi", &["pod/web-0 annotated"]),
    ok(
        "patch sts web -p {\"metadata\":{\"labels\":{\"x\":\"y\"}}}",
        &["statefulset.apps/web patched"],
    ),
    ok("patch sts web --type=merge -p {\"metadata\":{\"labels\":{\"x\":\"z\"}}}", &["patched"]),
    ok(
        "patch sts web --type=json -p [{\"op\":\"remove\",\"path\":\"/metadata/labels/x\"}]",
        &["patched"],
    ),
    refused(
        "patch sts web --type=json -p [{\"op\":\"remove\",\"path\":\"/metadata/labels/x\"}]",
        &["The request is invalid"],
    ),
    refused(
        "patch sts web -p {\"spec\":{\"serviceName\":\"x\"}}",
        &["updates to statefulset spec for fields other than"],
    ),
    since(
        24,
        "patch sts web --subresource=status --type=merge -p {\"status\":{\"replicas\":3}}",
        &["patched (no change)"],
    ),
    ok("scale sts web --replicas=2", &["statefulset.apps/web scaled"]),
    refused(
        "scale sts web --current-replicas=9 --replicas=1",
        &["xpected replicas to be 9, was 2"],
    ),
    ok("scale sts web --current-replicas=2 --replicas=3", &["statefulset.apps/web scaled"]),
    ok("rollout status sts/web --timeout=120s", &["roll out complete"]),
    ok("set env sts/web A=B", &["statefulset.apps/web env updated"]),
    ok("set env sts/web --list", &["A=B"]),
    ok("set resources sts/web --limits=memory=64Mi", &["resource requirements updated"]),
    ok("set serviceaccount sts/web sa1", &["serviceaccount updated"]),
    ok("set image sts/web c=stanchion.dev/toolbox:1", &[]),
    ok("rollout status sts/web --timeout=120s", &["roll out complete"]),
    ok("rollout history sts/web", &["REVISION", "4"]),
    ok("rollout history sts/web --revision=1", &["with revision #1"]),
    ok("rollout undo sts/web --to-revision=1", &["statefulset.apps/web rolled back"]),
    ok("rollout restart sts/web", &["statefulset.apps/web restarted"]),
    refused("rollout pause sts/web", &["pausing is not supported"]),
    ok("rollout status sts/web --timeout=120s", &["roll out complete"]),
    ok("expose pod web-0 --port=80 --name=exposed", &["service/exposed exposed"]),
    refused("expose sts web --name=exposed --port=80", &["cannot expose a StatefulSet"]),
    refused("autoscale sts web --max=3", &["nothing in this cluster scales by load"]),
    ok("edit sts web", &["statefulset.apps/web edited"]),
    ok("get sts web -o jsonpath={.spec.replicas}", &["2"]),
    ok("apply view-last-applied sts/web", &["kind: StatefulSet"]),
    refused("diff -f MANIFEST", &["-  replicas: 2", "+  replicas: 3"]),
    ok("apply -f MANIFEST --dry-run=server", &["statefulset.apps/web configured (server dry run)"]),
    ok("replace -f MANIFEST", &["statefulset.apps/web replaced"]),
    ok("rollout status sts/web --timeout=120s", &["roll out complete"]),
    // Waiting and reading.
    ok("wait --for=condition=Ready pod/web-0 --timeout=120s", &["pod/web-0 condition met"]),
    since(
        23,
        "wait --for=jsonpath={.status.phase}=Running pod/web-0 --timeout=60s",
        &["condition met"],
    ),
    since(31, "wait --for=create cm/cm --timeout=10s", &["configmap/cm condition met"]),
    ok("logs web-0 -c greet", &["hello"]),
    ok("logs -l app=web --all-containers --prefix --tail=5", &["[pod/web-0/greet] hello"]),
    ok("logs web-0 -c greet --since=1h --limit-bytes=3", &["hel"]),
    ok("logs web-0 -c greet --timestamps", &["Z hello"]),
    refused("logs web-0 -c nonsense", &["container nonsense is not valid for pod web-0"]),
    refused("logs web-0 -p", &["previous terminated container \"c\" in pod \"web-0\" not found"]),
    ok("exec web-0 -- echo hi", &["hi"]),
    ok("get events --sort-by=.lastTimestamp", &["SuccessfulCreate"]),
    ok("get events.events.k8s.io -o jsonpath={.items[0].apiVersion}", &["events.k8s.io/v1"]),
    since(26, "events --for pod/web-0", &["Scheduled"]),
    // Nodes.
    ok("taint nodes --all a=b:PreferNoSchedule", &["tainted"]),
    ok("taint nodes --all a=b:PreferNoSchedule-", &["untainted"]),
    // Going.
    ok(
        "run once --image=stanchion.dev/toolbox:1 --restart=Never -- sleep 100",
        &["pod/once created"],
    ),
    ok("delete pod once --now --wait=false", &["pod \"once\" deleted"]),
    ok("delete cm cm --dry-run=server", &["configmap \"cm\" deleted (server dry run)"]),
    refused("delete cm cm gone", &["configmap \"cm\" deleted", "configmaps \"gone\" not found"]),
    ok("delete cm -l a=b", &["No resources found"]),
    ok("delete secret --all", &["secret \"s\" deleted"]),
    ok("delete sts web --cascade=orphan", &["statefulset.apps \"web\" deleted"]),
    ok("get pod web-0", &["web-0   1/1"]),
    ok("apply -f MANIFEST", &["statefulset.apps/web created"]),
    ok("rollout status sts/web --timeout=120s", &["roll out complete"]),
    ok("delete sts web --cascade=foreground --timeout=60s", &["statefulset.apps \"web\" deleted"]),
    ok("get pods -l app=web", &["No resources found"]),
    ok("delete pdb,quota,svc --all", &["deleted"]),
    ok("delete priorityclass high", &["deleted"]),
    ok("delete -f MANIFEST --ignore-not-found", &[]),
];

/// The minor version of the kubectl that is asked.
fn minor(cluster: &Cluster) -> u32 {
    let said = cluster.kubectl(&["version", "--client", "-o", "json"]);
    let version: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a minor version")
}

/// Files that steps name by words in capitals.
const FILES: &[(&str, &str, &str)] = &[
    ("MANIFEST", "walk.yaml", MANIFEST),
    ("KUSTOMIZATION", "kustomize", ""),
    ("", "kustomize/kustomization.yaml", more::KUSTOMIZATION),
    ("BOTH", "both.yaml", more::BOTH),
    ("ONE", "one.yaml", more::ONE),
    ("REQUEST", "request.yaml", more::REQUEST),
    ("REVIEW", "review.yaml", more::REVIEW),
];

fn write_files(directory: &Path) {
    fs::create_dir_all(directory.join("kustomize")).expect("a directory");
    for (_, path, text) in FILES.iter().filter(|it| !it.2.is_empty()) {
        fs::write(directory.join(path), text).expect("a file");
    }
}

fn run(cluster: &Cluster, step: &Step, node: &str) -> Output {
    let word = |word: &str| {
        if let Some((_, path, _)) = FILES.iter().find(|it| it.0 == word) {
            return cluster.directory().join(path).to_str().expect("a path in UTF-8").to_owned();
        }
        word.replace("NODE", node).replace('_', " ")
    };
    let words: Vec<String> = step.words.split(' ').map(word).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = cluster.kubectl_command(&["-n", "walk"]);
    command.args(words).env("KUBE_EDITOR", "sed -i s/replicas:.3/replicas:\\ 2/");
    command.output().expect("kubectl runs")
}

#[test]
fn every_word_of_kubectl_does_what_it_says() {
    let Some(cluster) = Cluster::start("kubectl") else { return };
    let minor = minor(&cluster);
    write_files(cluster.directory());
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    cluster.kubectl(&["create", "namespace", "walk"]);
    for step in WALK.iter().chain(more::WALK).filter(|it| it.since <= minor) {
        let output = run(&cluster, step, &node);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.success(), step.ok, "kubectl {}: {said}", step.words);
        for expected in step.says {
            assert!(
                said.contains(expected),
                "kubectl {}: {expected:?} is not in: {said}",
                step.words
            );
        }
    }
    cluster.kubectl(&["delete", "namespace", "walk", "--timeout=120s"]);
}
