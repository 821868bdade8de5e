//! A StatefulSet's pods come in order, go in reverse, and keep name, claim and text.

use serde_json::Value;
use tests::{Cluster, Options, images, is_ready, until};

const PODS: &str = "/api/v1/namespaces/default/pods";
const PAGE: &str = "/usr/share/nginx/html/index.html";

fn name(event: &Value) -> &str {
    event["object"]["metadata"]["name"].as_str().unwrap_or_default()
}

/// Each pod after the first was created when the one before it was Ready.
#[track_caller]
fn assert_in_order(events: &[Value]) {
    for (at, event) in events.iter().enumerate() {
        let Some(ordinal) = name(event).strip_prefix("web-").and_then(|it| it.parse::<u32>().ok())
        else {
            continue;
        };
        if event["type"] == "ADDED" && ordinal > 0 {
            let before = format!("web-{}", ordinal - 1);
            let last = events[..at].iter().rfind(|it| name(it) == before);
            assert!(
                last.is_some_and(|it| it["type"] != "DELETED" && is_ready(&it["object"])),
                "{last:#?} before {event:#}"
            );
        }
    }
}

#[test]
fn pods_of_a_set_keep_name_claim_and_text() {
    let options = Options { images: vec![images().nginx.clone()], ..Options::default() };
    let Some(cluster) = Cluster::start_with("ordered", options) else { return };
    let host = cluster.directory().join("host").display().to_string();
    cluster.apply(&include_str!("../../manifests/volumes-of-host.yaml").replace("HOST", &host));
    let mut watch = cluster.watch(PODS);
    cluster.apply(include_str!("../../manifests/web-nginx.yaml"));
    let events = watch.until("web-2 is Ready", |it| name(it) == "web-2" && is_ready(&it["object"]));
    assert_in_order(events);

    for ordinal in 0..3 {
        let pod = format!("web-{ordinal}");
        cluster.exec(&pod, &["tee", PAGE], &format!("text of {pod}"));
        assert_eq!(
            cluster.exec(&pod, &["wget", "-qO-", "http://127.0.0.1/"], ""),
            format!("text of {pod}")
        );
    }

    // The middle one again.
    let before = cluster.json(&["get", "pod", "web-1"]);
    cluster.kubectl(&["delete", "pod", "web-1"]);
    let after = cluster.wait_for("another web-1 is Ready", &["pod", "web-1"], |pod| {
        (is_ready(pod) && pod["metadata"]["uid"] != before["metadata"]["uid"]).then(|| pod.clone())
    });
    assert_eq!(after["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "www-web-1");
    assert_eq!(after["spec"]["hostname"], "web-1");
    let address = after["status"]["podIP"].as_str().unwrap().to_owned();
    assert_ne!(before["status"]["podIP"], *address);
    assert_eq!(cluster.exec("web-1", &["cat", PAGE], ""), "text of web-1");
    let found = cluster.exec(
        "web-0",
        &["nslookup", "-type=a", "web-1.nginx.default.svc.cluster.local"],
        "",
    );
    assert!(found.contains(&address), "{address} in {found}");
    assert!(!found.contains(before["status"]["podIP"].as_str().unwrap()), "{found}");
    assert_eq!(
        cluster.exec("web-0", &["wget", "-qO-", "http://web-1.nginx/"], ""),
        "text of web-1"
    );
    let pinged = cluster.exec("web-2", &["ping", "-c", "1", "-W", "5", "web-0.nginx"], "");
    assert!(pinged.contains("1 packets received"), "{pinged}");

    // 3 → 1 → 3
    let mut watch = cluster.watch(PODS);
    cluster.kubectl(&["scale", "statefulset", "web", "--replicas=1"]);
    let events = watch.until("web-1 is gone", |it| name(it) == "web-1" && it["type"] == "DELETED");
    let gone = events.iter().position(|it| name(it) == "web-2" && it["type"] == "DELETED");
    let leaving = events.iter().position(|it| {
        name(it) == "web-1" && !it["object"]["metadata"]["deletionTimestamp"].is_null()
    });
    assert!(
        gone.is_some() && gone < leaving,
        "web-2 gone at {gone:?}, web-1 leaving at {leaving:?}: {events:#?}"
    );
    let claims = cluster.kubectl(&["get", "pvc", "-o", "name"]);
    assert_eq!(claims.lines().count(), 3, "{claims}");
    until("the name of web-2 is gone", || {
        let said = cluster.try_exec(
            "web-0",
            &["nslookup", "-type=a", "web-2.nginx.default.svc.cluster.local"],
            "",
        );
        if said.ok { Err(said.out) } else { Ok(()) }
    });

    let mut watch = cluster.watch(PODS);
    cluster.kubectl(&["scale", "statefulset", "web", "--replicas=3"]);
    let events =
        watch.until("web-2 is Ready again", |it| name(it) == "web-2" && is_ready(&it["object"]));
    let two = events.iter().position(|it| name(it) == "web-2" && it["type"] == "ADDED");
    let one = events.iter().position(|it| name(it) == "web-1" && is_ready(&it["object"]));
    assert!(one.is_some() && one < two, "{events:#?}");
    for pod in ["web-1", "web-2"] {
        assert_eq!(cluster.exec(pod, &["cat", PAGE], ""), format!("text of {pod}"));
    }
    let status = cluster.kubectl(&["rollout", "status", "statefulset/web", "--timeout=60s"]);
    assert!(status.contains("complete"), "{status}");
}
