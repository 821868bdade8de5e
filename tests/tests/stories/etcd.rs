//! Objects in an etcd: a cluster moves there and lives on, and two servers share one.

use crate::manifest::{claim, pod_with};
use std::{fs, path::Path};
use tests::{Cluster, Etcd, Options, until};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {containers: [{name: c, image: stanchion.dev/toolbox:1}]}
";

const ENCRYPTION: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm: {keys: [{name: key1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=}]}
";

fn place(name: &str) -> std::path::PathBuf {
    let place = std::env::temp_dir().join(format!("stanchion-etcd-{name}-{}", std::process::id()));
    let _none = fs::remove_dir_all(&place);
    place
}

/// Gone with the value.
struct Place(std::path::PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn versions(cluster: &Cluster) -> Vec<(String, String)> {
    let list = cluster.json(&["get", "configmaps,namespaces,serviceaccounts,clusterroles", "-A"]);
    let text = |it: &serde_json::Value| it.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let metadata = items.iter().map(|it| &it["metadata"]);
    metadata.map(|it| (text(&it["uid"]), text(&it["resourceVersion"]))).collect()
}

#[test]
fn a_cluster_moves_to_an_etcd_and_lives_on() {
    let place = Place(place("moves"));
    let Some(mut etcd) = Etcd::start(&place.0) else { return };
    let keys = place.0.join("encryption.yaml");
    fs::write(&keys, ENCRYPTION).expect("write the keys");
    let flags = vec![format!("--encryption-provider-config={}", keys.display())];
    let options = Options { flags, ..Options::default() };
    let Some(mut cluster) = Cluster::start_with("moves", options) else { return };
    cluster.kubectl(&["create", "secret", "generic", "early", "--from-literal=word=hidden"]);
    cluster.apply(&(claim("data", "64Mi") + &pod_with("user", "data")));
    cluster.wait_ready("user");
    cluster.exec("user", &["tee", "/data/text"], "kept");
    cluster.stop();

    let said = cluster.stanchion_ok(&["store", "copy", "--to", &etcd.url()]);
    assert!(said.starts_with("copied ") && said.contains("from now on start with"), "{said}");
    let again = cluster.stanchion(&["store", "copy", "--to", &etcd.url()]);
    assert!(!again.ok && again.errors.contains("onto an empty etcd"), "{again:?}");
    cluster.up();
    let before = versions(&cluster);
    cluster.stop();
    cluster.flag(format!("--store={}", etcd.url()));
    cluster.up();
    let after = versions(&cluster);
    let kept = before.iter().filter(|it| after.contains(it)).count();
    // What was of revision 1 is at 2.
    assert!(before.len() > 50 && kept + 1 >= before.len(), "{kept} of {}", before.len());
    assert_eq!(cluster.exec("user", &["cat", "/data/text"], ""), "kept");
    // Encrypted in the data dir, on the way, and there.
    cluster.kubectl(&["create", "secret", "generic", "late", "--from-literal=word=hidden"]);
    for name in ["early", "late"] {
        let secret = cluster.json(&["get", "secret", name]);
        assert_eq!(secret["data"]["word"], "aGlkZGVu", "{name}");
        if let Some(stored) = etcd.value(&format!("/registry/secrets/default/{name}")) {
            assert!(stored.starts_with(b"k8s:enc:aesgcm:v1:key1:"), "{name}: {stored:?}");
        }
    }

    etcd.kill();
    let refused = cluster.try_kubectl(&["create", "configmap", "late", "--request-timeout=30s"]);
    assert!(!refused.ok && refused.errors.contains("the ledger does not answer"), "{refused:?}");
    let old = cluster.try_kubectl(&["get", "--raw", "/api/v1/pods?resourceVersion=0"]);
    assert!(old.ok && old.out.contains("user"), "{old:?}");
    etcd.start_again();
    until("writes go on", || {
        let said = cluster.try_kubectl(&["create", "configmap", "late"]);
        let there = said.ok || said.errors.contains("already exists");
        there.then_some(()).ok_or(said.errors)
    });
    cluster.kubectl(&["delete", "pod", "user", "--wait=false"]);
    cluster.wait_gone(&["pod", "user"]);
    cluster.apply(&pod_with("next", "data"));
    cluster.wait_ready("next");
    assert_eq!(cluster.exec("next", &["cat", "/data/text"], ""), "kept");

    // The way back, with the keys: a backup of the etcd in a new data dir.
    let file = place.0.join("backup");
    let file = file.to_str().expect("a path in UTF-8");
    let said = cluster.stanchion_ok(&["backup", file]);
    assert!(said.starts_with("backed up "), "{said}");
    let said = cluster.stanchion(&["restore", file]);
    assert!(!said.ok && said.errors.contains("its objects are in etcd://"), "{said:?}");
    let said = cluster.stanchion(&["doctor"]);
    assert!(said.out.contains("is etcd 3."), "{said:?}");

    // What runs here ends here, with or without those who know what it is.
    cluster.stop();
    etcd.kill();
    let said = cluster.stanchion_ok(&["down"]);
    assert!(said.contains("stopped 1 pods"), "{said}");
}

/// Where the servers are, as pods find them.
fn doors(cluster: &Cluster) -> Vec<String> {
    let endpoints = cluster.look(&["get", "endpoints", "kubernetes"]);
    let subsets = endpoints["subsets"].as_array().cloned().unwrap_or_default();
    let addresses = subsets.iter().flat_map(|it| it["addresses"].as_array().cloned());
    let mut all: Vec<String> =
        addresses.flatten().filter_map(|it| it["ip"].as_str().map(str::to_owned)).collect();
    all.sort();
    all
}

/// The one that leads, as this server sees it.
fn holder(cluster: &Cluster) -> String {
    let lease = cluster.look(&["get", "lease", "stanchion", "-n", "kube-system"]);
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

fn pods(cluster: &Cluster) -> usize {
    cluster.look(&["get", "pods", "-l", "app=app"])["items"].as_array().map_or(0, Vec::len)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("the keys").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copy a key");
    }
}

/// Addresses of documents: nobody goes there.
const FIRST: &str = "192.0.2.1";
const SECOND: &str = "192.0.2.2";

#[test]
fn two_servers_share_an_etcd_and_one_of_them_leads() {
    let place = Place(place("share"));
    let Some(etcd) = Etcd::start(&place.0) else { return };
    let options = |keys, address: &str| Options {
        flags: vec![
            "--no-node".to_owned(),
            format!("--store={}", etcd.url()),
            format!("--advertise-address={address}"),
        ],
        keys,
        ..Options::default()
    };
    let Some(mut one) = Cluster::start_with("first", options(None, FIRST)) else { return };
    let first = until("the first one leads", || {
        Some(holder(&one)).filter(|it| it.starts_with("n1_")).ok_or_else(String::new)
    });
    let stranger = place.0.join("stranger");
    let said =
        one.stanchion_at(&stranger, &["server", "--listen=127.0.0.1:0", "--store", &etcd.url()]);
    assert!(!said.ok && said.errors.contains("copy all of the directory pki"), "{said:?}");
    copy(&one.data_dir().join("pki"), &place.0.join("keys"));
    let keys = Some(place.0.join("keys"));
    let Some(mut two) = Cluster::start_with("second", options(keys, SECOND)) else { return };

    for cluster in [&one, &two] {
        assert_eq!(doors(cluster), [FIRST, SECOND], "both from the moment in which they are ready");
    }

    // Written here, seen there, by whoever asks next; pods are made by the one that leads.
    for number in 0..5 {
        let name = format!("m{number}");
        one.kubectl(&["create", "configmap", &name]);
        two.kubectl(&["patch", "configmap", &name, "-p", r#"{"data":{"k":"v"}}"#]);
        assert_eq!(one.json(&["get", "configmap", &name])["data"]["k"], "v");
    }
    two.apply(DEPLOYMENT);
    until("two pods", || (pods(&one) == 2).then_some(()).ok_or_else(String::new));
    assert_eq!(holder(&two), first, "one of them");

    one.kill();
    two.kubectl(&["scale", "deployment", "app", "--replicas=4"]);
    until("the second one takes over", || (pods(&two) == 4).then_some(()).ok_or_else(String::new));
    assert_ne!(holder(&two), first);
    until("the dead one is not found any more", || {
        Some(doors(&two)).filter(|it| *it == [SECOND]).ok_or_else(String::new)
    });

    // Whoever is stopped gives way at once.
    one.up();
    let second = holder(&two);
    assert_eq!(doors(&two), [FIRST, SECOND]);
    two.stop();
    assert_eq!(doors(&one), [FIRST], "before it ended");
    until("the first one is back", || {
        let now = holder(&one);
        (now != second && !now.is_empty()).then_some(()).ok_or(now)
    });
    one.kubectl(&["scale", "deployment", "app", "--replicas=1"]);
    until("one pod", || (pods(&one) == 1).then_some(()).ok_or_else(String::new));
}
