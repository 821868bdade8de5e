//! Server-side apply and the owners of fields, through the real door.

use crate::house::{Door, JSON, Reply, STRATEGIC};
use serde_json::{Value, json};

const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

fn set(replicas: Option<i32>, image: &str) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "serviceName": "web",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80}]}]},
            },
        },
    });
    if let Some(replicas) = replicas {
        set["spec"]["replicas"] = replicas.into();
    }
    set
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

async fn apply(door: &Door, path: &str, manager: &str, config: &Value) -> Reply {
    door.patch(&format!("{path}?fieldManager={manager}"), APPLY, config.clone()).await
}

/// `manager operation version subresource` → fields, by name: in one second the order is theirs, too.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let name = |it: &Value| {
        let text = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(it["fieldsType"], "FieldsV1");
        assert!(text("time").ends_with('Z'), "{it}");
        format!(
            "{} {} {} {}",
            text("manager"),
            text("operation"),
            text("apiVersion"),
            text("subresource")
        )
        .trim()
        .to_owned()
    };
    let mut owners: Vec<_> = entries.iter().map(|it| (name(it), it["fieldsV1"].clone())).collect();
    owners.sort_by(|a, b| a.0.cmp(&b.0));
    owners
}

fn names(object: &Value) -> Vec<String> {
    owners(object).into_iter().map(|it| it.0).collect()
}

#[tokio::test]
async fn what_a_client_creates_is_its_own_and_what_the_server_adds_is_nobodys() {
    let door = Door::open().await;
    let made = door.post(&format!("{SETS}?fieldManager=me"), set(Some(0), "a:1")).await.is(201);
    let own = owners(&made.body);
    assert_eq!(own[0].0, "me Update apps/v1");
    assert_eq!(
        own[0].1,
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:persistentVolumeClaimRetentionPolicy": {
                    ".": {}, "f:whenDeleted": {}, "f:whenScaled": {}},
                "f:podManagementPolicy": {}, "f:replicas": {}, "f:revisionHistoryLimit": {},
                "f:selector": {}, "f:serviceName": {},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {"k:{\"name\":\"c\"}": {
                            ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                            "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                                ".": {}, "f:containerPort": {}, "f:protocol": {}}},
                            "f:resources": {},
                            "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
                        }},
                        "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {},
                        "f:securityContext": {}, "f:terminationGracePeriodSeconds": {},
                    },
                },
                "f:updateStrategy": {
                    "f:rollingUpdate": {".": {}, "f:partition": {}}, "f:type": {}},
            },
        })
    );
}

#[tokio::test]
async fn a_configuration_makes_an_object_and_then_owns_it() {
    let door = Door::open().await;
    let path = format!("{SETS}/web");
    let made = apply(&door, &path, "a", &set(Some(3), "a:1")).await.is(201);
    assert_eq!(names(&made.body), ["a Apply apps/v1"]);
    let revision = made.body["metadata"]["resourceVersion"].clone();
    let again = apply(&door, &path, "a", &set(Some(3), "a:1")).await.is(200);
    assert_eq!(again.body["metadata"]["resourceVersion"], revision, "nothing changed");
    // Another author may say the same, and then both own it.
    let shared = apply(&door, &path, "b", &set(Some(3), "a:1")).await.is(200);
    assert_eq!(names(&shared.body), ["a Apply apps/v1", "b Apply apps/v1"]);
    let left = apply(&door, &path, "a", &set(None, "a:1")).await.is(200);
    assert_eq!(left.body["spec"]["replicas"], 3, "b still says so");
    let gone = apply(&door, &path, "b", &set(None, "a:1")).await.is(200);
    assert_eq!(gone.body["spec"]["replicas"], 1, "nobody does: the default");
}

#[tokio::test]
async fn who_would_overwrite_is_told_whom() {
    let door = Door::open().await;
    let path = format!("{SETS}/web");
    apply(&door, &path, "a", &set(Some(3), "a:1")).await.is(201);
    let scale = json!({"spec": {"replicas": 5}});
    let scaled = door.patch(&format!("{path}?fieldManager=hpa"), MERGE, scale).await.is(200);
    assert_eq!(names(&scaled.body), ["a Apply apps/v1", "hpa Update apps/v1"]);
    let refused = apply(&door, &path, "a", &set(Some(3), "a:1")).await.is(409);
    assert_eq!(
        refused.body,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409,
            "reason": "Conflict",
            "message": "Apply failed with 1 conflict: conflict with \"hpa\" using apps/v1: .spec.replicas",
            "details": {"causes": [{
                "reason": "FieldManagerConflict", "field": ".spec.replicas",
                "message": "conflict with \"hpa\" using apps/v1",
            }]},
        })
    );
    let both = apply(&door, &path, "b", &set(Some(4), "a:2")).await.is(409);
    assert_eq!(
        both.message(),
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.template.spec.containers[name=\"c\"].image\nconflicts with \"hpa\" using apps/v1:\n- .spec.replicas"
    );
    // Who says the same as the other is in nobody's way.
    apply(&door, &path, "c", &set(Some(5), "a:1")).await.is(200);
    let forced = door
        .patch(&format!("{path}?fieldManager=a&force=true"), APPLY, set(Some(3), "a:1"))
        .await
        .is(200);
    assert_eq!(forced.body["spec"]["replicas"], 3);
    assert!(!names(&forced.body).contains(&"hpa Update apps/v1".to_owned()));
    apply(&door, &path, "a", &set(Some(3), "a:1")).await.is(200);
}

#[tokio::test]
async fn what_is_no_configuration_is_refused() {
    let door = Door::open().await;
    let path = format!("{MAPS}/m");
    let yaml = |body: &'static str| {
        let path = format!("{path}?fieldManager=a");
        let door = &door;
        async move { door.call("PATCH", &path, APPLY, body).await }
    };
    yaml("a: [").await.is(400);
    yaml("[]").await.is(400);
    let other = yaml("apiVersion: v1\nkind: Pod\nmetadata: {name: m}").await.is(400);
    assert_eq!(other.message(), "invalid object type: /v1, Kind=Pod");
    let unknown =
        yaml("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\nfoo: 1").await.is(500);
    assert_eq!(
        unknown.message(),
        "failed to create typed patch object (/m; /v1, Kind=ConfigMap): .foo: field not declared in schema"
    );
    let owned = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, managedFields: []}";
    assert_eq!(yaml(owned).await.is(400).message(), "metadata.managedFields must be nil");
    let named = yaml("apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: m}").await.is(400);
    assert!(named.message().contains("name must be provided"), "{}", named.text);
    let gone = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, uid: x}";
    assert!(
        yaml(gone)
            .await
            .is(409)
            .message()
            .contains("uid mismatch: the provided object specified uid x")
    );
    assert_eq!(door.get(&path).await.code, 404);
    door.patch(&path, APPLY, map(json!({}))).await.is(422);
    let forced = format!("{path}?force=true");
    door.patch(&forced, MERGE, json!({})).await.is(422);
    let dry = format!("{path}?fieldManager=a&dryRun=All");
    door.patch(&dry, APPLY, map(json!({"a": "1"}))).await.is(201);
    assert_eq!(door.get(&path).await.code, 404, "nothing was written");
    let named =
        door.patch(&format!("{MAPS}/n?fieldManager=a"), APPLY, map(json!({}))).await.is(400);
    assert!(named.message().contains("does not match the name on the URL"), "{}", named.text);
}

#[tokio::test]
async fn status_has_owners_of_its_own() {
    let door = Door::open().await;
    let path = format!("{SETS}/web");
    let mut config = set(Some(1), "a:1");
    config["status"] = json!({"replicas": 7});
    let made = apply(&door, &path, "a", &config).await.is(201);
    assert!(made.body["status"]["replicas"] != 7);
    assert!(owners(&made.body)[0].1.get("f:status").is_none(), "the spec's path owns no status");
    let status = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
        "spec": {"replicas": 9}, "status": {"replicas": 1, "readyReplicas": 1},
    });
    let told = apply(&door, &format!("{path}/status"), "c", &status).await.is(200);
    assert_eq!(told.body["spec"]["replicas"], 1);
    assert_eq!(told.body["status"]["readyReplicas"], 1);
    let own = owners(&told.body);
    assert_eq!(own[1].0, "c Apply apps/v1 status");
    assert_eq!(own[1].1, json!({"f:status": {"f:readyReplicas": {}, "f:replicas": {}}}));
    let mut other = status.clone();
    other["status"]["readyReplicas"] = 0.into();
    let refused = apply(&door, &format!("{path}/status"), "d", &other).await.is(409);
    assert_eq!(
        refused.message(),
        "Apply failed with 1 conflict: conflict with \"c\" with subresource \"status\": .status.readyReplicas"
    );
    apply(&door, &format!("{SETS}/none/status"), "d", &other).await.is(404);
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changes() {
    let door = Door::open().await;
    let path = format!("{MAPS}/m");
    let made = door.post(MAPS, map(json!({"a": "1"}))).await.is(201);
    let revision = made.body["metadata"]["resourceVersion"].clone();
    let same = door.call("PUT", &path, JSON, &made.text).await.is(200);
    assert_eq!(same.body["metadata"]["resourceVersion"], revision);
    let same = door.patch(&path, MERGE, json!({"data": {"a": "1"}})).await.is(200);
    assert_eq!(same.body["metadata"]["resourceVersion"], revision);
    assert_eq!(same.body["metadata"]["managedFields"], made.body["metadata"]["managedFields"]);
}

#[tokio::test]
async fn owners_can_be_forgotten_and_written_but_not_made_up() {
    let door = Door::open().await;
    let path = format!("{MAPS}/m");
    let made = door.post(&format!("{MAPS}?fieldManager=a"), map(json!({"a": "1"}))).await.is(201);
    // What is no list of owners is passed over.
    let odd = json!({"metadata": {"managedFields": [{"manager": "x", "operation": "Sing"}]}});
    let kept = door.patch(&path, MERGE, odd).await.is(200);
    assert_eq!(kept.body["metadata"]["managedFields"], made.body["metadata"]["managedFields"]);
    // As kubectl does when it turns from client-side to server-side apply.
    let mut list = made.body["metadata"]["managedFields"].clone();
    list[0]["manager"] = "kubectl".into();
    list[0]["operation"] = "Apply".into();
    let moved = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": list},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": made.body["metadata"]["resourceVersion"]},
    ]);
    let moved = door.patch(&path, "application/json-patch+json", moved).await.is(200);
    assert_eq!(names(&moved.body), ["kubectl Apply v1"]);
    // A client that does not know of owners does not lose them.
    let mut plain = moved.body.clone();
    plain["metadata"].as_object_mut().unwrap().remove("managedFields");
    let put = door.put(&path, &plain).await.is(200);
    assert_eq!(names(&put.body), ["kubectl Apply v1"]);
    for nothing in [json!([]), json!([{}])] {
        let reset = json!({"metadata": {"managedFields": nothing}});
        let reset = door.patch(&path, MERGE, reset).await.is(200);
        assert_eq!(reset.body["metadata"].get("managedFields"), None);
    }
    // Nobody begins to own by an update; who applies finds what was there before.
    let changed = door.patch(&path, STRATEGIC, json!({"data": {"b": "2"}})).await.is(200);
    assert_eq!(changed.body["metadata"].get("managedFields"), None);
    let refused = apply(&door, &path, "z", &map(json!({"a": "2"}))).await.is(409);
    assert!(
        refused.message().contains("\"before-first-apply\" using v1: .data.a"),
        "{}",
        refused.text
    );
}

#[tokio::test]
async fn ten_authors_of_updates_are_told_apart() {
    let door = Door::open().await;
    let path = format!("{MAPS}/m");
    door.post(&format!("{MAPS}?fieldManager=m0"), map(json!({"k0": ""}))).await.is(201);
    for n in 1..14 {
        let data = json!({"data": {format!("k{n}"): ""}});
        door.patch(&format!("{path}?fieldManager=m{n}"), MERGE, data).await.is(200);
    }
    let object = door.get(&path).await.body;
    let names = names(&object);
    assert_eq!(names.len(), 10, "{names:?}");
    let ancient =
        owners(&object).into_iter().find(|it| it.0 == "ancient-changes Update v1").unwrap();
    assert_eq!(ancient.1["f:data"].as_object().unwrap().len(), 6, "five of fourteen, and the map");
}

#[tokio::test]
async fn kubectl_turns_from_its_own_way_of_applying_without_a_conflict() {
    let door = Door::open().await;
    let path = format!("{MAPS}/m");
    let last = map(json!({"a": "1", "b": "1"}));
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let mut object = last.clone();
    object["metadata"]["annotations"] = json!({annotation: last.to_string()});
    door.post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), object).await.is(201);
    let config = map(json!({"a": "2", "b": "1"}));
    apply(&door, &path, "somebody", &config).await.is(409);
    let turned = apply(&door, &path, "kubectl", &config).await.is(200);
    assert_eq!(turned.body["data"], json!({"a": "2", "b": "1"}));
    let told: Value =
        serde_json::from_str(turned.body["metadata"]["annotations"][annotation].as_str().unwrap())
            .unwrap();
    assert_eq!(told, config, "client-side apply may go on from here");
    // What somebody else changed since is theirs.
    door.patch(&format!("{path}?fieldManager=x"), MERGE, json!({"data": {"b": "3"}})).await.is(200);
    let refused = apply(&door, &path, "kubectl", &config).await.is(409);
    assert!(refused.message().ends_with(".data.b"), "{}", refused.text);
}

#[tokio::test]
async fn who_scales_owns_the_number() {
    let door = Door::open().await;
    let path = format!("{SETS}/web");
    apply(&door, &path, "a", &set(Some(3), "a:1")).await.is(201);
    let scale = json!({"spec": {"replicas": 5}});
    door.patch(&format!("{path}/scale?fieldManager=hpa"), MERGE, scale).await.is(200);
    let object = door.get(&path).await.body;
    assert_eq!(names(&object), ["a Apply apps/v1", "hpa Update apps/v1 scale"]);
    assert_eq!(owners(&object)[1].1, json!({"f:spec": {"f:replicas": {}}}));
    let refused = apply(&door, &path, "a", &set(Some(3), "a:1")).await.is(409);
    assert_eq!(
        refused.message(),
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    // Who leaves the number to others applies in peace.
    let left = apply(&door, &path, "a", &set(None, "a:1")).await.is(200);
    assert_eq!(left.body["spec"]["replicas"], 5);
    let config = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"},
        "spec": {"replicas": 2},
    });
    apply(&door, &format!("{path}/scale"), "b", &config).await.is(409);
    let forced = format!("{path}/scale?fieldManager=b&force=true");
    let forced = door.patch(&forced, APPLY, config).await.is(200);
    assert_eq!(forced.body["spec"]["replicas"], 2);
    assert_eq!(names(&door.get(&path).await.body), ["a Apply apps/v1", "b Apply apps/v1 scale"]);
}

#[tokio::test]
async fn loops_own_what_they_write_as_upstreams_processes_do() {
    let door = Door::open().await;
    let client = door.server.client("system:serviceaccount:kube-system:statefulset-controller");
    door.post(&format!("{SETS}?fieldManager=me"), set(Some(1), "a:1")).await.is(201);
    let key = world::ObjectKey::new("default", "web");
    let row = client.world().get::<api::apps::v1::StatefulSet>(&key).unwrap();
    assert!(row.metadata.managed_fields.is_none(), "typed objects go without");
    let mut told = row.to_owned();
    told.status.get_or_insert_default().observed_generation = Some(1);
    client.write(vec![world::Change::status(told)]).await.unwrap();
    let object = door.get(&format!("{SETS}/web")).await.body;
    assert_eq!(
        names(&object),
        ["kube-controller-manager Update apps/v1 status", "me Update apps/v1"]
    );
    let mut watch = door.watch(&format!("{SETS}?watch=1&resourceVersion=0")).await;
    let seen = watch.next().await.unwrap();
    assert_eq!(seen["object"]["metadata"]["managedFields"], object["metadata"]["managedFields"]);
}

/// A patch that is about something else works on the object without its list of owners.
#[tokio::test]
async fn patches_see_the_owners_when_they_ask() {
    let door = Door::open().await;
    let path = format!("{MAPS}/m");
    let json_patch = "application/json-patch+json";
    door.post(&format!("{MAPS}?fieldManager=a"), map(json!({"a": "1"}))).await.is(201);
    for (operation, code) in [
        (json!({"op": "test", "path": "/metadata/managedFields/0/manager", "value": "a"}), 200),
        (json!({"op": "test", "path": "/metadata/managedFields/0/manager", "value": "b"}), 422),
        (
            json!({"op": "copy", "from": "/metadata/managedFields/0/manager", "path": "/data/owner"}),
            200,
        ),
        (json!({"op": "replace", "path": "/data/a", "value": "2"}), 200),
        (json!({"op": "remove", "path": "/metadata/managedFields"}), 200),
    ] {
        door.patch(&path, json_patch, json!([operation])).await.is(code);
    }
    let object = door.get(&path).await.body;
    assert_eq!(object["data"], json!({"a": "2", "owner": "a"}));
    assert_eq!(names(&object), ["a Update v1", "unknown Update v1"], "removing is not forgetting");
}
