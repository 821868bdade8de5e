//! Addresses of Services, and the ranges that they are of.

use crate::house::Door;
use serde_json::{Value, json};

const MERGE: &str = "application/merge-patch+json";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";

fn service(name: &str, address: Option<&str>) -> Value {
    let spec = json!({"clusterIP": address.unwrap_or_default(), "ports": [{"port": 80}]});
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn an_address_is_an_object_that_comes_and_goes_with_its_service() {
    let door = Door::open().await;
    let own = door.get(&format!("{ADDRESSES}/10.96.0.1")).await.is(200);
    assert_eq!(
        own.body["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "kubernetes"})
    );
    let made = door.post(SERVICES, service("web", None)).await.is(201);
    let address = made.body["spec"]["clusterIP"].as_str().unwrap();
    let at = format!("{ADDRESSES}/{address}");
    let object = door.get(&at).await.is(200);
    let revision = |it: &Value| it["metadata"]["resourceVersion"].clone();
    assert_eq!(revision(&object.body), revision(&made.body), "one commit");
    assert!(object.body["metadata"]["uid"].is_string());

    // Who has an address keeps it; what somebody takes by an object of his own is nobody else's.
    let refused = door.delete(&at).await.is(403);
    assert!(refused.message().contains("service default/web has this address"));
    let parent = json!({"group": "a.example", "resource": "things", "name": "x"});
    let mine = json!({"metadata": {"name": "10.96.9.9"}, "spec": {"parentRef": parent}});
    door.post(ADDRESSES, mine).await.is(201);
    let refused = door.post(SERVICES, service("late", Some("10.96.9.9"))).await.is(422);
    assert!(refused.message().contains("provided IP is already allocated"));
    door.delete(&format!("{ADDRESSES}/10.96.9.9")).await.is(200);
    door.post(SERVICES, service("late", Some("10.96.9.9"))).await.is(201);

    door.delete(&format!("{SERVICES}/web")).await.is(200);
    door.get(&at).await.is(404);
}

#[tokio::test]
async fn a_service_gets_an_address_of_a_range_that_is_ready_and_stays() {
    let door = Door::open().await;
    let own = door.get(&format!("{RANGES}/kubernetes")).await.is(200);
    assert_eq!(own.body["spec"]["cidrs"], json!(["10.96.0.0/12"]));
    let metadata =
        json!({"name": "more", "finalizers": ["networking.k8s.io/service-cidr-finalizer"]});
    let more = json!({"metadata": metadata, "spec": {"cidrs": ["203.0.113.0/24"]}});
    door.post(RANGES, more).await.is(201);
    let ask = |name: &'static str, address: &'static str| {
        door.post(SERVICES, service(name, Some(address)))
    };
    let refused = ask("a", "203.0.113.10").await.is(422);
    let why = "the provided network does not match the current range, the range of valid IPs is 10.96.0.0/12";
    assert!(refused.message().contains(why), "{}", refused.message());

    let ready = json!({"type": "Ready", "status": "True", "reason": "", "message": "",
        "lastTransitionTime": "2020-01-01T00:00:00Z"});
    let status = json!({"status": {"conditions": [ready]}});
    door.patch(&format!("{RANGES}/more/status"), MERGE, status).await.is(200);
    ask("a", "203.0.113.10").await.is(201);
    ask("b", "203.0.113.10").await.is(422);

    // One that is to go gives nothing any more; what it gave is kept.
    door.delete(&format!("{RANGES}/more")).await.is(200);
    ask("b", "203.0.113.11").await.is(422);
    door.get(&format!("{ADDRESSES}/203.0.113.10")).await.is(200);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    door.patch(&format!("{SERVICES}/a"), MERGE, label).await.is(200);
}
