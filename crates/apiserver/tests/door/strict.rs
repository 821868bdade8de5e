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

#[tokio::test]
async fn keys_that_yaml_has_twice_are_told_where() {
    let door = Door::open().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let yaml = "metadata:\n  name: m\ndata:\n  a: one\n  a: two\n";
    let said = "yaml: unmarshal errors:\n  line 5: key \"a\" already set in map";
    let refusal = refused(&door, maps, yaml).await;
    let lead =
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error";
    assert_eq!(refusal, format!("{lead}: {said}"));
    let warned = "299 - \"yaml: unmarshal errors:  line 5: key \\\"a\\\" already set in map\"";
    let reply = door.call("POST", maps, "application/yaml", yaml).await.is(201);
    assert_eq!(reply.warnings(), [warned]);
    assert_eq!(reply.body["data"]["a"], "two", "the last one counts");
    let path = format!("{maps}/m?fieldValidation=Ignore");
    let reply = door.call("PUT", &path, "application/yaml", yaml).await.is(200);
    assert!(reply.warnings().is_empty());

    let apply = "application/apply-patch+yaml";
    let yaml = format!("apiVersion: v1\nkind: ConfigMap\n{yaml}");
    let path = format!("{maps}/m?fieldManager=t&force=true");
    let said = "error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"a\" already set in map";
    let strict = format!("{path}&fieldValidation=Strict");
    let reply = door.call("PATCH", &strict, apply, &yaml).await.is(400);
    assert_eq!(reply.message(), format!("error strict decoding YAML: {said}"));
    let reply = door.call("PATCH", &path, apply, &yaml).await.is(200);
    assert_eq!(reply.warnings().len(), 1, "{:?}", reply.warnings());
    assert!(reply.warnings()[0].contains("line 7: key \\\"a\\\" already set in map"));
    let ignore = format!("{path}&fieldValidation=Ignore");
    let reply = door.call("PATCH", &ignore, apply, &yaml).await.is(200);
    assert!(reply.warnings().is_empty());
    // JSON is YAML, too.
    let json = r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1","a":"3"}}"#;
    door.call("PATCH", &strict, apply, json).await.is(400);
    let reply = door.call("PATCH", &path, apply, json).await.is(200);
    assert_eq!(reply.body["data"]["a"], "3");
}

#[tokio::test]
async fn a_patch_that_names_a_field_twice_is_told() {
    let door = Door::open().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    door.post(maps, json!({"metadata": {"name": "m"}})).await.is(201);
    let patch = r#"{"data":{"a":"1","a":"2"}}"#;
    let steps = r#"[{"op":"add","path":"/data","path":"/data","value":{"a":"2"}}]"#;
    let odd = r#"[{"op":"add","path":"/data","value":{"a":"2"},"note":"x"}]"#;
    for (kind, patch, twice) in [
        (STRATEGIC, patch, "duplicate field \"data.a\""),
        ("application/merge-patch+json", patch, "duplicate field \"data.a\""),
        ("application/json-patch+json", steps, "json patch duplicate field \"[0].path\""),
        ("application/json-patch+json", odd, "json patch unknown field \"[0].note\""),
    ] {
        let strict = format!("{maps}/m?fieldValidation=Strict");
        let reply = door.call("PATCH", &strict, kind, patch).await.is(422);
        let end = format!("strict decoding error: {twice}");
        assert!(reply.message().ends_with(&end), "{}", reply.message());
        let reply = door.call("PATCH", &format!("{maps}/m"), kind, patch).await.is(200);
        let warned = format!("299 - \"{}\"", twice.replace('"', "\\\""));
        assert_eq!(reply.warnings(), [warned], "{kind}");
        let ignore = format!("{maps}/m?fieldValidation=Ignore");
        let reply = door.call("PATCH", &ignore, kind, patch).await.is(200);
        assert!(reply.warnings().is_empty());
        assert_eq!(reply.body["data"]["a"], "2");
    }
}
