//! What a node may see and write: its own, what its pods name, and nothing of other nodes.

use crate::house::{Door, Reply};
use apiserver::Access;
use serde_json::{Value, json};

const NS: &str = "/api/v1/namespaces/default";

async fn as_node(door: &Door, node: &str, method: &str, path: &str, body: Value) -> Reply {
    let user = format!("system:node:{node}");
    door.acting(&user, &["system:nodes", "system:authenticated"], method, path, &body).await
}

/// Two nodes, a pod on each, and two Secrets of which `p1` on `n1` names one.
async fn cluster() -> Door {
    let door = Door::open_guarded(Access::default()).await;
    for node in ["n1", "n2"] {
        door.post("/api/v1/nodes", json!({"metadata": {"name": node}})).await.is(201);
    }
    for name in ["used", "other"] {
        door.post(&format!("{NS}/secrets"), json!({"metadata": {"name": name}})).await.is(201);
        door.post(&format!("{NS}/configmaps"), json!({"metadata": {"name": name}})).await.is(201);
    }
    for (pod, node, volume) in [
        ("p1", "n1", json!({"name": "v", "secret": {"secretName": "used"}})),
        ("p2", "n2", json!({"name": "v", "configMap": {"name": "used"}})),
    ] {
        let spec = json!({
            "nodeName": node, "containers": [{"name": "c", "image": "x"}], "volumes": [volume],
            "serviceAccountName": "default",
        });
        let pod = json!({"metadata": {"name": pod}, "spec": spec});
        door.post(&format!("{NS}/pods"), pod).await.is(201);
    }
    door
}

#[tokio::test]
async fn a_node_reads_what_its_pods_name_and_nothing_else() {
    let door = cluster().await;
    let get =
        async |node: &str, path: &str| as_node(&door, node, "GET", path, Value::Null).await.code;
    let secret = |name: &str| format!("{NS}/secrets/{name}");
    assert_eq!(get("n1", &secret("used")).await, 200);
    assert_eq!(get("n1", &secret("other")).await, 403);
    assert_eq!(get("n2", &secret("used")).await, 403, "a node's token for another node's secret");
    assert_eq!(get("n2", &format!("{NS}/configmaps/used")).await, 200);
    assert_eq!(get("n1", &format!("{NS}/configmaps/used")).await, 403);
    assert_eq!(get("n1", &format!("{NS}/secrets")).await, 403);
    assert_eq!(get("n1", "/api/v1/nodes/n1").await, 200);
    // Its network leads to their pods.
    assert_eq!(get("n1", "/api/v1/nodes/n2").await, 200);
    assert_eq!(get("n1", "/api/v1/nodes").await, 200);
    assert_eq!(get("n1", &format!("{NS}/pods/p1")).await, 200);
    assert_eq!(get("n1", &format!("{NS}/pods/p2")).await, 403);
    assert_eq!(get("n1", "/api/v1/pods").await, 403);
    assert_eq!(get("n1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await, 200);
    assert_eq!(get("n1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2").await, 403);
    let reply = as_node(&door, "n2", "GET", &secret("used"), Value::Null).await;
    assert!(
        reply.message().ends_with(": no relationship found between node 'n2' and this object"),
        "{}",
        reply.message()
    );
}

#[tokio::test]
async fn a_node_writes_about_itself_only_and_draws_no_work_to_it() {
    let door = cluster().await;
    let merge = "application/merge-patch+json";
    let patch = async |path: &str, body: Value| {
        let headers = [
            ("content-type", merge),
            ("impersonate-user", "system:node:n1"),
            ("impersonate-group", "system:nodes"),
        ];
        let body = body.to_string();
        door.call_as(crate::house::Who::Admin, "PATCH", path, &headers, body.as_bytes()).await
    };
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    patch("/api/v1/nodes/n1", label("example.com/disk")).await.is(200);
    let reply = patch("/api/v1/nodes/n1", label("node-restriction.kubernetes.io/a")).await.is(403);
    assert_eq!(
        reply.message(),
        r#"nodes "n1" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/a"#
    );
    let reply = patch("/api/v1/nodes/n2", label("example.com/disk")).await.is(403);
    assert_eq!(
        reply.message(),
        r#"nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#
    );
    let taints = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    patch("/api/v1/nodes/n1", taints).await.is(403);
    let status = json!({"status": {"message": "x"}});
    patch(&format!("{NS}/pods/p1/status"), status.clone()).await.is(200);
    patch(&format!("{NS}/pods/p2/status"), status).await.is(403);
    let deleted = as_node(&door, "n1", "DELETE", &format!("{NS}/pods/p2"), Value::Null).await;
    assert_eq!(
        deleted.is(403).message(),
        r#"pods "p2" is forbidden: node "n1" can only delete pods with spec.nodeName set to itself"#
    );
    let pod =
        json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    as_node(&door, "n1", "POST", &format!("{NS}/pods"), pod).await.is(403);
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_own_pods_only() {
    let door = cluster().await;
    let uid = async |pod: &str| {
        let pod = door.get(&format!("{NS}/pods/{pod}")).await.is(200).body;
        pod["metadata"]["uid"].clone()
    };
    let ask = |name: &str, uid: Value| {
        json!({"spec": {"boundObjectRef": {
            "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid,
        }}})
    };
    let path = format!("{NS}/serviceaccounts/default/token");
    let token = async |node: &str, body: Value| as_node(&door, node, "POST", &path, body).await;
    let (one, two) = (uid("p1").await, uid("p2").await);
    let reply = token("n1", ask("p2", two)).await.is(403);
    assert!(reply.message().ends_with("token bound to a pod scheduled on a different node"));
    token("n1", ask("p1", one.clone())).await.is(201);
    token("n1", json!({})).await.is(403);
    let strange = json!({"spec": {
        "audiences": ["vault"], "boundObjectRef": ask("p1", one)["spec"]["boundObjectRef"],
    }});
    // The pod asks for no such audience.
    token("n1", strange).await.is(403);
}
