//! What was backed up comes back; what came later is gone from the ledger and kept on disk; nobody sees a revision
//! go back.

use crate::manifest::{claim, pod_with};
use std::{fs, os::unix::fs::PermissionsExt};
use tests::{Cluster, leftovers, process_of, until};

#[test]
fn a_backup_is_taken_online_and_restored_whole() {
    let Some(mut cluster) = Cluster::start("backup") else { return };
    cluster.apply(&(claim("early", "64Mi") + &pod_with("first", "early")));
    cluster.wait_ready("first");
    cluster.exec("first", &["tee", "/data/text"], "early data");
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=1"]);

    // While the server runs.
    let file = cluster.directory().join("backup");
    let name = file.to_str().unwrap();
    let said = cluster.stanchion_ok(&["backup", name]);
    assert!(said.starts_with("backed up "), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // What comes later is not in it.
    cluster.kubectl(&["patch", "configmap", "kept", "-p", r#"{"data":{"a":"2"}}"#]);
    cluster.kubectl(&["create", "configmap", "later"]);
    cluster.apply(&(claim("late", "64Mi") + &pod_with("second", "late")));
    let second = cluster.wait_ready("second");
    cluster.exec("second", &["tee", "/data/text"], "late data");
    let late =
        cluster.json(&["get", "pvc", "late"])["metadata"]["uid"].as_str().unwrap().to_owned();
    let container = |pod: &serde_json::Value| {
        pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().to_owned()
    };
    let second = container(&second);
    let first = container(&cluster.json(&["get", "pod", "first"]));
    let process = process_of(&first).expect("the first pod runs");
    let before = revision(&cluster.json(&["get", "configmap", "kept"])["metadata"]);

    // A server holds the ledger: nothing is restored under it.
    let refused = cluster.stanchion(&["restore", name]);
    assert!(!refused.ok && refused.errors.contains("is in use by process"), "{refused:?}");
    cluster.stop();

    // Half a backup is none.
    let half = cluster.directory().join("half");
    let bytes = fs::read(&file).unwrap();
    fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let refused = cluster.stanchion(&["restore", half.to_str().unwrap()]);
    assert!(!refused.ok && refused.errors.contains("it was cut short"), "{refused:?}");
    cluster.up();
    assert_eq!(cluster.json(&["get", "configmap", "kept"])["data"]["a"], "2", "nothing changed");
    cluster.stop();

    // A stopped data dir is backed up too.
    let stopped = cluster.directory().join("stopped");
    cluster.stanchion_ok(&["backup", stopped.to_str().unwrap()]);

    let said = cluster.stanchion_ok(&["restore", name]);
    println!("backup: {said}");
    let volume = cluster.data_dir().join("volumes").join(format!("pvc-{late}")).join("disk.img");
    let named = format!("no object names: {} (made for default/late)", volume.display());
    assert!(said.contains(&named), "{said}");

    cluster.up();
    let kept = cluster.json(&["get", "configmap", "kept"]);
    assert_eq!(kept["data"]["a"], "1");
    assert!(revision(&kept["metadata"]) > before + 1_000_000_000, "{kept:#}");
    assert!(cluster.look(&["get", "configmap", "later"]).is_null());
    assert!(cluster.look(&["get", "pvc", "late"]).is_null());

    // Who watched before is told to list anew.
    let raw = format!("/api/v1/configmaps?watch=1&resourceVersion={before}&timeoutSeconds=5");
    let told = cluster.try_kubectl(&["get", "--raw", &raw]);
    assert!((told.out + &told.errors).contains("too old resource version"), "410");

    // The pod that is known runs on; the other one is stopped, and its volume stays.
    assert_eq!(process_of(&first), Some(process));
    assert_eq!(cluster.exec("first", &["cat", "/data/text"], ""), "early data");
    until("the unknown pod is stopped", || match process_of(&second) {
        None => Ok(()),
        Some(process) => Err(format!("{process:?}")),
    });
    assert!(volume.exists());
    cluster.stop();
    let said = cluster.down();
    assert!(said.ok, "{said:?}");
    assert_eq!(leftovers(cluster.directory()), Vec::<String>::new());
    assert!(volume.exists());
}

fn revision(metadata: &serde_json::Value) -> u64 {
    metadata["resourceVersion"].as_str().and_then(|it| it.parse().ok()).expect("a revision")
}
