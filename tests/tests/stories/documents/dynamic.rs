//! A provisioner that runs in the cluster as a Deployment with its own account and roles, on another machine than the
//! server's; a class of its name; claims; and that class as the default.

use super::Site;
use std::path::Path;
use tests::until;

const ROLES: &str = include_str!("../../../manifests/nfs-client-provisioner-rbac.yaml");
const CLASS_CLAIM_POD: &str = include_str!("../../../manifests/nfs-client-class-claim-pod.yaml");

/// As the provisioner's own has it; the program is this project's, and lies on the machine.
fn deployment(site: &Site) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_nfs-provisioner"));
    format!(
        "kind: Deployment
apiVersion: apps/v1
metadata:
  name: nfs-client-provisioner
spec:
  replicas: 1
  strategy:
    type: Recreate
  selector:
    matchLabels:
      app: nfs-client-provisioner
  template:
    metadata:
      labels:
        app: nfs-client-provisioner
    spec:
      serviceAccountName: nfs-client-provisioner
      terminationGracePeriodSeconds: 1
      nodeSelector: {{kubernetes.io/hostname: n2}}
      containers:
        - name: nfs-client-provisioner
          image: busybox
          command: [/program/nfs-provisioner]
          volumeMounts:
            - {{name: nfs-client-root, mountPath: /persistentvolumes}}
            - {{name: program, mountPath: /program}}
            - {{name: lib, mountPath: /lib}}
            - {{name: lib64, mountPath: /lib64}}
          env:
            - {{name: PROVISIONER_NAME, value: westos.org/nfs}}
            - {{name: NFS_SERVER, value: {server}}}
            - {{name: NFS_PATH, value: {share}}}
      volumes:
        - name: nfs-client-root
          nfs: {{server: {server}, path: {share}}}
        - {{name: program, hostPath: {{path: {program}}}}}
        - {{name: lib, hostPath: {{path: /lib}}}}
        - {{name: lib64, hostPath: {{path: /lib64}}}}
",
        server = site.server.address(),
        share = site.share().display(),
        program = program.parent().expect("a directory").display(),
    )
}

pub(super) fn a_provisioner_in_the_cluster_serves_its_class(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.apply(ROLES);
    kubectl.apply(&deployment(site));
    kubectl.kubectl(&["rollout", "status", "deployment/nfs-client-provisioner", "--timeout=120s"]);
    until("the provisioner leads", || {
        let said = kubectl.try_kubectl(&["logs", "deployment/nfs-client-provisioner"]);
        if said.out == "westos.org/nfs leads\n" { Ok(()) } else { Err(said.out + &said.errors) }
    });
    let before = site.directories();

    kubectl.apply(CLASS_CLAIM_POD);
    let bound = site.wait_bound("nfs-pv1");
    let asked = &bound["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"];
    assert_eq!(asked, "westos.org/nfs");
    let volume = bound["spec"]["volumeName"].as_str().unwrap().to_owned();
    let uid = bound["metadata"]["uid"].as_str().unwrap();
    assert_eq!(volume, format!("pvc-{uid}"));
    kubectl.wait_for("the pod is done", &["pod", "test-pod"], |it| {
        (it["status"]["phase"] == "Succeeded").then_some(())
    });
    let directory = format!("default-nfs-pv1-{volume}");
    assert!(site.share().join(&directory).join("SUCCESS").exists());
    kubectl.kubectl(&["delete", "pod/test-pod", "pvc/nfs-pv1"]);
    kubectl.wait_gone(&["pv", &volume]);
    assert_eq!(site.directories(), before, "archiveOnDelete is false");

    // What a class is to do cannot be changed, so it is made again.
    let archives =
        CLASS_CLAIM_POD.replace("archiveOnDelete: \"false\"", "archiveOnDelete: \"true\"");
    let (class, _) = archives.split_once("---").expect("a class first of all");
    let refused = kubectl.try_apply(class);
    let why = "parameters: Invalid value: {\"archiveOnDelete\":\"true\"}: field is immutable";
    assert!(refused.errors.contains(why), "{refused:?}");
    kubectl.kubectl(&["delete", "storageclass", "managed-nfs-storage"]);
    kubectl.apply(&archives);
    let volume = site.wait_bound("nfs-pv1")["spec"]["volumeName"].as_str().unwrap().to_owned();
    kubectl.wait_for("the pod is done", &["pod", "test-pod"], |it| {
        (it["status"]["phase"] == "Succeeded").then_some(())
    });
    kubectl.kubectl(&["delete", "pod/test-pod", "pvc/nfs-pv1"]);
    kubectl.wait_gone(&["pv", &volume]);
    let archived = format!("archived-default-nfs-pv1-{volume}");
    assert!(site.share().join(&archived).join("SUCCESS").exists());
    assert_eq!(site.directories(), [vec![archived], before].concat());

    // Its lock is nobody's service: no loop takes it for endpoints.
    let lock = kubectl.json(&["get", "endpoints", "westos.org-nfs"]);
    let holder = &lock["metadata"]["annotations"]["control-plane.alpha.kubernetes.io/leader"];
    assert!(holder.as_str().unwrap().contains("holderIdentity"), "{lock}");
    let slices = kubectl.kubectl(&["get", "endpointslices", "-o", "name"]);
    assert!(!slices.contains("westos.org-nfs"), "{slices}");
}

/// Without a class of its own.
fn claim(name: &str) -> String {
    format!(
        "kind: PersistentVolumeClaim
apiVersion: v1
metadata:
  name: {name}
spec:
  accessModes:
    - ReadWriteMany
  resources:
    requests:
      storage: 100Mi
"
    )
}

/// As the documents' clusters are: none is the default until somebody says so.
pub(super) fn a_class_becomes_the_default(site: &Site) {
    let kubectl = &site.kubectl;
    let default = |class: &str, is: bool| {
        let patch = format!(
            r#"{{"metadata": {{"annotations":{{"storageclass.kubernetes.io/is-default-class":"{is}"}}}}}}"#
        );
        let said = kubectl.kubectl(&["patch", "storageclass", class, "-p", &patch]);
        assert_eq!(said, format!("storageclass.storage.k8s.io/{class} patched\n"));
        kubectl.kubectl(&["get", "sc"])
    };
    assert!(!default("local", false).contains("(default)"));
    kubectl.apply(&claim("before"));
    until("an event says what the claim waits for", || {
        let said = kubectl.try_kubectl(&["describe", "pvc", "before"]);
        let why = "no persistent volumes available for this claim and no storage class is set";
        if said.out.contains(why) { Ok(()) } else { Err(said.out + &said.errors) }
    });
    let waiting = kubectl.json(&["get", "pvc", "before"]);
    assert_eq!(waiting["status"]["phase"], "Pending");
    assert!(waiting["spec"]["storageClassName"].is_null());

    let classes = default("managed-nfs-storage", true);
    let shown = "managed-nfs-storage (default)   westos.org/nfs";
    assert!(classes.lines().any(|it| it.starts_with(shown)), "{classes}");
    kubectl.apply(&claim("after"));
    for name in ["before", "after"] {
        let bound = site.wait_bound(name);
        assert_eq!(bound["spec"]["storageClassName"], "managed-nfs-storage");
        let directory = format!("default-{name}-{}", bound["spec"]["volumeName"].as_str().unwrap());
        assert!(site.directories().contains(&directory), "{directory}");
    }
    kubectl.kubectl(&["delete", "pvc", "before", "after"]);
    until("the volumes are gone", || {
        let said = kubectl.try_kubectl(&["get", "pv", "-o", "name"]);
        if said.ok && said.out.is_empty() { Ok(()) } else { Err(said.out + &said.errors) }
    });
}
