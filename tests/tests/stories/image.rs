//! Images come from archives, are listed, and go.

use tests::{Cluster, images, until};

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, echo said by busybox]
";

#[test]
fn images_are_imported_listed_used_and_removed() {
    let Some(cluster) = Cluster::start("images") else { return };
    cluster.apply(POD);
    cluster.wait_for("the pod says that its image is missing", &["pod", "once"], |pod| {
        let reason =
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str()?;
        ["ErrImagePull", "ImagePullBackOff"].contains(&reason).then_some(())
    });
    let archive = images().busybox.to_str().unwrap();
    let said = cluster.stanchion_ok(&["image", "import", archive]);
    assert!(said.contains("busybox:latest"), "{said}");
    let table = cluster.stanchion_ok(&["image", "ls"]);
    assert!(table.lines().any(|it| it.contains("busybox") && it.contains("latest")), "{table}");
    cluster.wait_for("the pod ran", &["pod", "once"], |pod| {
        (pod["status"]["phase"] == "Succeeded").then_some(())
    });
    assert_eq!(cluster.kubectl(&["logs", "once"]), "said by busybox\n");

    cluster.kubectl(&["delete", "pod", "once"]);
    // A pod that has ended goes at once, its container after it.
    until("nothing uses the image", || {
        let said = cluster.stanchion(&["image", "rm", "busybox"]);
        if said.ok { Ok(()) } else { Err(said.errors) }
    });
    let table = cluster.stanchion_ok(&["image", "ls"]);
    assert!(!table.contains("busybox"), "{table}");
}
