//! A node's disk runs full: images that nobody uses go, then the pod that filled it, and then all is as before.

use serde_json::Value;
use tests::{Cluster, Options, images, registry::Registry};

const PODS: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'dd if=/dev/zero of=/little bs=1M count=1; sleep 10000']
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'dd if=/dev/zero of=/much bs=1M count=300; sleep 10000']
";

#[test]
fn a_full_disk_costs_unused_images_and_the_pod_that_filled_it() {
    let flags = [
        "--eviction-hard=nodefs.available<30%,imagefs.available<30%",
        "--eviction-pressure-transition-period=15s",
        "--minimum-image-ttl-duration=1s",
    ];
    let options = Options {
        images: vec![images().busybox.clone()],
        flags: flags.map(str::to_owned).to_vec(),
        disk_mib: Some(400),
        ..Options::default()
    };
    let Some(mut cluster) = Cluster::start_with("pressure", options) else { return };
    let names = |cluster: &Cluster| cluster.stanchion_ok(&["image", "ls"]);
    let mut pulled = None;
    if let Some(registry) = Registry::start(&cluster.directory().join("registry"), false) {
        registry.push(&images().nginx, "unused", "1");
        let image = format!("{}/unused:1", registry.address);
        cluster.stanchion_ok(&["image", "pull", &image]);
        assert!(names(&cluster).contains("/unused"));
        pulled = Some(image);
        // What is there when a server begins was there before: it is old enough.
        cluster.stop();
        cluster.up();
    }
    let short = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array()?;
        conditions.iter().find(|it| it["type"] == "DiskPressure")?["status"]
            .as_str()
            .map(str::to_owned)
    };
    cluster.apply(PODS);
    cluster.wait_for("the node calls its disk short", &["node", "n1"], |node| {
        (short(node)? == "True").then_some(())
    });
    let gone = cluster.wait_for("the greedy pod is evicted", &["pod", "greedy"], |pod| {
        (pod["status"]["reason"] == "Evicted").then(|| pod.clone())
    });
    assert_eq!(gone["status"]["phase"], "Failed");
    let why = gone["status"]["message"].as_str().unwrap();
    let low = "The node was low on resource: ephemeral-storage. Threshold quantity: ";
    assert!(why.starts_with(low), "{why}");
    assert!(why.contains("Container c was using "), "{why}");
    assert!(why.ends_with("request is 0, has larger consumption of ephemeral-storage. "), "{why}");
    cluster.wait_for("the node has room again", &["node", "n1"], |node| {
        (short(node)? == "False").then_some(())
    });
    let kept = names(&cluster);
    assert!(kept.contains("busybox"), "what was imported stays: {kept}");
    assert!(pulled.is_none() || !kept.contains("/unused"), "{kept}");
    assert_eq!(cluster.json(&["get", "pod", "modest"])["status"]["phase"], "Running");
    assert!(cluster.ended().is_none(), "the same server");
    cluster.kubectl(&["delete", "pod", "greedy"]);
    cluster.apply(&PODS.replace("greedy", "later").replace("count=300", "count=1"));
    cluster.wait_ready("later");
}
