//! Volumes on an NFS server: static, of the built-in class, and on a server that dies. Somebody else's provisioner is
//! among the sessions of `documents`.

use serde_json::Value;
use std::fs;
use tests::{Hosts, Kubectl, NfsServer, Running, images, is_ready, until};

/// A storage host and a node.
struct Site {
    // Ends before its host does.
    _up: Running,
    server: NfsServer,
    kubectl: Kubectl,
    hosts: Hosts,
}

impl Site {
    fn start(story: &str) -> Option<Site> {
        let hosts = Hosts::start(story, &["storage", "n1"])?;
        let server = NfsServer::start(hosts.host("storage"))?;
        let host = hosts.host("n1");
        let archive = images().busybox.to_str().expect("a path in UTF-8");
        let said = host.stanchion(&["image", "import", archive]);
        assert!(said.ok, "{}", said.errors);
        let (data, listen) = (host.data_dir(), format!("--listen={}:6443", host.address()));
        let data_dir = data.to_str().expect("a path in UTF-8");
        let flags = ["up", &listen, "--kubelet-port=0", "--data-dir", data_dir];
        let mut up = host.serve("up", &flags);
        up.line("the ready line", |it| it.starts_with("ready in "));
        let kubectl = host.kubectl(&data.join("admin.kubeconfig"));
        Some(Site { _up: up, server, kubectl, hosts })
    }

    fn share(&self) -> String {
        self.server.share().display().to_string()
    }

    /// The directories of the share that are not the provisioner's own.
    fn directories(&self) -> Vec<String> {
        let all = fs::read_dir(self.server.share()).expect("the share").flatten();
        let names = all.map(|it| it.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|it| it != ".stanchion").collect();
        names.sort();
        names
    }

    fn wait_bound(&self, claim: &str) -> Value {
        self.kubectl.wait_for("the claim is Bound", &["pvc", claim], |it| {
            (it["status"]["phase"] == "Bound").then(|| it.clone())
        })
    }

    fn wait_phase(&self, pod: &str, phase: &str) {
        self.kubectl.wait_for(&format!("{pod} is {phase}"), &["pod", pod], |it| {
            (it["status"]["phase"] == phase).then_some(())
        });
    }

    fn wait_event(&self, words: &str) {
        until(&format!("an event says {words:?}"), || {
            let said = self.kubectl.try_kubectl(&["get", "events"]);
            if said.out.contains(words) { Ok(()) } else { Err(said.out) }
        });
    }
}

fn sleeper(name: &str, volume: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sleep, '100000']
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
  - {{name: data, {volume}}}
---
"
    )
}

#[test]
fn pods_of_a_dead_nfs_server_go_and_all_heals_when_it_returns() {
    let Some(site) = Site::start("nfs-dead") else { return };
    let (server, share) = (site.server.address(), site.share());
    fs::write(site.server.share().join("greeting"), "hello").unwrap();
    let volume = |more: &str| format!("nfs: {{server: {server}, path: {share}{more}}}");
    let persistent = format!(
        "apiVersion: v1
kind: PersistentVolume
metadata: {{name: static}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteMany]
  storageClassName: manual
  persistentVolumeReclaimPolicy: Recycle
  mountOptions: [hard, nfsvers=4.1]
  {}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: static}}
spec: {{storageClassName: manual, accessModes: [ReadWriteMany], resources: {{requests: {{storage: 1Gi}}}}}}
---
",
        volume("/static")
    );
    fs::create_dir(site.server.share().join("static")).unwrap();
    let claim = "persistentVolumeClaim: {claimName: static}";
    let kubectl = &site.kubectl;
    kubectl.apply(&persistent);
    site.wait_bound("static");
    let read_only = volume("").replace('}', ", readOnly: true}");
    for (name, volume) in [("a", claim), ("b", claim), ("c", &*read_only)] {
        kubectl.apply(&sleeper(name, volume));
    }
    for pod in ["a", "b", "c"] {
        kubectl.wait_ready(pod);
    }
    // What one writes, the other and the server see.
    kubectl.exec("a", &["sh", "-c", "echo from a > /data/file && ln /data/file /data/link"], "");
    assert_eq!(kubectl.exec("b", &["cat", "/data/link"], ""), "from a\n");
    let file = site.server.share().join("static/file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "from a\n");
    assert_eq!(kubectl.exec("c", &["cat", "/data/greeting"], ""), "hello");
    // Each pod has a mount of its own, as if on a node of its own: who opens a file appends behind what the other wrote.
    for (pod, word) in [("a", "one"), ("b", "two"), ("a", "three")] {
        kubectl.exec(pod, &["sh", "-c", &format!("echo {word} >> /data/log")], "");
    }
    assert_eq!(kubectl.exec("b", &["cat", "/data/log"], ""), "one\ntwo\nthree\n");
    // Beyond what 32 bits can tell, and cut there.
    let far = "printf x | dd of=/data/far bs=1 seek=5368709120 2> /dev/null && dd if=/data/far bs=1 skip=5368709120 2> /dev/null && stat -c %s /data/far
        dd if=/dev/null of=/data/far bs=1 seek=4294967297 2> /dev/null && stat -c %s /data/far && rm /data/far";
    let far = kubectl.exec("a", &["sh", "-c", far], "");
    assert_eq!(far, "x5368709121\n4294967297\n");
    // What takes the place of an open file leaves it to who has it open.
    let replaced = "echo old > /data/kept && exec 3< /data/kept && echo new > /data/next
        mv /data/next /data/kept && cat <&3 && cat /data/kept && exec 3<&- && rm /data/kept && ls -A /data";
    let replaced = kubectl.exec("a", &["sh", "-c", replaced], "");
    assert_eq!(replaced, "old\nnew\nfile\nlink\nlog\n");
    let refused = kubectl.try_exec("c", &["touch", "/data/x"], "");
    assert!(refused.errors.contains("Read-only file system"), "{refused:?}");

    site.hosts.cut("storage");
    for pod in ["a", "b", "c"] {
        kubectl.kubectl(&["delete", "pod", pod, "--wait=false"]);
    }
    kubectl.apply(&sleeper("other", "emptyDir: {}"));
    kubectl.wait_ready("other");
    for pod in ["a", "b", "c"] {
        kubectl.wait_gone(&["pod", pod]);
    }
    assert!(is_ready(&kubectl.json(&["get", "node", "n1"])), "the node is Ready");

    site.hosts.heal("storage");
    kubectl.apply(&sleeper("a", claim));
    kubectl.wait_ready("a");
    assert_eq!(kubectl.exec("a", &["cat", "/data/file"], ""), "from a\n");

    // Recycled: empty, and free for the next claim.
    fs::write(site.server.share().join("static/.hidden"), "").unwrap();
    kubectl.kubectl(&["delete", "pod", "a"]);
    kubectl.kubectl(&["delete", "pvc", "static"]);
    kubectl.wait_for("the volume is Available again", &["pv", "static"], |it| {
        (it["status"]["phase"] == "Available").then_some(())
    });
    site.wait_event("Volume recycled");
    assert_eq!(fs::read_dir(site.server.share().join("static")).unwrap().count(), 0);
}

#[test]
fn a_class_makes_directories_of_a_share() {
    let Some(site) = Site::start("nfs-class") else { return };
    let class = |name: &str, more: &str| {
        format!(
            "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {name}}}
provisioner: nfs.stanchion.dev
parameters: {{server: '{}', share: {}, {more}}}
---
",
            site.server.address(),
            site.share()
        )
    };
    let claim = |name: &str, class: &str| {
        format!(
            "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec: {{storageClassName: {class}, accessModes: [ReadWriteMany], resources: {{requests: {{storage: 100Mi}}}}}}
---
"
        )
    };
    let kubectl = &site.kubectl;
    // As the documents have it, with our name for the provisioner.
    let documents = include_str!("../../manifests/nfs-client-class-claim-pod.yaml");
    let (_, rest) = documents.split_once("---").unwrap();
    let ours = class("managed-nfs-storage", "archiveOnDelete: 'true'");
    let rest = rest.replace("image: busybox", "image: busybox\n    imagePullPolicy: IfNotPresent");
    kubectl.apply(&(ours + rest.trim_start()));
    let bound = site.wait_bound("nfs-pv1");
    let volume = bound["spec"]["volumeName"].as_str().unwrap().to_owned();
    let directory = format!("default-nfs-pv1-{volume}");
    site.wait_phase("test-pod", "Succeeded");
    assert_eq!(site.directories(), [directory.as_str()]);
    assert!(site.server.share().join(&directory).join("SUCCESS").exists());
    let made = kubectl.json(&["get", "pv", &volume]);
    let by = &made["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"];
    assert_eq!(by, "nfs.stanchion.dev");
    assert_eq!(made["spec"]["nfs"]["path"], format!("{}/{directory}", site.share()));

    kubectl.kubectl(&["delete", "pod", "test-pod"]);
    kubectl.kubectl(&["delete", "pvc", "nfs-pv1"]);
    kubectl.wait_gone(&["pv", &volume]);
    assert_eq!(site.directories(), [format!("archived-{directory}")]);

    let pattern =
        "pathPattern: '${.PVC.namespace}/${.PVC.name}', onDelete: delete, mode: '0750', uid: '99'";
    kubectl.apply(&(class("by-name", pattern) + &claim("one", "by-name")));
    let volume = site.wait_bound("one")["spec"]["volumeName"].as_str().unwrap().to_owned();
    let place = site.server.share().join("default/one");
    let found = fs::metadata(&place).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o750, 99));
    kubectl.kubectl(&["delete", "pvc", "one"]);
    kubectl.wait_gone(&["pv", &volume]);
    assert!(!place.exists());

    // Nobody gets what is there already, and nothing that is not understood is passed over.
    fs::create_dir_all(site.server.share().join("default/two")).unwrap();
    kubectl.apply(&claim("two", "by-name"));
    site.wait_event("directory default/two is there already");
    kubectl.apply(&(class("typo", "archiveOnDelet: 'false'") + &claim("three", "typo")));
    site.wait_event("unknown parameter \"archiveOnDelet\"");
    assert_eq!(kubectl.json(&["get", "pvc", "three"])["status"]["phase"], "Pending");
}
