//! Two instances on one machine do not know of each other.

use crate::manifest::{claim, pod_with};
use tests::{Cluster, Options};

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

#[test]
fn a_server_that_cannot_start_says_why_in_one_line() {
    let flags = vec!["--no-node".to_owned()];
    let options = Options { flags, ..Options::default() };
    let Some(mut cluster) = Cluster::start_with("starts", options) else { return };
    let refused = |cluster: &Cluster, words: &[&str], why: &str| {
        let said = cluster.stanchion(words);
        let told: Vec<&str> = said.errors.lines().filter(|it| it.starts_with("error: ")).collect();
        assert!(!said.ok && told.len() == 1 && told[0].contains(why), "{said:?}");
    };
    let up = ["up", "--no-node", "--listen=127.0.0.1:0"];
    refused(&cluster, &up, "is in use by process");
    // Nor is the server's data dir taken for a node's, which `down` would then end under the server's hands.
    let memory = cluster.data_dir().join("node.json");
    let before = std::fs::read_to_string(&memory).unwrap();
    let node = ["node", "--server=https://127.0.0.1:1", "--token=abcdef.0123456789abcdef"];
    refused(&cluster, &node, "it is the data dir of a server");
    refused(&cluster, &["down"], "is in use by process");
    cluster.stop();
    refused(&cluster, &node, "it is the data dir of a server");
    assert_eq!(std::fs::read_to_string(&memory).unwrap(), before);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let why = format!("listen on {}: another process does", taken.local_addr().unwrap());
    refused(&cluster, &["up", "--no-node", &listen], &why);

    let format = cluster.data_dir().join("format");
    std::fs::write(&format, "99\n").unwrap();
    for words in [&up[..], &["doctor"], &["backup", "/nowhere"], &["down"]] {
        refused(&cluster, words, "a newer program made it (format 99");
    }
    // A data dir from before there were formats.
    std::fs::remove_file(&format).unwrap();
    cluster.up();
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "1\n");
}
