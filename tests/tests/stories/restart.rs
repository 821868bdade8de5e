//! The server comes and goes; containers, objects and what users changed stay, until they are told to go.

use crate::manifest::{claim, pod_with};
use tests::{Cluster, Options, leftovers, process_of, until};

#[test]
fn containers_outlive_the_server_until_they_are_taken_down() {
    let Some(mut cluster) = Cluster::start("restart") else { return };
    cluster.apply(&(claim("data", "64Mi") + &pod_with("user", "data")));
    let pod = cluster.wait_ready("user");
    cluster.exec("user", &["tee", "/data/text"], "still here");
    let container =
        pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().to_owned();
    let process = process_of(&container).expect("the container runs");

    cluster.stop();
    assert_eq!(process_of(&container), Some(process), "while no server runs");
    cluster.up();
    assert_eq!(process_of(&container), Some(process), "with the next server");
    assert_eq!(cluster.exec("user", &["cat", "/data/text"], ""), "still here");
    assert_eq!(
        cluster.json(&["get", "pod", "user"])["status"]["containerStatuses"][0]["restartCount"],
        0
    );

    // `down` does not touch what a server holds.
    let said = cluster.down();
    assert!(!said.ok && said.errors.starts_with("error: "), "{said:?}");
    assert_eq!(process_of(&container), Some(process));

    cluster.stop();
    let said = cluster.down();
    assert!(said.ok, "{said:?}");
    assert_eq!(process_of(&container), None);
    assert_eq!(leftovers(cluster.directory()), Vec::<String>::new());

    // The pod is still wanted, and its data is there.
    cluster.up();
    until("the data is read by the next container", || {
        let said = cluster.try_exec("user", &["cat", "/data/text"], "");
        if !said.ok {
            return Err(said.errors);
        }
        assert_eq!(said.out, "still here");
        Ok(())
    });
    cluster.stop();
    let said = cluster.stanchion(&["reset", "--yes"]);
    assert!(said.ok, "{said:?}");
    assert!(!cluster.data_dir().exists());
    assert_eq!(leftovers(cluster.directory()), Vec::<String>::new());
}

#[test]
fn what_a_user_does_to_the_class_survives_restarts() {
    let options = Options { flags: vec!["--no-node".to_owned()], ..Options::default() };
    let Some(mut cluster) = Cluster::start_with("class", options) else { return };
    let default = "storageclass.kubernetes.io/is-default-class";
    let class = cluster.json(&["get", "storageclass", "local"]);
    assert_eq!(class["metadata"]["annotations"][default], "true");
    cluster.kubectl(&[
        "annotate",
        "--overwrite",
        "storageclass",
        "local",
        &format!("{default}=false"),
    ]);
    cluster.stop();
    cluster.up();
    let class = cluster.json(&["get", "storageclass", "local"]);
    assert_eq!(class["metadata"]["annotations"][default], "false");

    cluster.kubectl(&["delete", "storageclass", "local"]);
    cluster.kill();
    cluster.up();
    assert!(cluster.look(&["get", "storageclass", "local"]).is_null());
}
