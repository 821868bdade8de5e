//! Answers in protobuf, and large ones made smaller.

use crate::house::{Door, Reply, Who};
use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::io::Read;

pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";

pub(crate) async fn ask(door: &Door, method: &str, path: &str, accept: &str, body: &[u8]) -> Reply {
    let headers = [("accept", accept), ("content-type", PROTOBUF)];
    door.call_as(Who::Admin, method, path, &headers, body).await
}

fn set() -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "serviceName": "web", "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "c", "image": "a:1",
                    "resources": {"requests": {"cpu": "100m"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
                    "ports": [{"containerPort": 80, "name": "http"}],
                }]},
            },
        },
    })
}

#[tokio::test]
async fn an_object_read_in_protobuf_can_be_written_back_as_it_is() {
    let door = Door::open().await;
    door.post(SETS, set()).await.is(201);
    let path = format!("{SETS}/web");
    let before = door.get(&path).await.is(200);
    let read = ask(&door, "GET", &path, PROTOBUF, b"").await.is(200);
    assert_eq!(read.headers["content-type"], PROTOBUF);
    assert_eq!(&read.bytes[..4], b"k8s\0");
    // Written back it is no change, managedFields included, and the answer is in protobuf again.
    let written = ask(&door, "PUT", &path, PROTOBUF, &read.bytes).await.is(200);
    assert_eq!(written.bytes, read.bytes);
    assert_eq!(door.get(&path).await.body, before.body);
    door.delete(&path).await.is(200);
    let gone = ask(&door, "GET", &path, PROTOBUF, b"").await.is(404);
    assert_eq!(&gone.bytes[..4], b"k8s\0", "refusals are in protobuf, too");
    assert!(gone.text.contains("statefulsets.apps \"web\" not found"), "{:?}", gone.text);
}

#[tokio::test]
async fn lists_and_metadata_alone_come_in_protobuf_and_tables_do_not() {
    let door = Door::open().await;
    for name in ["a", "b"] {
        door.post(MAPS, json!({"metadata": {"name": name}, "data": {"k": "secret-value"}}))
            .await
            .is(201);
    }
    let list = ask(&door, "GET", MAPS, PROTOBUF, b"").await.is(200);
    assert!(list.text.contains("ConfigMapList") && list.text.contains("secret-value"));
    let partial = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let metadata = ask(&door, "GET", MAPS, &partial, b"").await.is(200);
    assert!(metadata.text.contains("PartialObjectMetadataList"));
    assert!(!metadata.text.contains("secret-value"));
    let table = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    ask(&door, "GET", MAPS, &table, b"").await.is(406);
    let table = format!("{table},application/json;as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(ask(&door, "GET", MAPS, &table, b"").await.is(200).body["kind"], "Table");
}

#[tokio::test]
async fn a_watch_in_protobuf_comes_in_frames() {
    let door = Door::open().await;
    let path = format!(
        "{MAPS}?watch=1&resourceVersion=0&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    let mut answer = door.stream(&path, &format!("{PROTOBUF};stream=watch")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], format!("{PROTOBUF};stream=watch"));
    door.post(MAPS, json!({"metadata": {"name": "later"}})).await.is(201);
    let mut rest: Vec<u8> = Vec::new();
    let mut told: Vec<String> = Vec::new();
    while !told.iter().any(|it| it.contains("later")) {
        while rest.len() < 4 || rest.len() < 4 + length(&rest) {
            let frame = answer.body_mut().frame().await.expect("the watch goes on").unwrap();
            rest.extend_from_slice(&frame.into_data().unwrap());
        }
        let event: Vec<u8> = rest.drain(..4 + length(&rest)).skip(4).collect();
        told.push(String::from_utf8_lossy(&event).into_owned());
    }
    let find = |text: &str| told.iter().position(|it| it.contains(text));
    assert!(find("BOOKMARK").unwrap() < find("later").unwrap(), "{told:?}");
    assert!(told.iter().all(|it| it.contains("k8s\0")), "each object has its envelope");
}

fn length(frame: &[u8]) -> usize {
    u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize
}

#[tokio::test]
async fn large_answers_are_made_smaller_for_who_takes_them_so() {
    let door = Door::open().await;
    let data = json!({"metadata": {"name": "m"}, "data": {"k": "x".repeat(200 * 1024)}});
    door.post(MAPS, data).await.is(201);
    let get = async |path: &str, encoding: &str| {
        door.call_as(Who::Admin, "GET", path, &[("accept-encoding", encoding)], b"").await
    };
    let plain = get(MAPS, "identity").await.is(200);
    assert!(plain.headers.get("content-encoding").is_none());
    let small = get(MAPS, "deflate, gzip;q=1.0").await.is(200);
    assert_eq!(small.headers["content-encoding"], "gzip");
    assert_eq!(small.headers["vary"], "Accept-Encoding");
    let mut text = String::new();
    GzDecoder::new(&small.bytes[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain.text);
    assert!(small.bytes.len() < 4096);
    let little = get("/api/v1/namespaces/default", "gzip").await.is(200);
    assert!(little.headers.get("content-encoding").is_none(), "it is not worth it");
}

#[tokio::test]
async fn cbor_is_refused_as_long_as_it_is_off() {
    let door = Door::open().await;
    ask(&door, "GET", MAPS, "application/cbor", b"").await.is(406);
    let accept = [("accept", "application/json"), ("content-type", "application/cbor")];
    door.call_as(Who::Admin, "POST", MAPS, &accept, b"\xa0").await.is(415);
    let apply = [("content-type", "application/apply-patch+cbor")];
    let path = format!("{MAPS}/m?fieldManager=a");
    door.call_as(Who::Admin, "PATCH", &path, &apply, b"\xa0").await.is(415);
}

/// What client-go sends to the paths of parts.
#[tokio::test]
async fn a_scale_in_protobuf_is_read_and_written_back() {
    let door = Door::open().await;
    door.post(SETS, set()).await.is(201);
    let path = format!("{SETS}/web/scale");
    let scale = ask(&door, "GET", &path, PROTOBUF, b"").await.is(200);
    assert!(scale.text.contains("autoscaling/v1"), "{:?}", scale.text);
    ask(&door, "PUT", &path, PROTOBUF, &scale.bytes).await.is(200);
    assert_eq!(door.get(&path).await.body["spec"]["replicas"], 0);
}
