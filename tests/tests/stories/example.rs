//! The first thing that a reader of README.md tries.

use std::path::Path;
use tests::{Cluster, Options, leftovers};

#[test]
fn the_example_comes_up_by_one_command() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/web");
    let flags = vec![format!("--apply={}", folder.display())];
    let options = Options { flags, ..Options::default() };
    let Some(mut cluster) = Cluster::start_with("example", options) else { return };

    let created = cluster.line("what was created", |line| line.contains("created"));
    assert_eq!(created, "service/nginx created · statefulset.apps/web created");
    cluster.line("all ready", |line| line.starts_with("3/3 ready in "));
    let lines = cluster.lines();
    for pod in ["web-0", "web-1", "web-2"] {
        let line =
            lines.iter().find(|it| it.trim_start().starts_with(pod)).expect("a line for each pod");
        assert!(line.contains("Ready") && line.contains(&format!("www-{pod} → pvc-")), "{line}");
        assert!(line.contains("1Gi"), "{line}");
    }

    let pods = cluster.kubectl(&["get", "pods", "--no-headers"]);
    assert_eq!(
        pods.lines().filter(|it| it.contains("1/1") && it.contains("Running")).count(),
        3,
        "{pods}"
    );
    let claims = cluster.kubectl(&["get", "pvc", "--no-headers"]);
    assert_eq!(
        claims.lines().filter(|it| it.contains("Bound") && it.contains("local")).count(),
        3,
        "{claims}"
    );

    for pod in ["web-0", "web-1"] {
        cluster.exec(pod, &["tee", "/data/index.html"], &format!("I am {pod}\n"));
    }
    let page = cluster.exec("web-0", &["get", "http://web-1.nginx/index.html"], "");
    assert_eq!(page, "I am web-1\n");

    cluster.stop();
    let said = cluster.down();
    assert!(said.ok, "{}{}", said.out, said.errors);
    assert_eq!(leftovers(cluster.directory()), Vec::<String>::new());
    assert!(cluster.data_dir().join("volumes").exists(), "the data is kept");
}
