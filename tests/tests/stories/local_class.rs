//! Volumes of the built-in class: of exactly their size, of their claim alone, and gone with it.

use crate::manifest::{claim, pod_with};
use serde_json::Value;
use std::{fs, path::PathBuf};
use tests::{Cluster, until};

/// Every image file of a volume of this cluster.
fn image_files(cluster: &Cluster) -> Vec<PathBuf> {
    let mut folders = vec![cluster.data_dir().join("volumes")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if fs::metadata(&path).is_ok_and(|it| it.len() >= 1 << 20) => {
                    files.push(path)
                }
                false => {}
            }
        }
    }
    files
}

#[track_caller]
fn bound_volume(cluster: &Cluster, claim: &str) -> Value {
    let name = cluster.wait_for(&format!("claim {claim} is Bound"), &["pvc", claim], |it| {
        (it["status"]["phase"] == "Bound")
            .then(|| it["spec"]["volumeName"].as_str().unwrap().to_owned())
    });
    cluster.json(&["get", "pv", &name])
}

/// `64Mi`, `1Gi` or a plain number of bytes.
fn bytes(quantity: &Value) -> u64 {
    let text = quantity.as_str().unwrap();
    let number = text.trim_end_matches(|it: char| it.is_alphabetic());
    let unit = match &text[number.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => panic!("unit {other}"),
    };
    number.parse::<u64>().unwrap() * unit
}

#[test]
fn a_local_volume_waits_for_its_pod_and_ends_at_its_size() {
    let Some(cluster) = Cluster::start("local-size") else { return };
    cluster.apply(&claim("one", "96Mi"));
    until("the claim says what it waits for", || {
        let said = cluster.try_kubectl(&["describe", "pvc", "one"]);
        match said.out.contains("WaitForFirstConsumer") {
            true => Ok(()),
            false => Err(said.out),
        }
    });
    assert_eq!(cluster.json(&["get", "pvc", "one"])["status"]["phase"], "Pending");
    assert_eq!(image_files(&cluster), Vec::<PathBuf>::new());

    cluster.apply(&(pod_with("first", "one") + &claim("two", "1Gi") + &pod_with("second", "two")));
    cluster.wait_ready("first");
    cluster.wait_ready("second");
    let (one, two) = (bound_volume(&cluster, "one"), bound_volume(&cluster, "two"));
    assert_eq!(one["spec"]["csi"]["driver"], "local.csi.stanchion.dev");
    assert_ne!(one["spec"]["csi"]["volumeHandle"], two["spec"]["csi"]["volumeHandle"]);
    let uid = cluster.json(&["get", "pvc", "one"])["metadata"]["uid"].as_str().unwrap().to_owned();
    assert!(one["spec"]["csi"]["volumeHandle"].as_str().unwrap().contains(&uid));

    // The device is exactly the capacity, and the filesystem is a little below it.
    let capacities = [&one, &two].map(|it| bytes(&it["spec"]["capacity"]["storage"]));
    assert_eq!(capacities, [96 << 20, 1 << 30]);
    let files = image_files(&cluster);
    let mut sizes: Vec<u64> = files.iter().map(|it| fs::metadata(it).unwrap().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, capacities);
    for (pod, capacity, least) in
        [("first", capacities[0], 0), ("second", capacities[1], capacities[1] / 10 * 9)]
    {
        let table = cluster.exec(pod, &["df", "/data"], "");
        let words: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
        let total: u64 = words[1].parse().unwrap_or_else(|_| panic!("{table}"));
        assert!((least..capacity).contains(&total), "{total} of {capacity}");
    }

    // A write beyond the end fails, and the neighbour does not notice.
    cluster.exec("second", &["tee", "/data/before"], "before");
    let said = cluster.try_exec("first", &["fill", "/data/big", "200M"], "");
    assert!(!said.ok && said.errors.contains("No space left on device"), "{said:?}");
    assert_eq!(cluster.exec("second", &["cat", "/data/before"], ""), "before");
    cluster.exec("second", &["fill", "/data/mine", "8M"], "");
}

#[test]
fn a_local_volume_stays_while_it_is_used_and_is_gone_with_its_claim() {
    let Some(cluster) = Cluster::start("local-life") else { return };
    cluster.apply(&(claim("data", "64Mi") + &pod_with("user", "data")));
    cluster.wait_ready("user");
    cluster.exec("user", &["tee", "/data/secret"], "secret");
    let volume = bound_volume(&cluster, "data");
    let name = volume["metadata"]["name"].as_str().unwrap();
    assert_eq!(image_files(&cluster).len(), 1);

    cluster.kubectl(&["delete", "pvc", "data", "--wait=false"]);
    let row = cluster.kubectl(&["get", "pvc", "data", "--no-headers"]);
    assert!(row.contains("Terminating"), "{row}");
    assert_eq!(cluster.exec("user", &["cat", "/data/secret"], ""), "secret");
    assert_eq!(cluster.json(&["get", "pv", name])["status"]["phase"], "Bound");

    cluster.kubectl(&["delete", "pod", "user"]);
    cluster.wait_gone(&["pvc", "data"]);
    cluster.wait_gone(&["pv", name]);
    assert_eq!(image_files(&cluster), Vec::<PathBuf>::new(), "the pool has its space back");

    // A namesake is somebody else.
    cluster.apply(&(claim("data", "64Mi") + &pod_with("user", "data")));
    cluster.wait_ready("user");
    let files = cluster.exec("user", &["ls", "/data"], "");
    assert!(!files.contains("secret"), "{files}");
}

#[test]
fn claims_whose_joined_names_are_equal_get_different_volumes() {
    let Some(cluster) = Cluster::start("local-names") else { return };
    let pairs = [("a", "b-c"), ("a-b", "c")];
    for (namespace, name) in pairs {
        cluster.kubectl(&["create", "namespace", namespace]);
        let documents = claim(name, "64Mi") + &pod_with("user", name);
        cluster.apply(
            &documents.replace("metadata: {", &format!("metadata: {{namespace: {namespace}, ")),
        );
    }
    let volumes = pairs.map(|(namespace, name)| {
        cluster.wait_for("the claim is Bound", &["pvc", name, "-n", namespace], |it| {
            (it["status"]["phase"] == "Bound").then(|| it["spec"]["volumeName"].clone())
        })
    });
    assert_ne!(volumes[0], volumes[1]);
    for (namespace, _) in pairs {
        cluster.wait_for("the pod runs", &["pod", "user", "-n", namespace], |it| {
            tests::is_ready(it).then_some(())
        });
    }
    cluster.kubectl(&["exec", "-n", "a", "user", "--", "touch", "/data/of-a"]);
    let files = cluster.kubectl(&["exec", "-n", "a-b", "user", "--", "ls", "/data"]);
    assert!(!files.contains("of-a"), "{files}");
}

#[test]
fn a_local_volume_grows_while_it_is_used() {
    let Some(cluster) = Cluster::start("local-growth") else { return };
    cluster.apply(&(claim("data", "64Mi") + &pod_with("user", "data")));
    cluster.wait_ready("user");
    cluster.exec("user", &["tee", "/data/text"], "before");
    let said = cluster.try_exec("user", &["fill", "/data/big", "100M"], "");
    assert!(!said.ok, "{said:?}");
    cluster.exec("user", &["rm", "/data/big"], "");

    let patch = r#"{"spec":{"resources":{"requests":{"storage":"256Mi"}}}}"#;
    cluster.kubectl(&["patch", "pvc", "data", "-p", patch]);
    let size_of = |claim: &Value| claim["status"]["capacity"]["storage"].clone();
    let waits = cluster.wait_for("the claim grows or waits", &["pvc", "data"], |it| {
        let conditions =
            it["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let waits = conditions.iter().any(|it| it["type"] == "FileSystemResizePending");
        (size_of(it) == "256Mi" || waits).then_some(waits)
    });
    if waits {
        // Without that capability ext4 grows when it is mounted again, and until then nobody says that it did.
        println!("skipped: growing ext4 while it is mounted needs CAP_SYS_RESOURCE");
        assert_eq!(size_of(&cluster.json(&["get", "pvc", "data"])), "64Mi");
        cluster.kubectl(&["delete", "pod", "user"]);
        cluster.apply(&pod_with("user", "data"));
        cluster.wait_ready("user");
        cluster.wait_for("the claim says its new size", &["pvc", "data"], |it| {
            (size_of(it) == "256Mi").then_some(())
        });
    }
    cluster.exec("user", &["fill", "/data/big", "100M"], "");
    assert_eq!(cluster.exec("user", &["cat", "/data/text"], ""), "before");
    assert_eq!(bytes(&bound_volume(&cluster, "data")["spec"]["capacity"]["storage"]), 256 << 20);
    assert_eq!(
        cluster.json(&["get", "pod", "user"])["status"]["containerStatuses"][0]["restartCount"],
        0
    );
}

#[test]
fn a_class_chooses_the_filesystem() {
    let Some(cluster) = Cluster::start("local-filesystems") else { return };
    for (filesystem, size) in [("xfs", "512Mi"), ("btrfs", "256Mi")] {
        if std::process::Command::new(format!("mkfs.{filesystem}")).arg("-V").output().is_err() {
            println!("skipped: a volume with {filesystem} needs mkfs.{filesystem}");
            continue;
        }
        let class = format!(
            "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {filesystem}}}
provisioner: local.csi.stanchion.dev
parameters: {{csi.storage.k8s.io/fstype: {filesystem}}}
volumeBindingMode: WaitForFirstConsumer
---
"
        );
        let of_class = format!("spec:\n  storageClassName: {filesystem}\n");
        let claim = claim(filesystem, size).replacen("spec:\n", &of_class, 1);
        cluster.apply(&(class + &claim + &pod_with(filesystem, filesystem)));
        cluster.wait_ready(filesystem);
        let mounts = cluster.exec(filesystem, &["cat", "/proc/mounts"], "");
        let mount = mounts.lines().find(|it| it.split(' ').nth(1) == Some("/data")).expect(&mounts);
        assert_eq!(mount.split(' ').nth(2), Some(filesystem), "{mount}");
        cluster.exec(filesystem, &["tee", "/data/text"], "text");
    }
}
