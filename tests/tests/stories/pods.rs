//! Pods that matter more than others, have users of their own, mount images, and begin again as a whole.

use serde_json::Value;
use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt};
use tests::{Cluster, Options, images, process_of};

#[test]
fn a_pod_that_matters_more_takes_the_place_of_one_that_matters_less() {
    let options = Options { images: vec![images().busybox.clone()], ..Options::default() };
    let Some(cluster) = Cluster::start_with("preemption", options) else { return };
    let node = cluster.json(&["get", "node", "n1"]);
    let cpus: u32 = node["status"]["allocatable"]["cpu"].as_str().unwrap().parse().unwrap();
    let pod = |name: &str, class: &str, more: &str| {
        format!(
            r"
apiVersion: v1
kind: Pod
metadata: {{name: {name}{more}}}
spec:
  priorityClassName: {class}
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sleep, '1000']
    resources: {{requests: {{cpu: {}m}}}}
",
            cpus * 1000 - 200
        )
    };
    cluster.apply(
        r"
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: low}
value: 1
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: patient}
value: 2000
preemptionPolicy: Never
",
    );
    // It can be looked at after its end.
    cluster.apply(&pod("humble", "low", ", finalizers: [example.com/look]"));
    cluster.wait_ready("humble");
    cluster.apply(&pod("mighty", "high", ""));
    let mighty = cluster.wait_ready("mighty");

    let humble = cluster.json(&["get", "pod", "humble"]);
    let conditions = humble["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|it| it["type"] == "DisruptionTarget").unwrap();
    assert_eq!(target["reason"], "PreemptionByScheduler");
    let said = "default-scheduler: preempting to accommodate a higher priority pod";
    assert_eq!(target["message"], said);
    assert!(humble["metadata"]["deletionTimestamp"].is_string(), "{humble:#}");
    let says = |pod: &str, reason: &str, text: &str| {
        let about = format!("involvedObject.name={pod},reason={reason}");
        let words = ["events", "--field-selector", &about];
        cluster.wait_for(&format!("{pod} has an event {reason}: {text}"), &words, |it| {
            it["items"].as_array()?.iter().any(|it| it["message"] == text).then_some(())
        });
    };
    let uid = mighty["metadata"]["uid"].as_str().unwrap();
    says("humble", "Preempted", &format!("Preempted by pod {uid} on node n1"));
    says("mighty", "FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu.");
    let nothing = r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#;
    cluster.kubectl(&["patch", "pod", "humble", "--type=json", "-p", nothing]);
    cluster.wait_gone(&["pod", "humble"]);

    cluster.apply(&pod("equal", "high", ""));
    says(
        "equal",
        "FailedScheduling",
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
    );
    cluster.apply(&pod("patient", "patient", ""));
    says(
        "patient",
        "FailedScheduling",
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
    );
    assert_eq!(cluster.json(&["get", "pod", "mighty"])["metadata"]["uid"], uid);
}

const USERS: &str = r"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {key: value}
---
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: data, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: image, image: {reference: 'busybox:latest', pullPolicy: IfNotPresent}}
  containers:
  - name: c
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'touch /data/file; sleep 1000']
    readinessProbe: {exec: {command: [test, -f, /data/file]}, periodSeconds: 1}
    volumeMounts:
    - {name: data, mountPath: /data}
    - {name: settings, mountPath: /settings}
    - {name: image, mountPath: /image}
    - {name: image, mountPath: /etc/of-image, subPath: etc}
";

const AGAIN: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: {}}]
  initContainers:
  - name: first
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo run >> /data/runs']
    volumeMounts: [{name: data, mountPath: /data}]
  containers:
  - name: cause
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'test $(wc -l < /data/runs) -ge 2 || exit 42; sleep 1000']
    restartPolicy: Never
    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
    volumeMounts: [{name: data, mountPath: /data}]
  - name: other
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sleep, '1000']
";

#[test]
fn a_pod_has_users_of_its_own_mounts_an_image_and_begins_again_as_a_whole() {
    let options = Options { images: vec![images().busybox.clone()], ..Options::default() };
    let Some(cluster) = Cluster::start_with("users", options) else { return };
    cluster.apply(AGAIN);
    let mut users = BTreeSet::new();
    let node = cluster.json(&["get", "node", "n1"]);
    let possible = node["status"]["runtimeHandlers"][0]["features"]["userNamespaces"] == true;
    for name in ["one", "two"] {
        let manifest = USERS.replace("NAME", name);
        match possible {
            true => cluster.apply(&manifest),
            false => {
                println!("skipped: this kernel has no user namespaces with idmapped layers");
                cluster.apply(&manifest.replace("hostUsers: false", "hostUsers: true"))
            }
        };
        let pod = cluster.wait_ready(name);
        assert_eq!(cluster.exec(name, &["id", "-u"], ""), "0\n");
        let look = "stat -c %u / /settings/key /data/file; cat /settings/key; echo; \
                    ls /image/bin/sh && ls /etc/of-image/passwd; touch /image/x 2>&1";
        let seen = cluster.try_exec(name, &["sh", "-c", look], "");
        let seen = seen.out.lines().collect::<Vec<_>>().join(" ");
        let said = "touch: /image/x: Read-only file system";
        assert_eq!(seen, format!("0 0 0 value /image/bin/sh /etc/of-image/passwd {said}"));
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let volumes = cluster.data_dir().join("kubelet/pods").join(uid).join("volumes");
        let file = volumes.join("kubernetes.io~empty-dir/data/file");
        assert_eq!(fs::metadata(&file).unwrap().uid(), 0, "root's on the disk");
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
        let (process, _) = process_of(id).expect("the container's process");
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find(|it| it.starts_with("Uid:")).unwrap();
        let user: u32 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        users.insert(user);
        assert!(!possible || user >= 65536 && user.is_multiple_of(65536), "{line}");
    }
    assert!(!possible || users.len() == 2, "each pod has its own: {users:?}");

    let again = cluster.wait_for("all containers run once more", &["pod", "again"], |pod| {
        let all = pod["status"]["containerStatuses"].as_array()?;
        let runs = |it: &Value| it["restartCount"] == 1 && it["state"]["running"].is_object();
        all.iter().all(runs).then(|| pod.clone())
    });
    assert_eq!(again["status"]["initContainerStatuses"][0]["restartCount"], 1, "{again:#}");
    for it in again["status"]["containerStatuses"].as_array().unwrap() {
        let last = &it["lastState"]["terminated"];
        assert_eq!(last["reason"], "RestartingAllContainers", "{again:#}");
    }
    cluster.kubectl(&["exec", "again", "-c", "other", "--", "true"]);
    let conditions = again["status"]["conditions"].as_array().unwrap();
    let restarting = conditions.iter().find(|it| it["type"] == "AllContainersRestarting").unwrap();
    assert_eq!(restarting["status"], "False");
}
