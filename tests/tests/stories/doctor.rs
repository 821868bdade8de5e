//! What is right is called so, and what is broken on purpose is found, with what to do about it.

use crate::manifest::{claim, pod_with};
use std::{fs, os::unix::fs::FileExt, process::Command};
use tests::{Cluster, Said};

#[test]
fn a_doctor_finds_what_was_broken_and_nothing_else() {
    let Some(mut cluster) = Cluster::start("doctor") else { return };
    cluster.apply(&(claim("data", "64Mi") + &pod_with("user", "data")));
    cluster.wait_ready("user");
    let well = |said: Said| {
        assert!(said.ok, "{}{}", said.out, said.errors);
        assert!(!said.out.contains("wrong "), "{}", said.out);
        said.out
    };
    println!("doctor: {}", well(cluster.stanchion(&["doctor"])));
    cluster.stop();
    let said = well(cluster.stanchion(&["doctor"]));
    assert!(said.contains("all of them read"), "{said}");

    let ill = |cluster: &Cluster, what: &str, remedy: &str| {
        let said = cluster.stanchion(&["doctor"]);
        assert!(!said.ok && said.errors.contains("1 thing is wrong"), "{said:?}");
        let told = said.out.lines().skip_while(|it| !it.starts_with("wrong ")).take(2);
        let told: Vec<&str> = told.collect();
        assert!(told[0].contains(what) && told[1].contains(remedy), "{what}, {remedy}: {told:#?}");
    };

    // A mount of nobody.
    let point = cluster.data_dir().join("kubelet/plugins/nobody");
    fs::create_dir_all(&point).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&point).status();
    assert!(mounted.unwrap().success());
    ill(&cluster, "no pod of this node is known to use it", "umount ");
    assert!(Command::new("umount").arg(&point).status().unwrap().success());

    // An image that lost a layer.
    let layers = cluster.data_dir().join("images/layers");
    let layer = fs::read_dir(&layers).unwrap().flatten().next().expect("a layer").path();
    let elsewhere = cluster.directory().join("layer");
    fs::rename(&layer, &elsewhere).unwrap();
    ill(&cluster, "is not there", "stanchion image rm ");
    fs::rename(&elsewhere, &layer).unwrap();

    // An authority that is gone.
    let authority = cluster.data_dir().join("pki/ca.crt");
    let text = fs::read(&authority).unwrap();
    fs::remove_file(&authority).unwrap();
    ill(&cluster, "ca.crt is not there", "new kubeconfig");
    fs::write(&authority, text).unwrap();

    // A ledger whose bytes are not what was written.
    let pages = cluster.data_dir().join("state/ledger/pages");
    let pages = fs::OpenOptions::new().read(true).write(true).open(pages).unwrap();
    let mut begin = [0; 16];
    pages.read_exact_at(&mut begin, 0).unwrap();
    pages.write_all_at(b"something else!!", 0).unwrap();
    ill(&cluster, "does not begin as a ledger does", "stanchion restore FILE");
    pages.write_all_at(&begin, 0).unwrap();

    well(cluster.stanchion(&["doctor"]));
    cluster.up();
    cluster.wait_ready("user");
}
