//! Manifests with fields that do not exist are refused by name, and change nothing.

use tests::{Cluster, Options};

/// A manifest, and what is said of it.
const REFUSED: [(&str, &[&str]); 4] = [
    (
        "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: managed}
provisioner: example.org/nfs
archiveOnDelete: \"false\"
",
        &["unknown field \"archiveOnDelete\""],
    ),
    (
        "apiVersion: v1
kind: Pod
metadata: {name: hunter}
spec:
  containers:
  - name: hunter
    image: hunter
    volumeMounts: [{name: coupons, mountPath: /coupons}]
  volumes:
  - name: coupons
    host-path: {path: /etc/coupons}
",
        &["unknown field \"spec.volumes[0].host-path\""],
    ),
    (
        "apiVersion: v1
kind: Pod
metadata: {name: misplaced}
spec:
  containers:
  - name: main
    image: main
    volumeMounts: [{name: share, mountPath: /azure}]
  volumes:
  - name: share
    azureFile: {secretName: key}
    shareName: share
",
        &["unknown field \"spec.volumes[0].shareName\""],
    ),
    (
        "apiVersion: v1
kind: PersistentVolume
metadata: {name: block}
spec:
  capacity: {storage: 10Gi}
  rbd:
    monitors: ['10.16.154.78:6789']
    pool: kube
    image: foo
    imageformat: \"2\"
    imagefeatures: layering
",
        &["unknown field \"spec.rbd.imagefeatures\"", "unknown field \"spec.rbd.imageformat\""],
    ),
];

#[test]
fn unknown_fields_are_refused_by_name_and_change_nothing() {
    let options = Options { flags: vec!["--no-node".to_owned()], ..Options::default() };
    let Some(cluster) = Cluster::start_with("refusal", options) else { return };
    let everything = || cluster.kubectl(&["get", "pods,pv,storageclasses", "-A", "-o", "name"]);
    let before = everything();
    for (manifest, expected) in REFUSED {
        let said = cluster.try_apply(manifest);
        assert!(!said.ok, "{}\n{manifest}", said.out);
        for text in expected {
            // kubectl of old finds them by itself, and names the field without its path.
            let bare = text.rsplit_once('.').map(|(_, it)| format!("unknown field \"{it}"));
            let is_told = said.errors.contains(text)
                || bare.is_some_and(|it| text.starts_with("unknown") && said.errors.contains(&it));
            assert!(is_told, "{text}: {}", said.errors);
        }
    }
    // With the unknown ones gone, what is missing is named.
    let misplaced = REFUSED[2].0.replace("    shareName: share\n", "");
    let said = cluster.try_apply(&misplaced);
    assert!(
        said.errors.contains("spec.volumes[0].azureFile.shareName: Required value")
            || said.errors.contains("missing required field \"shareName\""),
        "{}",
        said.errors
    );
    let block = REFUSED[3].0.replace("    imageformat: \"2\"\n    imagefeatures: layering\n", "");
    let said = cluster.try_apply(&block);
    assert!(said.errors.contains("spec.accessModes: Required value"), "{}", said.errors);
    assert_eq!(everything(), before);
}
