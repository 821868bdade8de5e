//! What namespaces, containers and evictions are held to.

use crate::house::{Door, Reply, Who};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const RANGES: &str = "/api/v1/namespaces/default/limitranges";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const PRIORITIES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

fn claim(name: &str, size: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}}}})
}

async fn quota(door: &Door, hard: Value) -> Reply {
    door.post(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await.is(201)
}

#[tokio::test]
async fn a_quota_is_not_exceeded_however_many_create_at_once() {
    let door = Door::open().await;
    quota(&door, json!({"pods": "5"})).await;
    let attempts = (0..40).map(|n| {
        let (door, body) = (&door, pod(&format!("p{n}"), json!({})));
        async move { door.post(PODS, body).await }
    });
    let replies = futures_util::future::join_all(attempts).await;
    let made = replies.iter().filter(|it| it.code == 201).count();
    assert_eq!(made, 5);
    let refused: Vec<_> = replies.iter().filter(|it| it.code != 201).collect();
    for it in &refused {
        assert_eq!(it.code, 403, "{}", it.text);
        let said = "exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5";
        assert!(it.message().ends_with(said), "{}", it.message());
    }
    let listed = door.get(PODS).await.is(200);
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 5);
    // One leaves, one may come.
    let name = listed.body["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    door.delete(&format!("{PODS}/{name}?gracePeriodSeconds=0")).await.is(200);
    door.post(PODS, pod("late", json!({}))).await.is(201);
    door.post(PODS, pod("later", json!({}))).await.is(403);
}

#[tokio::test]
async fn a_quota_counts_claims_by_size_and_growth() {
    let door = Door::open().await;
    quota(&door, json!({"requests.storage": "5Gi", "persistentvolumeclaims": "2"})).await;
    door.post(CLAIMS, claim("a", "3Gi")).await.is(201);
    let refused = door.post(CLAIMS, claim("b", "3Gi")).await.is(403);
    assert_eq!(
        refused.message(),
        "persistentvolumeclaims \"b\" is forbidden: exceeded quota: q, requested: requests.storage=3Gi, used: requests.storage=3Gi, limited: requests.storage=5Gi"
    );
    assert_eq!(refused.body["reason"], "Forbidden");
    assert_eq!(door.get(&format!("{CLAIMS}/b")).await.code, 404);
    door.post(&format!("{CLAIMS}?dryRun=All"), claim("b", "2Gi")).await.is(201);
    door.post(CLAIMS, claim("b", "2Gi")).await.is(201);
    let both = door.post(CLAIMS, claim("c", "1Gi")).await.is(403);
    assert!(
        both.message().ends_with(
            "requested: persistentvolumeclaims=1,requests.storage=1Gi, used: persistentvolumeclaims=2,requests.storage=5Gi, limited: persistentvolumeclaims=2,requests.storage=5Gi"
        ),
        "{}",
        both.message()
    );
}

#[tokio::test]
async fn a_quota_is_not_exceeded_by_growing_claims() {
    let door = Door::open().await;
    let class = json!({"metadata": {"name": "grows"}, "provisioner": "example.com/p",
        "allowVolumeExpansion": true});
    door.post("/apis/storage.k8s.io/v1/storageclasses", class).await.is(201);
    let hard = json!({"requests.storage": "5Gi",
        "grows.storageclass.storage.k8s.io/requests.storage": "4Gi"});
    quota(&door, hard).await;
    let mut wanted = claim("a", "2Gi");
    wanted["spec"]["storageClassName"] = "grows".into();
    wanted["spec"]["volumeName"] = "v".into();
    let mut held = door.post(CLAIMS, wanted).await.is(201).body;
    let path = format!("{CLAIMS}/a");
    held["status"] = json!({"phase": "Bound", "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteOnce"]});
    let held = door.put(&format!("{path}/status"), &held).await.is(200).body;
    let grown = |size: &str| {
        let mut grown = held.clone();
        grown["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        grown["spec"]["resources"]["requests"]["storage"] = size.into();
        grown
    };
    let refused = door.put(&path, &grown("5Gi")).await.is(403);
    assert_eq!(
        refused.message(),
        "persistentvolumeclaims \"a\" is forbidden: exceeded quota: q, requested: grows.storageclass.storage.k8s.io/requests.storage=3Gi, used: grows.storageclass.storage.k8s.io/requests.storage=2Gi, limited: grows.storageclass.storage.k8s.io/requests.storage=4Gi"
    );
    door.put(&path, &grown("4Gi")).await.is(200);
    door.post(CLAIMS, claim("b", "2Gi")).await.is(403);
    door.post(CLAIMS, claim("b", "1Gi")).await.is(201);
}

#[tokio::test]
async fn a_quota_counts_what_services_take_of_nodes_and_balancers() {
    let door = Door::open().await;
    quota(
        &door,
        json!({"services": "4", "services.nodeports": "2", "services.loadbalancers": "1"}),
    )
    .await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| {
        let mut spec = spec;
        spec["ports"] = json!([{"port": 80}]);
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let node_port = json!({"type": "NodePort"});
    door.post(services, service("a", node_port.clone())).await.is(201);
    door.post(services, service("b", json!({"type": "LoadBalancer"}))).await.is(201);
    let refused = door.post(services, service("c", node_port.clone())).await.is(403);
    assert_eq!(
        refused.message(),
        "services \"c\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=2, limited: services.nodeports=2"
    );
    let balanced = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false});
    let refused = door.post(services, service("c", balanced)).await.is(403);
    assert!(
        refused.message().ends_with(
            "requested: services.loadbalancers=1, used: services.loadbalancers=1, limited: services.loadbalancers=1"
        ),
        "{}",
        refused.message()
    );
    door.post(services, service("c", json!({}))).await.is(201);
    // What one gives back, another may have; what one asks for later, counts as well.
    let mut plain = door.get(&format!("{services}/c")).await.is(200).body;
    plain["spec"]["type"] = "NodePort".into();
    door.put(&format!("{services}/c"), &plain).await.is(403);
    let mut given = door.get(&format!("{services}/a")).await.is(200).body;
    given["spec"]["type"] = "ClusterIP".into();
    door.put(&format!("{services}/a"), &given).await.is(200);
    door.put(&format!("{services}/c"), &plain).await.is(200);
}

#[tokio::test]
async fn pods_outlive_a_controller_of_which_nothing_else_is_said() {
    let door = Door::open().await;
    let all = "/api/v1/namespaces/default/replicationcontrollers";
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for name in ["a", "b"] {
        let body = json!({"metadata": {"name": name}, "spec": {"template": template}});
        door.post(all, body).await.is(201);
    }
    let kept = door.delete(&format!("{all}/a")).await.is(200);
    assert_eq!(kept.body["metadata"]["finalizers"], json!(["orphan"]));
    assert!(kept.body["metadata"]["deletionTimestamp"].is_string());
    door.delete(&format!("{all}/b?propagationPolicy=Background")).await.is(200);
    assert_eq!(door.get(&format!("{all}/b")).await.code, 404);
}

#[tokio::test]
async fn a_quota_on_cpu_wants_every_container_to_say_its_share() {
    let door = Door::open().await;
    quota(&door, json!({"requests.cpu": "1", "limits.memory": "1Gi"})).await;
    let refused = door.post(PODS, pod("p", json!({}))).await.is(403);
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    );
    // A range says it for them.
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container",
        "default": {"memory": "512Mi"}, "defaultRequest": {"cpu": "400m"}, "max": {"memory": "768Mi"}}]}});
    door.post(RANGES, range).await.is(201);
    let made = door.post(PODS, pod("p", json!({}))).await.is(201);
    let resources = &made.body["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"], json!({"memory": "512Mi"}));
    assert_eq!(resources["requests"], json!({"cpu": "400m", "memory": "512Mi"}));
    let too_much = door.post(PODS, pod("big", json!({"limits": {"memory": "1Gi"}}))).await.is(403);
    assert_eq!(
        too_much.message(),
        "pods \"big\" is forbidden: maximum memory usage per Container is 768Mi, but limit is 1Gi"
    );
}

#[tokio::test]
async fn the_quota_of_a_namespace_goes_with_it() {
    let door = Door::open().await;
    let namespaces = "/api/v1/namespaces";
    for _ in 0..2 {
        door.post(namespaces, json!({"metadata": {"name": "n"}})).await.is(201);
        let hard = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/secrets": "1"}}});
        let below = format!("{namespaces}/n");
        door.post(&format!("{below}/resourcequotas"), hard).await.is(201);
        let secret = |name: &str| json!({"metadata": {"name": name}});
        door.post(&format!("{below}/secrets"), secret("a")).await.is(201);
        door.post(&format!("{below}/secrets"), secret("b")).await.is(403);
        door.delete(&format!("{below}/secrets/a")).await.is(200);
        door.delete(&format!("{below}/resourcequotas/q")).await.is(200);
        door.delete(&below).await.is(200);
        let mut last = door.get(&below).await.is(200).body;
        last["spec"]["finalizers"] = json!(["mine"]);
        let refused = door.put(&format!("{below}/finalize"), &last).await.is(422);
        assert!(refused.message().contains(
            "spec.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
        ));
        last["spec"]["finalizers"] = json!([]);
        door.put(&format!("{below}/finalize"), &last).await.is(200);
        assert_eq!(door.get(&below).await.code, 404);
    }
}

#[tokio::test]
async fn pods_are_as_important_as_their_class() {
    let door = Door::open().await;
    let system = door.get(&format!("{PRIORITIES}/system-node-critical")).await.is(200);
    assert_eq!(system.body["value"], 2_000_001_000);
    let class = |name: &str, value: i32, default: bool| {
        json!({"metadata": {"name": name}, "value": value, "globalDefault": default,
            "preemptionPolicy": "Never"})
    };
    door.post(PRIORITIES, class("high", 1000, false)).await.is(201);
    door.post(PRIORITIES, class("usual", 10, true)).await.is(201);
    let second = door.post(PRIORITIES, class("other", 20, true)).await.is(403);
    assert_eq!(
        second.message(),
        "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist"
    );
    let of = |name: &str, class: Value| {
        let mut pod = pod(name, json!({}));
        pod["spec"]["priorityClassName"] = class;
        pod
    };
    let usual = door.post(PODS, of("a", Value::Null)).await.is(201).body;
    assert_eq!(
        (&usual["spec"]["priority"], &usual["spec"]["priorityClassName"]),
        (&json!(10), &json!("usual"))
    );
    let high = door.post(PODS, of("b", json!("high"))).await.is(201).body;
    assert_eq!(
        (&high["spec"]["priority"], &high["spec"]["preemptionPolicy"]),
        (&json!(1000), &json!("Never"))
    );
    let none = door.post(PODS, of("c", json!("none"))).await.is(403);
    assert_eq!(
        none.message(),
        "pods \"c\" is forbidden: no PriorityClass with name none was found"
    );
    let mut pod = of("d", json!("high"));
    pod["spec"]["priority"] = json!(7);
    assert_eq!(
        door.post(PODS, pod).await.is(403).message(),
        "pods \"d\" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name"
    );
}

#[tokio::test]
async fn a_pod_names_a_runtime_class_that_is_there() {
    let door = Door::open().await;
    let of = |name: &str| {
        let mut pod = pod(name, json!({}));
        pod["spec"]["runtimeClassName"] = json!("sandboxed");
        pod
    };
    assert_eq!(
        door.post(PODS, of("a")).await.is(403).message(),
        "pods \"a\" is forbidden: pod rejected: RuntimeClass \"sandboxed\" not found"
    );
    let class = json!({"metadata": {"name": "sandboxed"}, "handler": "runc",
        "overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"a": "b"}}});
    door.post("/apis/node.k8s.io/v1/runtimeclasses", class).await.is(201);
    let made = door.post(PODS, of("a")).await.is(201).body;
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "10m"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"a": "b"}));
}

/// A pod that runs on a node and is ready or not.
async fn running(door: &Door, name: &str, ready: &str) {
    let mut body = pod(name, json!({}));
    body["spec"]["nodeName"] = json!("n");
    let mut made = door.post(PODS, body).await.is(201).body;
    made["status"] =
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
    door.put(&format!("{PODS}/{name}/status"), &made).await.is(200);
}

async fn evict(door: &Door, name: &str) -> Reply {
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    door.post(&format!("{PODS}/{name}/eviction"), body).await
}

#[tokio::test]
async fn evictions_stop_where_the_budget_ends() {
    let door = Door::open().await;
    for name in ["a", "b"] {
        running(&door, name, "True").await;
    }
    running(&door, "sick", "False").await;
    let budget = json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1,
        "selector": {"matchLabels": {"app": "web"}}}});
    let mut budget = door.post(BUDGETS, budget).await.is(201).body;
    let early = evict(&door, "a").await.is(429);
    assert_eq!(
        early.message(),
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        early.body["details"],
        json!({"causes": [{"reason": "DisruptionBudget",
            "message": "The disruption budget web is still being processed by the server."}],
            "retryAfterSeconds": 10})
    );
    assert_eq!(early.headers["retry-after"], "10");

    budget["status"] = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2});
    door.put(&format!("{BUDGETS}/web/status"), &budget).await.is(200);
    door.post(&format!("{PODS}/a/eviction?dryRun=All"), json!({"metadata": {"name": "a"}}))
        .await
        .is(201);
    // What is not well is not guarded while enough others are.
    evict(&door, "sick").await.is(201);
    let at_once = futures_util::future::join(evict(&door, "a"), evict(&door, "b")).await;
    let mut codes = [at_once.0.code, at_once.1.code];
    codes.sort_unstable();
    assert_eq!(codes, [201, 429]);
    let refused = if at_once.0.code == 429 { at_once.0 } else { at_once.1 };
    assert_eq!(
        refused.body["details"]["causes"][0]["message"],
        "The disruption budget web does not allow evicting pods currently"
    );
    let after = door.get(&format!("{BUDGETS}/web")).await.is(200).body;
    assert_eq!(after["status"]["disruptionsAllowed"], 0);
    assert_eq!(after["status"]["disruptedPods"].as_object().unwrap().len(), 1);
    assert_eq!(after["status"]["conditions"][0]["reason"], "InsufficientPods");
    let gone = after["status"]["disruptedPods"].as_object().unwrap().keys().next().unwrap().clone();
    let pod = door.get(&format!("{PODS}/{gone}")).await.is(200).body;
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    let told = pod["status"]["conditions"].as_array().unwrap();
    assert!(
        told.iter()
            .any(|it| it["type"] == "DisruptionTarget" && it["reason"] == "EvictionByEvictionAPI")
    );
}

#[tokio::test]
async fn what_is_not_built_is_refused_with_a_reason() {
    let door = Door::open().await;
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let refused = door.post(path, json!({"metadata": {"name": "web"}})).await.is(405);
    assert_eq!(refused.body["kind"], "Status");
    assert!(refused.message().contains("kubectl scale"), "{}", refused.message());
    assert_eq!(door.get(path).await.is(200).body["items"], json!([]));
    // Not even in protobuf, or by a patch that would create.
    let headers = [("content-type", "application/vnd.kubernetes.protobuf")];
    door.call_as(Who::Admin, "POST", path, &headers, b"k8s\0nonsense").await.is(405);
    let yaml = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\n";
    let path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses/a?fieldManager=x";
    let refused = door.call("PATCH", path, "application/apply-patch+yaml", yaml).await.is(405);
    assert!(refused.message().contains("with a Service"), "{}", refused.message());
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    door.post(policies, json!({"metadata": {"name": "a"}})).await.is(405);
}
