//! Descriptions of the API over HTTPS: named by their content, so that clients can keep them.

use crate::house::{Door, JSON, Who};
use serde_json::Value;

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

fn location(index: &Value, name: &str) -> String {
    index["paths"][name]["serverRelativeURL"].as_str().expect(name).to_owned()
}

#[tokio::test]
async fn the_index_leads_to_a_document_for_each_group_and_version() {
    let door = Door::open().await;
    let index = door.get("/openapi/v3").await.is(200).body;
    for name in ["api/v1", "apis/apps/v1", "apis/storage.k8s.io/v1", "apis/storage.k8s.io/v1beta1"]
    {
        let reply = door.get(&location(&index, name)).await.is(200);
        assert_eq!(reply.body["openapi"], "3.0.0");
        let cached = reply.headers["cache-control"].to_str().unwrap();
        assert!(cached.contains("immutable"), "{cached}");
    }
    let reply = door.get("/openapi/v3/apis/apps/v1").await.is(200);
    assert_eq!(reply.headers["cache-control"], "no-cache, private");
    door.get("/openapi/v3/apis/apps/v9").await.is(404);
    door.call_as(Who::Guest, "GET", "/openapi/v3", &[], b"").await.is(403);
    door.call_as(Who::Nobody, "GET", "/openapi/v3", &[], b"").await.is(401);
}

#[tokio::test]
async fn a_document_that_the_client_has_is_not_sent_again() {
    let door = Door::open().await;
    for path in ["/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1"] {
        let tag = door.get(path).await.is(200).headers["etag"].to_str().unwrap().to_owned();
        let headers = [("if-none-match", tag.as_str()), ("accept", JSON)];
        let again = door.call_as(Who::Admin, "GET", path, &headers, b"").await.is(304);
        assert!(again.text.is_empty());
    }
}

#[tokio::test]
async fn an_outdated_name_leads_to_the_current_one() {
    let door = Door::open().await;
    let index = door.get("/openapi/v3").await.is(200).body;
    let reply = door.get("/openapi/v3/apis/apps/v1?hash=0").await.is(301);
    assert_eq!(reply.headers["location"], *location(&index, "apis/apps/v1"));
}

#[tokio::test]
async fn documents_come_as_asked() {
    let door = Door::open().await;
    let ask = |accept: &'static str, encoding: &'static str| {
        let door = &door;
        async move {
            let headers = [("accept", accept), ("accept-encoding", encoding)];
            door.call_as(Who::Admin, "GET", "/openapi/v2", &headers, b"").await
        }
    };
    assert_eq!(ask(JSON, "identity").await.is(200).body["swagger"], "2.0");
    let zipped = ask(JSON, "gzip").await.is(200);
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    // Once: what kubectl takes for protobuf must not be another archive.
    let zipped = ask(PROTOBUF, "gzip").await.is(200);
    assert_eq!(zipped.headers.get_all("content-encoding").iter().count(), 1);
    assert_eq!(zipped.headers.get_all("vary").iter().count(), 1);
    let protobuf = ask(PROTOBUF, "identity").await.is(200);
    assert_eq!(
        protobuf.headers["content-type"],
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    ask("text/html", "identity").await.is(406);
}

/// kubectl creates a review only after it has seen that the review is no custom kind.
#[tokio::test]
async fn there_are_no_custom_kinds() {
    let door = Door::open().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let list = door.get(path).await.is(200).body;
    assert_eq!(list["kind"], "CustomResourceDefinitionList");
    assert_eq!(list["items"], serde_json::json!([]));
    door.post(path, serde_json::json!({})).await.is(404);
}
