//! What upstream's kube-apiserver left in the ledger.

use crate::house::{Door, config, memory, object, open_on};
use api::core::v1::Service;
use serde_json::json;
use store::{Batch, Expect, Key, Store};
use world::{Change, ObjectKey};

const KEY: &str = "/registry/configmaps/default/m";

/// A ConfigMap of one entry, as upstream stores it, and what else is in its message.
fn packed(name: &str, more: &[u8]) -> Vec<u8> {
    let part = |number: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).expect("short");
        [&[number << 3 | 2, length], bytes].concat()
    };
    let kind = [part(1, b"v1"), part(2, b"ConfigMap")].concat();
    let metadata = [part(1, name.as_bytes()), part(3, b"default"), part(5, b"uid-m")].concat();
    let entry = [part(1, b"k"), part(2, b"v")].concat();
    let map = [part(1, &metadata), part(2, &entry), more.to_vec()].concat();
    [b"k8s\0".to_vec(), part(1, &kind), part(2, &map)].concat()
}

async fn put(store: &dyn Store, key: &str, value: Vec<u8>) {
    store.commit(Batch::new().put(key, Expect::Absent, value)).await.unwrap();
}

#[tokio::test]
async fn an_object_in_protobuf_is_read_changed_and_kept_as_json() {
    let store = memory();
    put(&*store, KEY, packed("m", &[])).await;
    let door = Door::open_on(store.clone()).await;
    let path = "/api/v1/namespaces/default/configmaps/m";
    let read = door.get(path).await.is(200).body;
    assert_eq!((&read["data"], &read["metadata"]["uid"]), (&json!({"k": "v"}), &json!("uid-m")));
    let stored =
        || async { store.snapshot().await.unwrap().get(&Key::from(KEY)).unwrap().unwrap() };
    assert_eq!(stored().await.value, packed("m", &[]), "nobody writes because he reads");
    let patch = json!({"data": {"more": "x"}});
    door.patch(path, "application/merge-patch+json", patch).await.is(200);
    let now: serde_json::Value = serde_json::from_slice(&stored().await.value).unwrap();
    assert_eq!(now["data"], json!({"k": "v", "more": "x"}));
    assert_eq!(now["metadata"]["uid"], "uid-m");
    // While it runs, too.
    put(&*store, "/registry/configmaps/default/later", packed("later", &[])).await;
    let list = door.get("/api/v1/namespaces/default/configmaps").await.is(200).body;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_object_that_is_not_wholly_understood_keeps_the_door_shut() {
    let later = packed("m", &[0xfa, 0x01, 1, b'x']);
    let cut = packed("m", &[])[..20].to_vec();
    for (value, why) in [
        (later, "field 31 of core.ConfigMap is not known"),
        (cut, "the protobuf message ends too early"),
        (b"neither".to_vec(), "expected ident at line 1 column 2"),
    ] {
        let store = memory();
        put(&*store, KEY, value).await;
        let refused = apiserver::open(store, config()).await.err().expect("it does not open");
        let said = stdx::one_line(&refused);
        assert_eq!(said, format!("reading the ledger: {KEY}: {why}"));
    }
}

#[tokio::test]
async fn what_services_of_another_server_have_is_not_given_out_again() {
    let store = memory();
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "old", "namespace": "default", "uid": "u"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"],
            "ports": [{"port": 80, "nodePort": 30007}, {"port": 53, "protocol": "UDP", "nodePort": 30007}]},
    });
    put(&*store, "/registry/services/specs/default/old", foreign.to_string().into()).await;
    let client = open_on(store.clone()).await.client("tester");
    let again: Service = object(json!({
        "metadata": {"name": "new", "namespace": "default"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]},
    }));
    let taken: Service = object(json!({
        "metadata": {"name": "taken", "namespace": "default"},
        "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]},
    }));
    let refused = client.write(vec![Change::create(again.clone())]).await.unwrap_err();
    assert!(refused.message.contains("provided port is already allocated"), "{refused}");
    let refused = client.write(vec![Change::create(taken)]).await;
    let refused = refused.unwrap_err();
    assert!(refused.message.contains("provided IP is already allocated"), "{refused}");
    let old = client.world().get::<Service>(&ObjectKey::new("default", "old")).unwrap();
    client.write(vec![Change::delete(&*old)]).await.unwrap();
    client.write(vec![Change::create(again)]).await.unwrap();
}
