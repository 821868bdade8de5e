//! Whatever comes in that is no request, or no object: the answer is a `Status` that says what is
//! wrong, nothing is changed, and the door stays open.

use crate::house::{Door, JSON, Reply, STRATEGIC, Who};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const SERVICES: &str = "/api/v1/namespaces/default/services";

#[track_caller]
fn refused(reply: &Reply, code: u16, reason: &str, words: &str) {
    assert_eq!(reply.code, code, "{}", reply.text);
    assert_eq!(reply.body["kind"], "Status", "{}", reply.text);
    assert_eq!(reply.body["status"], "Failure");
    assert_eq!(reply.body["code"], code);
    assert_eq!(reply.body["reason"], reason, "{}", reply.text);
    assert!(reply.message().contains(words), "{words:?} is not in {:?}", reply.message());
}

async fn nothing_is_there(door: &Door) {
    for path in [PODS, CLAIMS, SETS] {
        assert_eq!(door.get(path).await.is(200).body["items"], json!([]), "{path}");
    }
}

#[tokio::test]
async fn bodies_that_are_no_objects() {
    let door = Door::open().await;
    let deep = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    let deep_list = format!("{{\"data\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    let yaml = "application/yaml";
    let cases: &[(&str, &[u8])] = &[
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b"null"),
        (JSON, b"[]"),
        (JSON, b"\"x\""),
        (JSON, b"17"),
        (JSON, b"{\"metadata\":{\"name\":\"m\"}} trailing"),
        (JSON, b"{\"metadata\":{\"name\":\"m\",}}"),
        (JSON, b"{\"metadata\":\"m\"}"),
        (JSON, b"{\"metadata\":{\"name\":7}}"),
        (JSON, b"{\"metadata\":{\"name\":\"m\"},\"data\":{\"a\":1}}"),
        (JSON, b"{\"metadata\":{\"name\":\"\xff\xfe\"}}"),
        (JSON, b"\0\0\0\0"),
        (JSON, deep.as_bytes()),
        (JSON, deep_list.as_bytes()),
        (yaml, b"a: b: c"),
        (yaml, b"metadata: {name: m"),
        (yaml, b"\tmetadata: {}"),
        (yaml, b"- a\n- b"),
        (yaml, b"metadata: {name: m}\n---\nmetadata: {name: n}\n"),
        (yaml, bomb.as_bytes()),
        (yaml, b"metadata:\n  name: \xff\n"),
        ("application/vnd.kubernetes.protobuf", b"k8s\0\xff\xff\xff\xff\xff"),
        ("application/vnd.kubernetes.protobuf", b"not protobuf"),
    ];
    for (content_type, body) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let headers = [("content-type", *content_type)];
        let reply = door.call_as(Who::Admin, "POST", MAPS, &headers, body).await;
        assert!(matches!(reply.code, 400 | 422), "{shown:?}: {} {}", reply.code, reply.text);
        assert_eq!(reply.body["status"], "Failure", "{shown:?}");
        assert!(!reply.message().is_empty(), "{shown:?}");
    }
    let reply = door.call("POST", MAPS, "text/plain", "x").await;
    refused(&reply, 415, "UnsupportedMediaType", "unknown format");
    let reply = door.patch(&format!("{MAPS}/m"), "application/x", json!({})).await;
    refused(&reply, 415, "UnsupportedMediaType", "");
    assert_eq!(door.get(MAPS).await.is(200).body["items"], json!([]));
}

#[tokio::test]
async fn objects_that_are_too_large() {
    let door = Door::open().await;
    let large = |bytes: usize| json!({"metadata": {"name": "m"}, "data": {"a": "x".repeat(bytes)}});
    let reply = door.post(MAPS, large(3 * 1024 * 1024)).await;
    refused(&reply, 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728");
    let reply = door.post(MAPS, large(2 * 1024 * 1024)).await;
    refused(&reply, 422, "Invalid", "Too long: may not be more than 1048576 bytes");
    // What the kind allows and the ledger does not.
    let many: Value =
        (0..4000).map(|n| json!({"name": format!("v{n}"), "value": "x".repeat(480)})).collect();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "image": "i", "env": many}]}});
    let reply = door.post(PODS, pod).await;
    refused(&reply, 413, "RequestEntityTooLarge", "Request entity too large");
    let annotation = json!({"metadata": {"name": "m", "annotations": {"a": "x".repeat(300_000)}}});
    let reply = door.post(MAPS, annotation).await;
    refused(
        &reply,
        422,
        "Invalid",
        "metadata.annotations: Too long: may not be more than 262144 bytes",
    );
    nothing_is_there(&door).await;
}

fn set(change: impl Fn(&mut Value)) -> Value {
    let mut set = json!({"metadata": {"name": "web"}, "spec": {"serviceName": "web", "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    change(&mut set);
    set
}

#[tokio::test]
async fn values_that_make_no_sense() {
    let door = Door::open().await;
    let claim = |size: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    let service =
        |port: i64| json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": port}]}});
    let mount = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i",
        "volumeMounts": [{"name": "nowhere", "mountPath": "/x"}]}]}});
    let cases = [
        (
            SETS,
            set(|it| it["spec"]["replicas"] = json!(-1)),
            "spec.replicas",
            "Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            SETS,
            set(|it| it["spec"]["selector"]["matchLabels"]["app"] = json!("db")),
            "spec.template.metadata.labels",
            "`selector` does not match template `labels`",
        ),
        (SERVICES, service(99_999), "spec.ports[0].port", "must be between 1 and 65535, inclusive"),
        (SERVICES, service(0), "spec.ports[0].port", "must be between 1 and 65535, inclusive"),
        (CLAIMS, claim("0"), "spec.resources[storage]", "must be greater than zero"),
        (CLAIMS, claim("-1Gi"), "spec.resources[storage]", "must be greater than zero"),
        (PODS, mount, "spec.containers[0].volumeMounts[0].name", "Not found: \"nowhere\""),
        (MAPS, json!({"metadata": {"name": "a/b"}}), "metadata.name", "RFC 1123 subdomain"),
        (MAPS, json!({"metadata": {"name": "A"}}), "metadata.name", "RFC 1123 subdomain"),
        (MAPS, json!({"metadata": {"name": "a\u{0}b"}}), "metadata.name", "RFC 1123 subdomain"),
        (MAPS, json!({"metadata": {"name": "x".repeat(254)}}), "metadata.name", "no more than 253"),
        (
            MAPS,
            json!({"metadata": {"name": "m", "labels": {"a": "b c"}}}),
            "metadata.labels",
            "a valid label",
        ),
        (
            MAPS,
            json!({"metadata": {"name": "m", "labels": {"a": "x".repeat(64)}}}),
            "metadata.labels",
            "no more than 63",
        ),
        (
            MAPS,
            json!({"metadata": {"name": "m"}, "data": {"a/b": ""}}),
            "data[a/b]",
            "a valid config key",
        ),
        (MAPS, json!({"metadata": {}}), "metadata.name", "name or generateName is required"),
    ];
    for (path, body, field, words) in cases {
        let reply = door.post(path, body).await;
        refused(&reply, 422, "Invalid", words);
        let causes = reply.body["details"]["causes"].as_array().cloned().unwrap_or_default();
        assert!(causes.iter().any(|it| it["field"] == field), "{field}: {}", reply.text);
    }
    for body in [
        r#"{"metadata":{"name":"web"},"spec":{"replicas":"three"}}"#,
        r#"{"metadata":{"name":"web"},"spec":{"replicas":1e99}}"#,
        r#"{"metadata":{"name":"web"},"spec":{"replicas":99999999999999999999}}"#,
        r#"{"metadata":{"name":"web"},"spec":[]}"#,
    ] {
        let reply = door.call("POST", SETS, JSON, body).await;
        refused(
            &reply,
            400,
            "BadRequest",
            "StatefulSet in version \"v1\" cannot be handled as a StatefulSet",
        );
    }
    nothing_is_there(&door).await;
}

#[tokio::test]
async fn changes_of_what_does_not_change() {
    let door = Door::open().await;
    door.post(SETS, set(|_| {})).await.is(201);
    let path = format!("{SETS}/web");
    for change in [
        json!({"spec": {"serviceName": "other"}}),
        json!({"spec": {"podManagementPolicy": "Parallel"}}),
        json!({"spec": {"selector": {"matchLabels": {"x": "y"}}, "template": {"metadata": {"labels": {"x": "y"}}}}}),
    ] {
        let reply = door.patch(&path, STRATEGIC, change).await;
        refused(
            &reply,
            422,
            "Invalid",
            "spec: Forbidden: updates to statefulset spec for fields other than",
        );
        assert_eq!(reply.body["details"]["causes"][0]["field"], "spec");
    }
    let reply = door.patch(&path, STRATEGIC, json!({"metadata": {"name": "other"}})).await;
    refused(&reply, 400, "BadRequest", "does not match the name on the URL (web)");
    let reply = door.patch(&path, STRATEGIC, json!({"metadata": {"uid": "other"}})).await;
    refused(&reply, 409, "Conflict", "Precondition failed: UID in precondition: other");
    for patch in ["{", "[]", "\"x\"", ""] {
        for kind in [STRATEGIC, "application/merge-patch+json", "application/json-patch+json"] {
            if (patch, kind) == ("[]", "application/json-patch+json") {
                continue;
            }
            let reply = door.call("PATCH", &path, kind, patch).await;
            assert!(matches!(reply.code, 400 | 422), "{patch} {kind}: {}", reply.text);
        }
    }
    let steps = json!([{"op": "test", "path": "/spec/replicas", "value": 9}]);
    let reply = door.patch(&path, "application/json-patch+json", steps).await;
    refused(&reply, 422, "Invalid", "");
    let left = door.get(&path).await.is(200).body;
    assert_eq!(left["metadata"]["generation"], 1);
}

#[tokio::test]
async fn deletions_that_make_no_sense() {
    let door = Door::open().await;
    door.post(MAPS, json!({"metadata": {"name": "m"}})).await.is(201);
    let path = format!("{MAPS}/m");
    for (body, code) in [
        (r#"{"gracePeriodSeconds":"soon"}"#, 400),
        (r#"{"dryRun":"All"}"#, 400),
        (r#"{"dryRun":["Some"]}"#, 422),
        (r#"{"propagationPolicy":"Sideways"}"#, 422),
        (r#"{"propagationPolicy":"Orphan","orphanDependents":true}"#, 422),
        (r#"{"kind":"Pod"}"#, 400),
        ("[]", 400),
        ("{", 400),
    ] {
        let reply = door.call("DELETE", &path, JSON, body).await;
        assert_eq!(reply.code, code, "{body}: {}", reply.text);
        assert_eq!(reply.body["status"], "Failure");
    }
    let reply = door.call("DELETE", &path, JSON, r#"{"propagationPolicy":"Sideways"}"#).await;
    let details = &reply.body["details"];
    assert_eq!(
        (&details["kind"], &details["group"]),
        (&json!("DeleteOptions"), &json!("meta.k8s.io"))
    );
    assert_eq!(details["causes"][0]["field"], "propagationPolicy");
    assert_eq!(details["causes"][0]["reason"], "FieldValueNotSupported");
    door.get(&path).await.is(200);
    let asked = r#"{"preconditions":{"uid":"other"}}"#;
    let reply = door.call("DELETE", &path, JSON, asked).await;
    refused(&reply, 409, "Conflict", "does not match the UID in record");
    let reply = door.call("DELETE", &path, JSON, r#"{"dryRun":["All"]}"#).await;
    assert_eq!(reply.code, 200);
    door.get(&path).await.is(200);
}

#[tokio::test]
async fn paths_and_queries_that_lead_nowhere() {
    let door = Door::open().await;
    door.post(MAPS, json!({"metadata": {"name": "m"}})).await.is(201);
    for path in [
        "/api/v1/namespaces/default/nonsense",
        "/apis/nonsense/v1/things",
        "/apis/apps/v9/statefulsets",
        "/api/v1/namespaces/default/configmaps/m/nonsense",
        "/nonsense",
        "//",
        "/api/v1/configmaps/m",
    ] {
        assert_eq!(door.get(path).await.code, 404, "{path}");
    }
    for path in [
        format!("{MAPS}/a%2Fb"),
        format!("{MAPS}/%00"),
        format!("{MAPS}/.."),
        format!("{MAPS}/%2e%2e"),
        format!("{MAPS}/%zz"),
        format!("{MAPS}/%"),
        format!("{MAPS}/%ff%fe"),
    ] {
        let reply = door.get(&path).await;
        assert!(matches!(reply.code, 400 | 404), "{path}: {} {}", reply.code, reply.text);
    }
    // What nobody knows is not asked for.
    door.get(&format!("{MAPS}?nonsense=1&watch=maybe")).await.is(200);
    for (query, code, words) in [
        ("limit=many", 400, "limit"),
        ("resourceVersion=new", 400, "new"),
        ("resourceVersion=-1", 400, "-1"),
        ("continue=nonsense", 400, "continue key is not valid"),
        ("labelSelector=a%20b", 400, "unable to parse requirement"),
        ("labelSelector=a%20in%20(", 400, "unable to parse requirement"),
        ("fieldSelector=a", 400, "invalid selector"),
        ("fieldSelector=spec.nonsense%3Dx", 400, "not a known field selector"),
        (
            "resourceVersionMatch=Exact",
            422,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        ("watch=true&timeoutSeconds=long", 400, "timeoutSeconds"),
        ("watch=true&resourceVersion=99999999", 504, "Too large resource version: 99999999"),
        ("resourceVersion=99999999", 504, "Too large resource version: 99999999"),
        (
            "watch=true&sendInitialEvents=true",
            422,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
    ] {
        let reply = door.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(reply.code, code, "{query}: {}", reply.text);
        assert!(reply.message().contains(words), "{query}: {}", reply.message());
    }
    let labels: Vec<String> = (0..3000).map(|n| format!("key{n}!=value{n}")).collect();
    let huge = door.get(&format!("{MAPS}?labelSelector={}", labels.join(","))).await;
    assert!(matches!(huge.code, 200 | 414 | 431), "{}", huge.code);
    for method in ["PUT", "PATCH", "POST"] {
        let path = if method == "POST" { format!("{MAPS}/m") } else { MAPS.to_owned() };
        let reply = door.call(method, &path, JSON, "{}").await;
        assert_eq!(reply.code, 405, "{method} {path}: {}", reply.text);
    }
    assert_eq!(door.get(MAPS).await.is(200).body["items"].as_array().unwrap().len(), 1);
}
