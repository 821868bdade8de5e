//! Watches: nothing is missed, nothing told twice, and a forgotten past is said to be forgotten.

use crate::house::{Door, STRATEGIC};
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(door: &Door, name: &str) -> String {
    let made = door.post(MAPS, json!({"metadata": {"name": name}})).await.is(201);
    made.body["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn begins_with_what_is_there_and_goes_on() {
    let door = Door::open().await;
    make(&door, "a").await;
    let mut watch = door.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(watch.told().await, "ADDED a");
    make(&door, "b").await;
    door.patch(&format!("{MAPS}/a"), STRATEGIC, json!({"data": {"x": "y"}})).await.is(200);
    door.delete(&format!("{MAPS}/b")).await.is(200);
    assert_eq!(watch.told().await, "ADDED b");
    assert_eq!(watch.told().await, "MODIFIED a");
    let deleted = watch.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    let latest = door.store.latest().await.unwrap().to_string();
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], latest, "of the deletion");
}

#[tokio::test]
async fn resumes_where_it_was() {
    let door = Door::open().await;
    let at = make(&door, "a").await;
    make(&door, "b").await;
    make(&door, "c").await;
    let mut watch = door.watch(&format!("{MAPS}?watch=1&resourceVersion={at}")).await;
    assert_eq!(watch.told().await, "ADDED b");
    assert_eq!(watch.told().await, "ADDED c");
}

#[tokio::test]
async fn what_was_before_the_server_began_is_forgotten() {
    let door = Door::open().await;
    make(&door, "a").await;
    // A second server on the same ledger knows only what comes after its start.
    let second = Door::open_on(door.store.clone()).await;
    let mut watch = second.watch(&format!("{MAPS}?watch=1&resourceVersion=1")).await;
    let told = watch.next().await.unwrap();
    assert_eq!((&told["type"], &told["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(told["object"]["reason"], "Expired");
    let message = told["object"]["message"].as_str().unwrap();
    assert!(message.starts_with("too old resource version: 1 ("), "{message}");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_selector_sees_objects_come_and_go() {
    let door = Door::open().await;
    make(&door, "a").await;
    let mut watch = door.watch(&format!("{MAPS}?watch=1&labelSelector=on")).await;
    let label = |value: serde_json::Value| json!({"metadata": {"labels": {"on": value}}});
    let path = format!("{MAPS}/a");
    for value in [json!("1"), json!("2"), json!(null), json!("3")] {
        door.patch(&path, STRATEGIC, label(value)).await.is(200);
    }
    door.delete(&path).await.is(200);
    for expected in ["ADDED a", "MODIFIED a", "DELETED a", "ADDED a", "DELETED a"] {
        assert_eq!(watch.told().await, expected);
    }
    let mut named = door.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dx")).await;
    make(&door, "w").await;
    make(&door, "x").await;
    assert_eq!(named.told().await, "ADDED x");
}

#[tokio::test]
async fn says_when_everything_was_sent() {
    let door = Door::open().await;
    make(&door, "a").await;
    let query =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = door.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.told().await, "ADDED a");
    let end = watch.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["kind"], "ConfigMap");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let latest = door.store.latest().await.unwrap().to_string();
    assert_eq!(end["object"]["metadata"]["resourceVersion"], latest);
    door.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await.is(422);
}

#[tokio::test]
async fn ends_when_its_time_is_over() {
    let door = Door::open().await;
    let mut watch = door.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1")).await;
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn comes_as_tables_too() {
    let door = Door::open().await;
    make(&door, "a").await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut watch = door.watch_as(&format!("{MAPS}?watch=1"), accept).await;
    let first = watch.next().await.unwrap();
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert!(!first["object"]["columnDefinitions"].as_array().unwrap().is_empty());
    make(&door, "b").await;
    let second = watch.next().await.unwrap();
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
    assert!(second["object"]["columnDefinitions"].as_array().unwrap().is_empty(), "told once");
}

#[tokio::test]
async fn events_are_watched_like_any_kind() {
    let door = Door::open().await;
    let client = door.server.client("system:serviceaccount:kube-system:tester");
    make(&door, "m").await;
    let mut watch = door
        .watch(
            "/api/v1/namespaces/default/events?watch=1&fieldSelector=metadata.namespace%3Ddefault",
        )
        .await;
    let key = world::ObjectKey::new("default", "m");
    let about = client.world().get::<api::core::v1::ConfigMap>(&key).unwrap();
    for _ in 0..2 {
        client.record(world::Event::warning(&*about, "Odd", "looks odd"));
    }
    let first = watch.next().await.unwrap();
    let event = &first["object"];
    assert_eq!((&first["type"], &event["reason"]), (&json!("ADDED"), &json!("Odd")));
    assert_eq!(event["involvedObject"]["kind"], "ConfigMap");
    assert_eq!(event["source"]["component"], "tester");
    let second = watch.next().await.unwrap();
    assert_eq!((&second["type"], &second["object"]["count"]), (&json!("MODIFIED"), &json!(2)));
    assert_eq!(second["object"]["metadata"]["uid"], event["metadata"]["uid"]);
    let listed = door.get("/api/v1/events").await.is(200);
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
    assert!(client.world().table::<api::core::v1::Event>().is_none(), "outside the world");
}

#[tokio::test]
async fn many_watchers_see_every_change_in_order() {
    let door = std::sync::Arc::new(Door::open().await);
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut watch = door.watch(&format!("{MAPS}?watch=1")).await;
        watchers.spawn(async move {
            let mut last = 0;
            for n in 0..100 {
                let event = watch.next().await.expect("the watch goes on");
                let revision = event["object"]["metadata"]["resourceVersion"].as_str().unwrap();
                let revision: u64 = revision.parse().unwrap();
                assert!(revision > last, "event {n} at {revision} after {last}");
                last = revision;
            }
        });
    }
    let client = door.server.client("tester");
    for n in 0..100 {
        let map = crate::house::object::<api::core::v1::ConfigMap>(
            json!({"metadata": {"name": format!("m{n:03}"), "namespace": "default"}}),
        );
        client.write(vec![world::Change::create(map)]).await.unwrap();
    }
    watchers.join_all().await;
}

/// Each cell of the table in upstream's "Resource versions" (Using API > API concepts), for watches.
#[tokio::test]
async fn every_version_and_match_begins_where_it_says() {
    let door = Door::open().await;
    make(&door, "a").await;
    let at = make(&door, "b").await;
    make(&door, "c").await;
    let begin = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let go_on = "sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    let all = ["ADDED a", "ADDED b", "ADDED c", "ADDED d"];
    let bookmarked = ["ADDED a", "ADDED b", "ADDED c", "BOOKMARK", "ADDED d"];
    let mut cells: Vec<(String, &[&str])> = vec![
        // What is there, then what comes.
        (String::new(), &all),
        ("resourceVersion=".to_owned(), &all),
        ("resourceVersion=0".to_owned(), &all),
        (begin.to_owned(), &all),
        (format!("{begin}&resourceVersion=0"), &all),
        (format!("{begin}&resourceVersion=AT"), &all),
        (format!("{begin}&allowWatchBookmarks=true"), &bookmarked),
        (format!("{begin}&resourceVersion=AT&allowWatchBookmarks=true"), &bookmarked),
        // What comes after.
        ("resourceVersion=AT".to_owned(), &all[2..]),
        ("resourceVersion=AT&allowWatchBookmarks=true".to_owned(), &all[2..]),
        (format!("{go_on}&resourceVersion=AT"), &all[2..]),
        (go_on.to_owned(), &all[3..]),
    ];
    let mut watches = Vec::new();
    for (query, expected) in cells.drain(..) {
        let query = query.replace("AT", &at);
        let watch = door.watch(&format!("{MAPS}?watch=1&{query}")).await;
        watches.push((query, watch, expected));
    }
    make(&door, "d").await;
    for (query, mut watch, expected) in watches {
        for expected in expected {
            assert_eq!(watch.told().await, *expected, "{query}");
        }
    }
    for (query, code) in [
        ("resourceVersionMatch=NotOlderThan", 422),
        ("resourceVersionMatch=Exact&resourceVersion=AT", 422),
        ("sendInitialEvents=true", 422),
        ("sendInitialEvents=true&resourceVersionMatch=Exact", 422),
        ("sendInitialEvents=false", 422),
        ("resourceVersion=x", 400),
        ("timeoutSeconds=-1", 400),
        ("timeoutSeconds=x", 400),
    ] {
        let query = query.replace("AT", &at);
        door.get(&format!("{MAPS}?watch=1&{query}")).await.is(code);
    }
}
