//! Events: two faces of the same objects, counted up, combined, and gone with their namespace.

use crate::house::{Door, JSON, object};
use api::core::v1::ConfigMap;
use serde_json::{Value, json};
use world::Event;

const CORE: &str = "/api/v1/namespaces/default/events";
const HERE: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn event(name: &str) -> Value {
    json!({"metadata": {"name": name}, "eventTime": "2026-01-01T00:00:00.000001Z",
        "reportingController": "example.com/x", "reportingInstance": "x-1", "action": "Look",
        "reason": "Seen", "note": "hello", "type": "Normal",
        "regarding": {"kind": "ConfigMap", "name": "m", "namespace": "default", "apiVersion": "v1"}})
}

#[tokio::test]
async fn an_event_has_two_faces() {
    let door = Door::open().await;
    let made = door.post(HERE, event("e")).await.is(201).body;
    assert_eq!(made["apiVersion"], "events.k8s.io/v1");
    assert_eq!(made["note"], "hello");
    let core = door.get(&format!("{CORE}/e")).await.is(200).body;
    assert_eq!((&core["message"], &core["apiVersion"]), (&json!("hello"), &json!("v1")));
    assert_eq!(core["involvedObject"]["name"], "m");
    assert_eq!(core["metadata"], made["metadata"]);

    let listed = door.get(&format!("{HERE}?fieldSelector=regarding.name%3Dm")).await.is(200).body;
    assert_eq!(listed["kind"], "EventList");
    assert_eq!(listed["apiVersion"], "events.k8s.io/v1");
    assert_eq!(listed["items"][0]["regarding"]["name"], "m");
    let none = door.get(&format!("{HERE}?fieldSelector=regarding.name%3Dn")).await.is(200).body;
    assert_eq!(none["items"], json!([]));
    assert_eq!(
        door.get(&format!("{HERE}?fieldSelector=involvedObject.name%3Dm")).await.is(400).message(),
        "field label not supported: involvedObject.name"
    );

    let path = format!("{HERE}/e");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    let merge = "application/merge-patch+json";
    let patched = door.patch(&path, merge, series).await.is(200).body;
    assert_eq!(patched["series"]["count"], 2);
    let refused = door.patch(&path, merge, json!({"note": "other"})).await.is(422);
    assert!(refused.message().contains("field is immutable"), "{}", refused.message());
    let core = door.patch(&format!("{CORE}/e"), merge, json!({"message": "other"})).await;
    assert_eq!(core.is(200).body["message"], "other");

    let mut lines = door.watch(&format!("{HERE}?watch=true&resourceVersion=0")).await;
    let first = lines.next().await.unwrap();
    assert_eq!(first["object"]["note"], "other");
    door.delete(&path).await.is(200);
    let last = lines.next().await.unwrap();
    assert_eq!((&last["type"], &last["object"]["note"]), (&json!("DELETED"), &json!("other")));
}

#[tokio::test]
async fn the_newer_face_is_stricter() {
    let door = Door::open().await;
    let mut bad = event("e");
    bad["deprecatedCount"] = json!(1);
    bad["eventTime"] = Value::Null;
    let refused = door.post(HERE, bad).await.is(422);
    assert!(refused.message().contains("eventTime: Required value"), "{}", refused.message());
    assert!(refused.message().contains("count: Invalid value"), "{}", refused.message());
    let mut unknown = event("e");
    unknown["message"] = json!("hello");
    let path = format!("{HERE}?fieldValidation=Strict");
    let refused = door.call("POST", &path, JSON, &unknown.to_string()).await.is(400);
    assert!(refused.message().contains("unknown field \"message"), "{}", refused.message());
}

/// The events of a namespace once there are as many as `enough` asks for.
async fn events(door: &Door, namespace: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let mut lines = door.watch(&format!("{path}?watch=true&resourceVersion=0")).await;
    loop {
        let listed = door.get(&path).await.is(200).body;
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        if enough(&items) {
            return items;
        }
        lines.next().await.expect("the watch goes on");
    }
}

#[tokio::test]
async fn what_is_told_again_is_counted_and_what_is_similar_is_combined() {
    let door = Door::open().await;
    let client = door.server.client("system:serviceaccount:kube-system:test-controller");
    let about: ConfigMap =
        object(json!({"metadata": {"name": "m", "namespace": "default", "uid": "u"}}));
    for _ in 0..3 {
        client.record(Event::normal(&about, "Again", "the same"));
    }
    let told = events(&door, "default", |it| it.len() == 1 && it[0]["count"] == 3).await;
    assert_eq!(told[0]["message"], "the same");
    assert_eq!(told[0]["source"], json!({"component": "test-controller"}));

    for n in 0..15 {
        client.record(Event::warning(&about, "Various", format!("number {n}")));
    }
    let combined = |it: &Value| {
        it["message"].as_str().is_some_and(|it| it.starts_with("(combined from similar events)"))
    };
    let told =
        events(&door, "default", |it| it.iter().any(|it| combined(it) && it["count"] == 6)).await;
    assert_eq!(told.iter().filter(|it| it["reason"] == "Various").count(), 10);
    let last = told.iter().find(|it| combined(it)).unwrap();
    assert_eq!(last["message"], "(combined from similar events): number 14");
}

#[tokio::test]
async fn events_go_with_their_namespace() {
    let door = Door::open().await;
    door.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.is(201);
    let client = door.server.client("system:serviceaccount:kube-system:test-controller");
    let about: ConfigMap = object(json!({"metadata": {"name": "m", "namespace": "n", "uid": "u"}}));
    client.record(Event::normal(&about, "Made", "made"));
    events(&door, "n", |it| it.len() == 1).await;
    door.delete("/api/v1/namespaces/n").await.is(200);
    events(&door, "n", <[Value]>::is_empty).await;
}
