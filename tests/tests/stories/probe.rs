//! A container that is no longer alive is started again.

use tests::{Cluster, until};

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: patient}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: stanchion.dev/toolbox:1
    args: [sleep, infinity]
    livenessProbe:
      exec: {command: [cat, /state/alive]}
      initialDelaySeconds: 1
      periodSeconds: 1
      failureThreshold: 2
    volumeMounts: [{name: state, mountPath: /state}]
  initContainers:
  - name: first
    image: stanchion.dev/toolbox:1
    args: [touch, /state/alive]
    volumeMounts: [{name: state, mountPath: /state}]
  volumes:
  - name: state
    emptyDir: {}
";

#[test]
fn a_container_that_fails_its_liveness_probe_is_restarted() {
    let Some(cluster) = Cluster::start("liveness") else { return };
    cluster.apply(POD);
    let pod = cluster.wait_ready("patient");
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    cluster.exec("patient", &["rm", "/state/alive"], "");
    let restarts =
        |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    cluster.wait_for("a restart", &["pod", "patient"], |pod| (restarts(pod)? >= 1).then_some(()));
    // The volume is the pod's and not the container's: with the file back, it stays alive.
    until("the file is back", || {
        let said = cluster.try_exec("patient", &["touch", "/state/alive"], "");
        if said.ok { Ok(()) } else { Err(said.errors) }
    });
    let events = until("events say why", || {
        let events = cluster.kubectl(&["get", "events", "--no-headers"]);
        let told = ["Unhealthy", "Killing"].iter().all(|it| events.contains(it));
        if told { Ok(events) } else { Err(events) }
    });
    assert!(events.contains("Liveness probe failed"), "{events}");
    cluster.wait_ready("patient");
}
