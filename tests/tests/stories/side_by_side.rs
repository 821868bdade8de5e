//! Two instances on one machine do not know of each other.

use crate::manifest::{claim, pod_with};
use tests::Cluster;

#[test]
fn two_instances_live_side_by_side() {
    let Some(one) = Cluster::start("left") else { return };
    let Some(mut two) = Cluster::start("right") else { return };
    for cluster in [&one, &two] {
        cluster.apply(&(claim("data", "64Mi") + &pod_with("user", "data")));
    }
    for (cluster, text) in [(&one, "left"), (&two, "right")] {
        cluster.wait_ready("user");
        cluster.exec("user", &["tee", "/data/text"], text);
    }
    // One goes with all it has; the other one stays as it is.
    two.stop();
    let said = two.down();
    assert!(said.ok, "{}{}", said.out, said.errors);
    assert_eq!(one.exec("user", &["cat", "/data/text"], ""), "left");

    // And comes back with its data.
    two.up();
    two.wait_ready("user");
    assert_eq!(two.exec("user", &["cat", "/data/text"], ""), "right");
    assert_eq!(one.exec("user", &["cat", "/data/text"], ""), "left");

    // A data dir has one server.
    let second = one.stanchion(&["up", "--listen=127.0.0.1:0", "--no-node"]);
    assert!(!second.ok && second.errors.starts_with("error: "), "{second:?}");
    assert!(second.errors.contains("process"), "{}", second.errors);
}
