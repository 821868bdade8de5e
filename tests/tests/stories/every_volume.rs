//! One pod with every kind of volume that needs no server.

use tests::{Cluster, Options, images};

const MANIFEST: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, size: large}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {password: hidden}
---
apiVersion: v1
kind: Pod
metadata:
  name: all
  labels: {tier: test}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sleep, infinity]
    env:
    - name: COLOR
      valueFrom: {configMapKeyRef: {name: settings, key: color}}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: settings, mountPath: /one/color, subPath: color}
    - {name: key, mountPath: /key, readOnly: true}
    - {name: self, mountPath: /self}
    - {name: both, mountPath: /both}
    - {name: disk, mountPath: /disk}
    - {name: memory, mountPath: /memory}
    - {name: host, mountPath: /host}
  volumes:
  - name: settings
    configMap: {name: settings}
  - name: key
    secret: {secretName: key, defaultMode: 0400}
  - name: self
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
  - name: both
    projected:
      sources:
      - configMap: {name: settings, items: [{key: size, path: size}]}
      - secret: {name: key}
  - name: disk
    emptyDir: {}
  - name: memory
    emptyDir: {medium: Memory, sizeLimit: 4Mi}
  - name: host
    hostPath: {path: HOST, type: DirectoryOrCreate}
";

#[test]
fn every_kind_of_volume_is_there_as_it_says() {
    let options = Options { images: vec![images().busybox.clone()], ..Options::default() };
    let Some(cluster) = Cluster::start_with("volumes", options) else { return };
    let host = cluster.directory().join("host");
    cluster.apply(&MANIFEST.replace("HOST", &host.display().to_string()));
    cluster.wait_ready("all");
    let sh = |command: &str| cluster.exec("all", &["sh", "-c", command], "");

    assert_eq!(sh("cat /settings/color /one/color; echo $COLOR"), "blueblueblue\n");
    assert_eq!(sh("cat /key/password /both/size /both/password"), "hiddenlargehidden");
    assert_eq!(sh("cat /self/labels"), "tier=\"test\"");
    assert_eq!(sh("stat -c %g /disk /memory"), "2000\n2000\n");
    assert_eq!(sh("touch /key/new 2>/dev/null || echo read-only"), "read-only\n");
    assert_eq!(
        sh("dd if=/dev/zero of=/memory/big bs=1M count=8 2>&1 | grep -c 'No space left'"),
        "1\n"
    );
    sh("echo from the pod > /host/text");
    assert_eq!(std::fs::read_to_string(host.join("text")).unwrap(), "from the pod\n");

    // What is changed arrives in the running container; a subPath stays as it was.
    cluster.kubectl(&["patch", "configmap", "settings", "-p", r#"{"data":{"color":"green"}}"#]);
    tests::until("the new color", || {
        let color = sh("cat /settings/color");
        if color == "green" { Ok(()) } else { Err(color) }
    });
    assert_eq!(sh("cat /one/color"), "blue");

    cluster.kubectl(&["delete", "pod", "all"]);
    assert!(host.join("text").exists(), "the host's directory is the host's");
}
