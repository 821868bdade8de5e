//! Fields that a kind does not have: refused by name, warned of, or passed over, as was asked.

use crate::house::{Door, STRATEGIC};
use serde_json::json;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn refused(door: &Door, path: &str, yaml: &str) -> String {
    let path = format!("{path}?fieldValidation=Strict");
    let reply = door.call("POST", &path, "application/yaml", yaml).await.is(400);
    reply.message().to_owned()
}

#[tokio::test]
async fn unknown_fields_are_refused_by_name() {
    let door = Door::open().await;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: i}]\n";
    for (path, yaml, expected) in [
        (
            PODS,
            format!("{pod}  volumes: [{{name: v, host-path: {{path: /}}}}]\n"),
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.volumes[0].host-path\"",
        ),
        (
            PODS,
            format!("{pod}  volumes: [{{name: v, azureFile: {{secretName: s}}, shareName: x}}]\n"),
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.volumes[0].shareName\"",
        ),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: c}\nprovisioner: p\narchiveOnDelete: \"false\"\n".to_owned(),
            "StorageClass in version \"v1\" cannot be handled as a StorageClass: strict decoding error: unknown field \"archiveOnDelete\"",
        ),
        (
            "/api/v1/persistentvolumes",
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: v}\nspec:\n  capacity: {storage: 1Gi}\n  rbd: {monitors: [m], image: i, imagefeatures: layering, imageformat: \"2\"}\n".to_owned(),
            "PersistentVolume in version \"v1\" cannot be handled as a PersistentVolume: strict decoding error: unknown field \"spec.rbd.imagefeatures\", unknown field \"spec.rbd.imageformat\"",
        ),
    ] {
        assert_eq!(refused(&door, path, &yaml).await, expected);
        let listed = door.get(path).await.is(200);
        assert_eq!(listed.body["items"], json!([]), "nothing was created");
    }
}

#[tokio::test]
async fn fields_named_twice_are_told() {
    let door = Door::open().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let json = r#"{"metadata":{"name":"m"},"data":{"a":"1","a":"2"},"dato":{}}"#;
    let path = format!("{maps}?fieldValidation=Strict");
    let reply = door.call("POST", &path, "application/json", json).await.is(400);
    assert_eq!(
        reply.message(),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\", unknown field \"dato\""
    );
    let reply = door.call("POST", maps, "application/json", json).await.is(201);
    assert_eq!(
        reply.warnings(),
        ["299 - \"duplicate field \\\"data.a\\\"\"", "299 - \"unknown field \\\"dato\\\"\""]
    );
    let path = format!("{maps}?fieldValidation=Ignore");
    let json = json.replace("\"m\"", "\"n\"");
    let reply = door.call("POST", &path, "application/json", &json).await.is(201);
    assert!(reply.warnings().is_empty());
    let path = format!("{maps}/n?fieldValidation=Strict");
    let reply = door.patch(&path, STRATEGIC, json!({"dato": {"a": "b"}})).await.is(422);
    assert!(
        reply.message().ends_with("strict decoding error: unknown field \"dato\""),
        "{}",
        reply.message()
    );
    door.post(&format!("{maps}?fieldValidation=Maybe"), json!({})).await.is(422);
}
