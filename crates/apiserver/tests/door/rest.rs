//! The verbs over HTTPS.

use crate::house::{self, Door, JSON, STRATEGIC, Who};
use base64::Engine;
use serde_json::json;
use store::{Batch, Expect, Key};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn only_those_who_prove_who_they_are_come_in() {
    let door = Door::open().await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(door.call_as(Who::Nobody, "GET", path, &[], b"").await.code, 200, "{path}");
    }
    let reply = door.call_as(Who::Nobody, "GET", MAPS, &[], b"").await.is(401);
    assert_eq!(reply.message(), "Unauthorized");
    let reply = door.call_as(Who::Guest, "GET", &format!("{MAPS}/x"), &[], b"").await.is(403);
    assert_eq!(
        reply.message(),
        "configmaps \"x\" is forbidden: User \"guest\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let reply = door.call_as(Who::Guest, "GET", "/metrics", &[], b"").await.is(403);
    assert_eq!(reply.message(), "forbidden: User \"guest\" cannot get path \"/metrics\"");
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let door = Door::open().await;
    let made =
        door.post(MAPS, json!({"metadata": {"name": "m"}, "data": {"a": "b"}})).await.is(201);
    assert_eq!(made.body["kind"], "ConfigMap");
    assert_eq!(made.body["metadata"]["namespace"], "default");
    assert!(made.body["metadata"]["uid"].is_string());
    let path = format!("{MAPS}/m");
    assert_eq!(door.get(&path).await.is(200).body, made.body);

    let again = door.post(MAPS, json!({"metadata": {"name": "m"}})).await.is(409);
    assert_eq!(again.message(), "configmaps \"m\" already exists");

    // What changes nothing writes nothing.
    let same = door.put(&path, &made.body).await.is(200);
    assert_eq!(same.body, made.body);

    let mut changed = made.body.clone();
    changed["data"]["a"] = "c".into();
    let written = door.put(&path, &changed).await.is(200);
    let stale = door.put(&path, &changed).await.is(409);
    assert_eq!(
        stale.message(),
        "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to the latest version and try again"
    );
    changed["metadata"]["resourceVersion"] = json!("");
    changed["data"]["a"] = "d".into();
    let forced = door.put(&path, &changed).await.is(200);
    assert_ne!(
        forced.body["metadata"]["resourceVersion"],
        written.body["metadata"]["resourceVersion"]
    );
    changed["metadata"]["uid"] = json!("other");
    assert!(
        door.put(&path, &changed).await.is(409).message().contains("UID in precondition: other")
    );

    let gone = door.delete(&path).await.is(200);
    assert_eq!((&gone.body["kind"], &gone.body["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(gone.body["details"]["uid"], made.body["metadata"]["uid"]);
    assert_eq!(door.get(&path).await.is(404).message(), "configmaps \"m\" not found");
    assert_eq!(door.put(&path, &changed).await.code, 404);
}

#[tokio::test]
async fn names_must_fit_the_path() {
    let door = Door::open().await;
    let path = format!("{MAPS}/m");
    for (reply, expected) in [
        (
            door.post(MAPS, json!({"metadata": {"name": "m", "namespace": "other"}})).await,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            door.put(&path, &json!({"metadata": {"name": "n"}})).await,
            "the name of the object (n) does not match the name on the URL (m)",
        ),
        (
            door.post(MAPS, json!({"kind": "Pod", "apiVersion": "v1"})).await,
            "Pod in version \"v1\" cannot be handled as a ConfigMap: no kind \"Pod\" is registered for version \"v1\", expected \"ConfigMap\" in version \"v1\"",
        ),
        (
            door.post(MAPS, json!({"kind": "ConfigMap", "apiVersion": "v2"})).await,
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
    ] {
        assert_eq!(reply.is(400).message(), expected);
    }
    let nameless = door.post(MAPS, json!({})).await.is(422);
    assert!(
        nameless
            .message()
            .contains("metadata.name: Required value: name or generateName is required"),
        "{}",
        nameless.message()
    );
    let named = door.post(MAPS, json!({"metadata": {"generateName": "m-"}})).await.is(201);
    let name = named.body["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("m-") && name.len() == 7, "{name}");
    let nowhere =
        door.post("/api/v1/namespaces/nowhere/configmaps", json!({"metadata": {"name": "m"}}));
    assert_eq!(nowhere.await.is(404).message(), "namespaces \"nowhere\" not found");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let door = Door::open().await;
    let body = json!({"metadata": {"name": "m"}});
    let would = door.post(&format!("{MAPS}?dryRun=All"), body).await.is(201);
    assert_eq!(would.body["metadata"].get("resourceVersion"), None);
    door.get(&format!("{MAPS}/m")).await.is(404);
    door.post(MAPS, json!({"metadata": {"name": "m"}})).await.is(201);
    door.delete(&format!("{MAPS}/m?dryRun=All")).await.is(200);
    door.get(&format!("{MAPS}/m")).await.is(200);
    door.post(&format!("{MAPS}?dryRun=Some"), json!({"metadata": {"name": "n"}})).await.is(422);
}

#[tokio::test]
async fn three_kinds_of_patch() {
    let door = Door::open().await;
    let path = format!("{MAPS}/m");
    door.post(MAPS, json!({"metadata": {"name": "m"}, "data": {"a": "1", "b": "2"}})).await.is(201);
    let data = door.patch(&path, STRATEGIC, json!({"data": {"a": null, "c": "3"}})).await.is(200);
    assert_eq!(data.body["data"], json!({"b": "2", "c": "3"}));
    let merge = "application/merge-patch+json";
    let data = door.patch(&path, merge, json!({"data": {"b": null}})).await.is(200);
    assert_eq!(data.body["data"], json!({"c": "3"}));
    let operations = json!([{"op": "test", "path": "/data/c", "value": "3"}, {"op": "add", "path": "/data/d", "value": "4"}]);
    let data = door.patch(&path, "application/json-patch+json", operations).await.is(200);
    assert_eq!(data.body["data"], json!({"c": "3", "d": "4"}));
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"e": "5"}});
    door.patch(&path, merge, stale).await.is(409);
    door.patch(&path, "application/apply-patch+cbor", json!({})).await.is(415);
    door.patch(&path, "text/plain", json!({})).await.is(415);
    door.patch(&path, merge, json!([])).await.is(400);
    let mismatch = json!([{"op": "test", "path": "/data/c", "value": "x"}]);
    door.patch(&path, "application/json-patch+json", mismatch).await.is(422);
}

#[tokio::test]
async fn patches_that_race_all_arrive() {
    let door = std::sync::Arc::new(Door::open().await);
    door.post(MAPS, json!({"metadata": {"name": "m"}})).await.is(201);
    let mut racers = tokio::task::JoinSet::new();
    for n in 0..16 {
        let door = door.clone();
        racers.spawn(async move {
            let patch = json!({"data": {format!("k{n}"): "v"}});
            door.patch(&format!("{MAPS}/m"), STRATEGIC, patch).await.is(200);
        });
    }
    racers.join_all().await;
    let map = door.get(&format!("{MAPS}/m")).await.is(200);
    assert_eq!(map.body["data"].as_object().unwrap().len(), 16);
}

#[tokio::test]
async fn an_approval_may_come_with_annotations() {
    let door = Door::open().await;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let spec = json!({
        "request": base64::engine::general_purpose::STANDARD.encode(request.pem().unwrap()),
        "signerName": "example.com/own", "usages": ["client auth"],
    });
    door.post(requests, json!({"metadata": {"name": "r"}, "spec": spec})).await.is(201);
    let patch = json!({
        "metadata": {"annotations": {"seen": "yes"}},
        "spec": {"signerName": "example.com/other"},
        "status": {"conditions": [{"type": "Approved", "status": "True", "reason": "test"}]},
    });
    let path = format!("{requests}/r/approval");
    let approved = door.patch(&path, "application/merge-patch+json", patch).await.is(200).body;
    assert_eq!(approved["metadata"]["annotations"]["seen"], "yes");
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    assert_eq!(approved["spec"]["signerName"], "example.com/own");
}

#[tokio::test]
async fn a_dry_run_that_is_not_understood_writes_nothing() {
    let door = Door::open().await;
    for query in ["dryRun=", "dryRun=&dryRun=All", "dryRun=Some"] {
        door.post(&format!("{MAPS}?{query}"), json!({"metadata": {"name": "m"}})).await.is(422);
    }
    door.get(&format!("{MAPS}/m")).await.is(404);
    let pods = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    door.post(pods, pod).await.is(201);
    for options in [json!({"dryRun": "All"}), json!({"preconditions": {"uid": 1}})] {
        let eviction = json!({"metadata": {"name": "p"}, "deleteOptions": options});
        door.post(&format!("{pods}/p/eviction"), eviction).await.is(400);
    }
    door.get(&format!("{pods}/p")).await.is(200);
}

#[tokio::test]
async fn what_was_stored_before_a_rule_came_does_not_hold_the_rest_up() {
    let store = house::memory();
    let services = "/api/v1/namespaces/default/services";
    let door = Door::open_on(store.clone()).await;
    let ranges = json!({"type": "LoadBalancer", "ports": [{"port": 80}],
        "loadBalancerSourceRanges": ["10.0.0.0/8"]});
    let meta = json!({"name": "old", "finalizers": ["a.b/c"]});
    door.post(services, json!({"metadata": meta, "spec": ranges})).await.is(201);
    // As an earlier version let it in.
    let key = Key::from("/registry/services/specs/default/old");
    let stored = store.snapshot().await.unwrap().get(&key).unwrap().unwrap();
    let text = String::from_utf8(stored.value.to_vec()).unwrap();
    let text = text.replace("10.0.0.0/8", "10.1.0.0/8");
    store.commit(Batch::new().put(key, Expect::Whatever, text)).await.unwrap();
    let door = Door::open_on(store).await;
    let path = format!("{services}/old");
    let merge = "application/merge-patch+json";
    door.patch(&path, merge, json!({"metadata": {"labels": {"a": "b"}}})).await.is(200);
    let two = json!({"spec": {"loadBalancerSourceRanges": ["10.1.0.0/8", "10.2.0.0/8"]}});
    let refused = door.patch(&path, merge, two).await.is(422);
    assert!(
        refused.message().contains("[1]") && !refused.message().contains("[0]"),
        "{}",
        refused.message()
    );
    door.delete(&path).await.is(200);
    door.patch(&path, merge, json!({"metadata": {"finalizers": null}})).await.is(200);
    door.get(&path).await.is(404);
}

#[tokio::test]
async fn finalizers_hold_an_object_that_was_deleted() {
    let door = Door::open().await;
    let path = format!("{MAPS}/m");
    door.post(MAPS, json!({"metadata": {"name": "m", "finalizers": ["a.b/c"]}})).await.is(201);
    let marked = door.delete(&path).await.is(200);
    assert!(marked.body["metadata"]["deletionTimestamp"].is_string(), "{}", marked.text);
    let mut more = marked.body.clone();
    more["metadata"]["finalizers"] = json!(["a.b/c", "a.b/d"]);
    let refused = door.put(&path, &more).await.is(422);
    assert!(refused.message().contains("no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a.b/d\"}"), "{}", refused.message());
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.b/c"]}});
    door.patch(&path, STRATEGIC, patch).await.is(200);
    door.get(&path).await.is(404);
}

#[tokio::test]
async fn a_deletion_can_be_held_to_what_was_seen() {
    let door = Door::open().await;
    let path = format!("{MAPS}/m");
    let made = door.post(MAPS, json!({"metadata": {"name": "m"}})).await.is(201);
    let body = json!({"preconditions": {"uid": "x"}}).to_string();
    let refused = door.call("DELETE", &path, JSON, &body).await.is(409);
    assert!(refused.message().starts_with("Operation cannot be fulfilled on ConfigMap \"m\": the UID in the precondition (x) does not match the UID in record ("), "{}", refused.message());
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1",
        "preconditions": {"uid": made.body["metadata"]["uid"]}});
    door.call("DELETE", &path, JSON, &body.to_string()).await.is(200);
    let foreground = json!({"propagationPolicy": "Foreground"}).to_string();
    door.post(MAPS, json!({"metadata": {"name": "m"}})).await.is(201);
    let marked = door.call("DELETE", &path, JSON, &foreground).await.is(200);
    assert_eq!(marked.body["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let door = Door::open().await;
    door.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.is(201);
    let going = door.delete("/api/v1/namespaces/n").await.is(200);
    assert_eq!(going.body["status"]["phase"], "Terminating", "{}", going.text);
    let refused = door
        .post("/api/v1/namespaces/n/configmaps", json!({"metadata": {"name": "m"}}))
        .await
        .is(403);
    assert_eq!(
        refused.message(),
        "configmaps \"m\" is forbidden: unable to create new content in namespace n because it is being terminated"
    );
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = going.body;
    finalized["spec"]["finalizers"] = json!([]);
    door.put("/api/v1/namespaces/n/finalize", &finalized).await.is(200);
    door.get("/api/v1/namespaces/n").await.is(404);
}

#[tokio::test]
async fn status_has_a_door_of_its_own() {
    let door = Door::open().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"message": "mine"}});
    let made = door.post(pods, pod).await.is(201);
    assert_eq!(made.body["status"].get("message"), None, "{}", made.text);
    assert_eq!(made.body["spec"]["serviceAccountName"], "default");
    let patch = json!({"status": {"message": "theirs"}, "spec": {"containers": [{"name": "c", "image": "j"}]}});
    let told = door.patch(&format!("{pods}/p/status"), STRATEGIC, patch).await.is(200);
    assert_eq!(told.body["status"]["message"], "theirs");
    assert_eq!(told.body["spec"]["containers"][0]["image"], "i");
    let patch = json!({"status": {"message": "mine"}, "metadata": {"labels": {"a": "b"}}});
    let told = door.patch(&format!("{pods}/p"), STRATEGIC, patch).await.is(200);
    assert_eq!(told.body["status"]["message"], "theirs");
    assert_eq!(told.body["metadata"]["labels"]["a"], "b");
    door.get(&format!("{MAPS}/m/status")).await.is(404);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let door = Door::open().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    door.post(pods, pod).await.is(201);
    let binding = json!({"kind": "Binding", "apiVersion": "v1",
        "metadata": {"name": "p", "annotations": {"a": "b"}},
        "target": {"kind": "Node", "name": "n1"}});
    let bound = door.post(&format!("{pods}/p/binding"), binding.clone()).await.is(201);
    assert_eq!(bound.body["status"], "Success");
    let pod = door.get(&format!("{pods}/p")).await.is(200);
    assert_eq!(pod.body["spec"]["nodeName"], "n1");
    assert_eq!(pod.body["metadata"]["annotations"]["a"], "b");
    let conditions = pod.body["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|it| it["type"] == "PodScheduled" && it["status"] == "True"));
    let again = door.post(&format!("{pods}/p/binding"), binding).await.is(409);
    assert_eq!(
        again.message(),
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""
    );

    // Bound to a node, it waits for its processes.
    let going = door.delete(&format!("{pods}/p?gracePeriodSeconds=7")).await.is(200);
    assert_eq!(going.body["metadata"]["deletionGracePeriodSeconds"], 7);
    door.delete(&format!("{pods}/p?gracePeriodSeconds=0")).await.is(200);
    door.get(&format!("{pods}/p")).await.is(404);
}

#[tokio::test]
async fn a_set_is_scaled_through_its_scale() {
    let door = Door::open().await;
    let sets = "/apis/apps/v1/namespaces/default/statefulsets";
    let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": 2, "serviceName": "s",
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    door.post(sets, set).await.is(201);
    let scale = door.get(&format!("{sets}/s/scale")).await.is(200);
    assert_eq!(scale.body["kind"], "Scale");
    assert_eq!(scale.body["spec"]["replicas"], 2);
    assert_eq!(scale.body["status"]["selector"], "a=b");
    let mut more = scale.body.clone();
    more["spec"]["replicas"] = 3.into();
    let more = door.put(&format!("{sets}/s/scale"), &more).await.is(200);
    assert_eq!(more.body["spec"]["replicas"], 3);
    let patch = json!({"spec": {"replicas": 1}});
    door.patch(&format!("{sets}/s/scale"), "application/merge-patch+json", patch).await.is(200);
    let set = door.get(&format!("{sets}/s")).await.is(200);
    assert_eq!(
        (&set.body["spec"]["replicas"], &set.body["metadata"]["generation"]),
        (&json!(1), &json!(3))
    );
    door.put(&format!("{sets}/s/scale"), &scale.body).await.is(409);
    let patch = json!({"spec": {"replicas": -1}});
    door.patch(&format!("{sets}/s/scale"), "application/merge-patch+json", patch).await.is(422);
}

#[tokio::test]
async fn an_old_version_is_the_same_object() {
    let door = Door::open().await;
    let old = "/apis/storage.k8s.io/v1beta1/storageclasses";
    let class = json!({"apiVersion": "storage.k8s.io/v1beta1", "kind": "StorageClass",
        "metadata": {"name": "c"}, "provisioner": "p"});
    let made = door.post(old, class).await.is(201);
    assert_eq!(made.body["apiVersion"], "storage.k8s.io/v1beta1");
    assert_eq!(made.warnings().len(), 1);
    let new = door.get("/apis/storage.k8s.io/v1/storageclasses/c").await.is(200);
    assert_eq!(new.body["apiVersion"], "storage.k8s.io/v1");
    let listed = door.get(old).await.is(200);
    assert_eq!(listed.body["items"][0]["apiVersion"], "storage.k8s.io/v1beta1");
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let patched = door.patch(&format!("{old}/c"), STRATEGIC, patch).await.is(200);
    assert_eq!(patched.body["apiVersion"], "storage.k8s.io/v1beta1");
}

#[tokio::test]
async fn a_claim_grows_only_where_its_class_allows_it() {
    let door = Door::open().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    for (name, expandable) in [("fixed", false), ("grows", true)] {
        let class = json!({"metadata": {"name": name}, "provisioner": "p",
            "allowVolumeExpansion": expandable});
        door.post("/apis/storage.k8s.io/v1/storageclasses", class).await.is(201);
        let claim = json!({"metadata": {"name": name}, "spec": {"storageClassName": name,
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            "volumeName": "v"}});
        door.post(claims, claim).await.is(201);
    }
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let grow =
        async |name: &str| door.patch(&format!("{claims}/{name}"), STRATEGIC, more.clone()).await;
    let unbound = grow("grows").await.is(403);
    assert_eq!(
        unbound.message(),
        "persistentvolumeclaims \"grows\" is forbidden: \
         Only bound persistent volume claims can be expanded"
    );
    for name in ["fixed", "grows"] {
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        door.patch(&format!("{claims}/{name}/status"), STRATEGIC, bound).await.is(200);
    }
    grow("grows").await.is(200);
    let refused = grow("fixed").await.is(403);
    assert!(refused.message().ends_with("provisions the pvc must support resize"));
}

/// `kubectl create configmap` and its like speak protobuf.
#[tokio::test]
async fn a_body_may_be_protobuf() {
    let door = Door::open().await;
    let part = |number: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).expect("a short part");
        [&[number << 3 | 2, length], bytes].concat()
    };
    let meta = [part(1, b"v1"), part(2, b"ConfigMap")].concat();
    let data = part(2, &[part(1, b"a"), part(2, b"b")].concat());
    let raw = [part(1, &part(1, b"m")), data].concat();
    let body = [&b"k8s\0"[..], &part(1, &meta), &part(2, &raw)].concat();
    let headers = [
        ("content-type", "application/vnd.kubernetes.protobuf"),
        ("accept", "application/json,application/vnd.kubernetes.protobuf"),
    ];
    let made = door.call_as(Who::Admin, "POST", MAPS, &headers, &body).await.is(201);
    assert_eq!(
        (&made.body["metadata"]["name"], &made.body["data"]["a"]),
        (&json!("m"), &json!("b"))
    );
    door.call_as(Who::Admin, "POST", MAPS, &headers, &body[1..]).await.is(400);
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let door = Door::open().await;
    let large = "x".repeat(3 * 1024 * 1024 + 1);
    let reply = door.call("POST", MAPS, JSON, &large).await.is(413);
    assert_eq!(reply.message(), "Request entity too large: limit is 3145728");
}

#[tokio::test]
async fn answers_come_in_the_form_that_was_asked_for() {
    let door = Door::open().await;
    door.post(MAPS, json!({"metadata": {"name": "m"}, "data": {"a": "b"}})).await.is(201);
    let get = async |path: &str, accept: &str| {
        door.call_as(Who::Admin, "GET", path, &[("accept", accept)], b"").await
    };
    let path = format!("{MAPS}/m");
    let partial = get(&path, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await;
    assert_eq!(partial.body["kind"], "PartialObjectMetadata");
    assert_eq!(partial.body.get("data"), None);
    let table = get(MAPS, "application/json;as=Table;g=meta.k8s.io;v=v1").await.is(200);
    assert_eq!(table.body["kind"], "Table");
    assert_eq!(table.body["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table.body["rows"][0]["cells"][0], "m");
    assert_eq!(table.body["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let none = format!("{MAPS}?includeObject=None");
    let table = get(&none, "application/json;as=Table;g=meta.k8s.io;v=v1").await.is(200);
    assert_eq!(table.body["rows"][0].get("object"), None);
    let yaml = get(&path, "application/yaml").await.is(200);
    assert!(yaml.text.contains("kind: ConfigMap"), "{}", yaml.text);
    get(&path, "application/cbor").await.is(406);
    get(&path, "application/vnd.kubernetes.protobuf,application/json").await.is(200);
    let body = "metadata: {name: yaml}\ndata: {a: b}\n";
    door.call("POST", MAPS, "application/yaml", body).await.is(201);
    door.call("POST", MAPS, "text/plain", body).await.is(415);
}

#[tokio::test]
async fn says_what_there_is() {
    let door = Door::open().await;
    let resources = door.get("/api/v1").await.is(200);
    let names: Vec<&str> = resources.body["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"pods") && names.contains(&"pods/log"), "{names:?}");
    assert_eq!(door.get("/apis").await.is(200).body["kind"], "APIGroupList");
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let all = door.call_as(Who::Admin, "GET", "/apis", &[("accept", accept)], b"").await.is(200);
    assert_eq!(all.body["kind"], "APIGroupDiscoveryList");
    let storage = all.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["metadata"]["name"] == "storage.k8s.io")
        .unwrap();
    let versions: Vec<&str> = storage["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["v1", "v1beta1"]);
    door.get("/apis/nothing.here/v1").await.is(404);
    door.call("POST", "/api/v1/namespaces/default/configmaps/x", JSON, "{}").await.is(405);
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let door = Door::open().await;
    let ready = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = ready.clone();
    door.server.ready_check("loops", move || {
        match flag.load(std::sync::atomic::Ordering::SeqCst) {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    });
    let reply = door.get("/readyz").await.is(500);
    assert_eq!(
        reply.text,
        "[+]ping ok\n[+]ledger ok\n[-]loops failed: reason withheld\nreadyz check failed\n"
    );
    door.get("/livez").await.is(200);
    door.get("/readyz/loops").await.is(500);
    ready.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(door.get("/readyz").await.is(200).text, "ok");
    let verbose = door.get("/readyz?verbose").await.is(200);
    assert_eq!(verbose.text, "[+]ping ok\n[+]ledger ok\n[+]loops ok\nreadyz check passed\n");
}

/// How controllers of every make choose their leader: whoever writes over the version that all have read.
#[tokio::test]
async fn of_many_who_would_lead_one_does() {
    let door = Door::open().await;
    let leader = "control-plane.alpha.kubernetes.io/leader";
    for path in [
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        "/api/v1/namespaces/default/endpoints",
        "/api/v1/namespaces/default/configmaps",
    ] {
        let made = door.post(path, json!({"metadata": {"name": "lock"}})).await.is(201);
        let asked = (0..8).map(|n| {
            let (door, mut lock) = (&door, made.body.clone());
            lock["metadata"]["annotations"][leader] = format!("candidate {n}").into();
            async move { (n, door.put(&format!("{path}/lock"), &lock).await) }
        });
        let asked = futures_util::future::join_all(asked).await;
        let won: Vec<_> = asked.iter().filter(|it| it.1.code == 200).map(|it| it.0).collect();
        let [winner] = won.as_slice() else { panic!("{path}: {won:?} lead") };
        for (_, reply) in asked.iter().filter(|it| it.0 != *winner) {
            assert_eq!((reply.code, &reply.body["reason"]), (409, &json!("Conflict")), "{path}");
        }
        let lock = door.get(&format!("{path}/lock")).await.is(200).body;
        assert_eq!(lock["metadata"]["annotations"][leader], format!("candidate {winner}"));
    }
}
