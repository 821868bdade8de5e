//! The disk fills up under a running server: it says so, goes on answering, and goes on writing once there is room.

use std::{fs::File, io::Write};
use tests::{Cluster, Options, until};

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_heals() {
    let flags = vec!["--no-node".to_owned()];
    let options = Options { flags, disk_mib: Some(160), ..Options::default() };
    let Some(mut cluster) = Cluster::start_with("full", options) else { return };
    cluster.kubectl(&["create", "configmap", "before", "--from-literal=a=1"]);
    let hog = cluster.data_dir().join("hog");
    let mut file = File::create(&hog).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    drop(file);

    let said = cluster.try_kubectl(&["create", "configmap", "during"]);
    assert!(!said.ok, "{said:?}");
    let pages = cluster.data_dir().join("state/ledger/pages");
    let told = format!("nothing was written: commit: no space left on {}", pages.display());
    assert!(said.errors.contains(&told), "{said:?}");
    assert_eq!(cluster.json(&["get", "configmap", "before"])["data"]["a"], "1");
    assert!(cluster.look(&["get", "configmap", "during"]).is_null());
    let doctor = cluster.stanchion(&["doctor"]);
    assert!(!doctor.ok && doctor.out.contains("writes are refused"), "{doctor:?}");

    // Its server may end and start meanwhile, and what runs can be taken down.
    cluster.kill();
    let down = cluster.down();
    assert!(down.ok && down.out.starts_with("no pods ran here"), "{down:?}");
    cluster.spawn(&[]);
    until("the next server answers or says why not", || match cluster.ended() {
        Some(_) => Ok(()),
        None if cluster.try_kubectl(&["get", "--raw", "/livez"]).ok => Ok(()),
        None => Err("neither".to_owned()),
    });
    cluster.kill();

    std::fs::remove_file(&hog).unwrap();
    cluster.up();
    cluster.kubectl(&["create", "configmap", "after"]);
    let mut file = File::create(&hog).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    assert!(!cluster.try_kubectl(&["create", "configmap", "again"]).ok);
    std::fs::remove_file(&hog).unwrap();
    cluster.kubectl(&["create", "configmap", "again"]);
    assert!(cluster.ended().is_none(), "the same server");
    let all = cluster.kubectl(&["get", "configmaps", "-o", "name"]);
    for name in ["before", "after", "again"] {
        assert!(all.contains(&format!("configmap/{name}")), "{name}: {all}");
    }
}
