//! Static volumes in directories of the host, as kubectl's tables show them.

use tests::{Cluster, Options, images, until};

/// The words of an object's row: without its age.
fn row(cluster: &Cluster, kind: &str, name: &str) -> Vec<String> {
    let said = cluster.try_kubectl(&["get", kind, name, "--no-headers"]);
    let mut words: Vec<String> = said.out.split_whitespace().map(str::to_owned).collect();
    words.pop();
    words
}

#[track_caller]
fn wait_row(cluster: &Cluster, kind: &str, name: &str, expected: &[&str]) {
    until(&format!("{kind} {name} is shown as {expected:?}"), || {
        let seen = row(cluster, kind, name);
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

#[test]
fn one_volume_and_two_replicas_leave_the_second_waiting() {
    let options = Options { images: vec![images().nginx.clone()], ..Options::default() };
    let Some(cluster) = Cluster::start_with("one-volume", options) else { return };
    let host = cluster.directory().join("host");
    let volume = format!(
        "apiVersion: v1
kind: PersistentVolume
metadata: {{name: pv-test, labels: {{name: pv-test}}}}
spec:
  storageClassName: manual
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Recycle
  hostPath: {{path: {}, type: DirectoryOrCreate}}
",
        host.display()
    );
    cluster.apply(&volume);
    wait_row(
        &cluster,
        "pv",
        "pv-test",
        &["pv-test", "1Gi", "RWO", "Recycle", "Available", "manual", "<unset>"],
    );

    cluster.apply(include_str!("../../manifests/one-volume-two-replicas.yaml"));
    wait_row(&cluster, "pod", "web-0", &["web-0", "1/1", "Running", "0"]);
    wait_row(
        &cluster,
        "pvc",
        "www-web-0",
        &["www-web-0", "Bound", "pv-test", "1Gi", "RWO", "manual", "<unset>"],
    );
    wait_row(
        &cluster,
        "pv",
        "pv-test",
        &["pv-test", "1Gi", "RWO", "Recycle", "Bound", "default/www-web-0", "manual", "<unset>"],
    );
    wait_row(&cluster, "pod", "web-1", &["web-1", "0/1", "Pending", "0"]);
    wait_row(&cluster, "pvc", "www-web-1", &["www-web-1", "Pending", "manual", "<unset>"]);
    wait_row(&cluster, "statefulset", "web", &["web", "1/2"]);
    let why = cluster.wait_for("a reason", &["pod", "web-1"], |pod| {
        let conditions = pod["status"]["conditions"].as_array()?;
        let scheduled = conditions.iter().find(|it| it["type"] == "PodScheduled")?;
        Some(scheduled["message"].as_str()?.to_owned())
    });
    assert!(why.contains("unbound immediate PersistentVolumeClaims"), "{why}");

    // Recycled: the contents go, the volume is there for the next one.
    cluster.exec("web-0", &["tee", "/usr/share/nginx/html/index.html"], "old text");
    assert_eq!(std::fs::read_to_string(host.join("index.html")).unwrap(), "old text");
    cluster.kubectl(&["delete", "statefulset", "web"]);
    cluster.wait_gone(&["pod", "web-0"]);
    cluster.kubectl(&["delete", "pvc", "www-web-0", "www-web-1"]);
    wait_row(
        &cluster,
        "pv",
        "pv-test",
        &["pv-test", "1Gi", "RWO", "Recycle", "Available", "manual", "<unset>"],
    );
    assert_eq!(std::fs::read_dir(&host).unwrap().count(), 0);
}
