//! Who may: roles and bindings, the words of a refusal, acting as others, reviews, audit, encryption.

use crate::house::{self, Door, Who};
use crate::wire::{self, PROTOBUF};
use apiserver::{Access, AuditConfig, AuditPolicy, Encryption};
use serde_json::{Value, json};
use std::sync::Arc;

const PODS: &str = "/api/v1/namespaces/default/pods";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

async fn guarded() -> Door {
    Door::open_guarded(Access::default()).await
}

fn role(name: &str, verbs: &[&str], resources: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "rules": [
        {"verbs": verbs, "apiGroups": [""], "resources": resources},
    ]})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name}, "roleRef": {"kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": user}],
    })
}

#[tokio::test]
async fn without_a_credential_only_health_is_told_and_a_wrong_one_opens_nothing() {
    let door = guarded().await;
    for path in ["/livez", "/readyz", "/healthz", "/livez/ping"] {
        door.call_as(Who::Nobody, "GET", path, &[], b"").await.is(200);
    }
    for path in ["/version", "/api", "/metrics", "/openapi/v3", PODS, "/openid/v1/jwks", "/x"] {
        let reply = door.call_as(Who::Nobody, "GET", path, &[], b"").await.is(401);
        assert_eq!(reply.message(), "Unauthorized", "{path}");
    }
    for token in ["x", "a.b.c", "abcdef.0123456789abcdef"] {
        let reply = door.bearing(token, "GET", "/livez").await.is(401);
        assert!(!reply.text.contains(token), "what was shown is not repeated");
    }
}

#[tokio::test]
async fn whom_no_role_names_is_refused_in_upstreams_words() {
    let door = guarded().await;
    let no = |reply: house::Reply| reply.is(403).message().to_owned();
    let jane = |path: &'static str| door.acting("jane", &[], "GET", path, &Value::Null);
    assert_eq!(
        no(jane(PODS).await),
        r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    assert_eq!(
        no(jane("/api/v1/namespaces/default/pods/x/log").await),
        r#"pods "x" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "default""#
    );
    assert_eq!(
        no(jane("/apis/apps/v1/statefulsets").await),
        r#"statefulsets.apps is forbidden: User "jane" cannot list resource "statefulsets" in API group "apps" at the cluster scope"#
    );
    assert_eq!(no(jane("/metrics").await), r#"forbidden: User "jane" cannot get path "/metrics""#);
    // Everybody who is somebody may look around.
    jane("/version").await.is(200);
    jane("/apis").await.is(200);
}

#[tokio::test]
async fn a_binding_gives_what_its_role_says_there_and_nowhere_else() {
    let door = guarded().await;
    door.post(ROLES, role("look", &["get", "list"], &["pods"])).await.is(201);
    door.post(BINDINGS, binding("b", "Role", "look", "jane")).await.is(201);
    let jane = |method: &'static str, path: &'static str| {
        door.acting("jane", &[], method, path, &Value::Null)
    };
    jane("GET", PODS).await.is(200);
    jane("DELETE", "/api/v1/namespaces/default/pods/x").await.is(403);
    jane("GET", "/api/v1/namespaces/kube-system/pods").await.is(403);
    jane("GET", "/api/v1/pods").await.is(403);
    jane("GET", "/api/v1/namespaces/default/secrets").await.is(403);
    // The next request knows that the role is gone.
    door.delete(&format!("{ROLES}/look")).await.is(200);
    let reply = jane("GET", PODS).await.is(403);
    assert!(
        reply.message().ends_with(r#": RBAC: role.rbac.authorization.k8s.io "look" not found"#),
        "{}",
        reply.message()
    );
}

#[tokio::test]
async fn a_rule_about_names_holds_for_a_list_of_that_name_too() {
    let door = guarded().await;
    let mut one = role("one", &["get", "list", "watch"], &["secrets"]);
    one["rules"][0]["resourceNames"] = json!(["mine"]);
    door.post(ROLES, one).await.is(201);
    door.post(BINDINGS, binding("b", "Role", "one", "jane")).await.is(201);
    let list = "/api/v1/namespaces/default/secrets";
    let jane = async |path: &str| door.acting("jane", &[], "GET", path, &Value::Null).await.code;
    assert_eq!(jane(&format!("{list}/mine")).await, 404);
    assert_eq!(jane(&format!("{list}/yours")).await, 403);
    assert_eq!(jane(list).await, 403);
    assert_eq!(jane(&format!("{list}?fieldSelector=metadata.name%3Dmine")).await, 200);
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_have() {
    let door = guarded().await;
    door.post(
        ROLES,
        json!({"metadata": {"name": "writer"}, "rules": [
            {"verbs": ["create", "update"], "apiGroups": ["rbac.authorization.k8s.io"],
             "resources": ["roles", "rolebindings"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
        ]}),
    )
    .await
    .is(201);
    door.post(BINDINGS, binding("w", "Role", "writer", "rita")).await.is(201);
    let rita = async |path: &str, body: Value| door.acting("rita", &[], "POST", path, &body).await;
    rita(ROLES, role("same", &["get"], &["pods"])).await.is(201);
    let reply = rita(ROLES, role("more", &["get", "list"], &["pods", "secrets"])).await.is(403);
    assert_eq!(
        reply.message(),
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"rita\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}"
    );
    rita(BINDINGS, binding("me", "ClusterRole", "cluster-admin", "rita")).await.is(403);
    rita(BINDINGS, binding("none", "Role", "none", "rita")).await.is(404);
    rita(BINDINGS, binding("fine", "Role", "same", "jane")).await.is(201);
    // The admin lets her bind one role that she does not have.
    let mut bind = role("binder", &["bind"], &["clusterroles"]);
    bind["rules"][0]["apiGroups"] = json!(["rbac.authorization.k8s.io"]);
    bind["rules"][0]["resourceNames"] = json!(["view"]);
    door.post(ROLES, bind).await.is(201);
    door.post(BINDINGS, binding("b", "Role", "binder", "rita")).await.is(201);
    rita(BINDINGS, binding("v", "ClusterRole", "view", "jane")).await.is(201);
    rita(BINDINGS, binding("e", "ClusterRole", "system:node", "jane")).await.is(403);
}

#[tokio::test]
async fn acting_as_somebody_takes_a_rule_for_each_part_of_them() {
    let door = guarded().await;
    let as_guest = async |headers: &[(&str, &str)]| {
        door.call_as(Who::Guest, "GET", "/version", headers, b"").await
    };
    let reply = as_guest(&[("impersonate-user", "jane")]).await.is(403);
    assert_eq!(
        reply.message(),
        r#"users "jane" is forbidden: User "guest" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
    door.post(CLUSTER_ROLES, role("act", &["impersonate"], &["users"])).await.is(201);
    let all = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    door.post(all, binding("act", "ClusterRole", "act", "guest")).await.is(201);
    as_guest(&[("impersonate-user", "jane")]).await.is(200);
    as_guest(&[("impersonate-user", "jane"), ("impersonate-group", "system:masters")])
        .await
        .is(403);
    as_guest(&[("impersonate-user", "jane"), ("impersonate-uid", "1")]).await.is(403);
    as_guest(&[("impersonate-user", "jane"), ("impersonate-extra-team", "a")]).await.is(403);
    as_guest(&[("impersonate-user", "system:serviceaccount:a:b")]).await.is(403);
    as_guest(&[("impersonate-group", "x")]).await.is(400);
}

#[tokio::test]
async fn reviews_answer_for_others_and_for_oneself() {
    let door = guarded().await;
    let review = "/apis/authorization.k8s.io/v1";
    let asks = |user: &str, verb: &str| {
        json!({"spec": {"user": user, "resourceAttributes": {
            "verb": verb, "resource": "pods", "namespace": "default",
        }}})
    };
    door.post(BINDINGS, binding("v", "ClusterRole", "system:aggregate-to-view", "jane"))
        .await
        .is(201);
    let path = format!("{review}/subjectaccessreviews");
    let yes = door.post(&path, asks("jane", "list")).await.is(201);
    assert_eq!(
        yes.body["status"],
        json!({"allowed": true, "reason": "RBAC: allowed by RoleBinding \"v/default\" of ClusterRole \"system:aggregate-to-view\" to User \"jane\""})
    );
    let no = door.post(&path, asks("jane", "delete")).await.is(201);
    assert_eq!(no.body["status"], json!({"allowed": false}));
    door.post(&path, json!({"spec": {"user": "jane"}})).await.is(422);
    door.post(&path, json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}))
        .await
        .is(422);
    let local = format!("{review}/namespaces/default/localsubjectaccessreviews");
    assert_eq!(
        door.post(&local, asks("jane", "list")).await.is(201).body["status"]["allowed"],
        true
    );
    let elsewhere = format!("{review}/namespaces/kube-system/localsubjectaccessreviews");
    door.post(&elsewhere, asks("jane", "list")).await.is(422);

    let own = format!("{review}/selfsubjectaccessreviews");
    let reply = door.acting("jane", &[], "POST", &own, &asks("", "list")).await.is(201);
    assert_eq!(reply.body["status"]["allowed"], true);
    let rules = format!("{review}/selfsubjectrulesreviews");
    let asked = json!({"spec": {"namespace": "default"}});
    let reply = door.acting("jane", &[], "POST", &rules, &asked).await.is(201);
    let rules = reply.body["status"]["resourceRules"].as_array().unwrap().clone();
    assert!(rules.iter().any(|it| it["resources"].as_array().unwrap().contains(&json!("pods"))));
    assert_eq!(reply.body["status"]["incomplete"], false);

    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let reply = door.acting("jane", &["team"], "POST", who, &json!({})).await.is(201);
    assert_eq!(
        reply.body["status"]["userInfo"],
        json!({"username": "jane", "groups": ["team", "system:authenticated"]})
    );
    // Asking about others is not everybody's.
    door.acting("jane", &[], "POST", &path, &asks("bob", "list")).await.is(403);
    door.get(&path).await.is(405);
}

#[tokio::test]
async fn every_cluster_has_its_roles_and_keeps_what_was_added_to_them() {
    let store = house::memory();
    let access = Access { default_roles: true, ..Access::default() };
    let config = || apiserver::Config { access: access.clone(), ..house::config() };
    let roles = async |server: &Arc<apiserver::Server>| {
        let world = server.client("system:test").world();
        let role = world.cluster::<api::rbac::v1::ClusterRole>("system:basic-user").unwrap();
        (world.all::<api::rbac::v1::ClusterRole>().count(), role.rules.as_ref().unwrap().len())
    };
    let server = apiserver::open(store.clone(), config()).await.unwrap();
    let (count, rules) = roles(&server).await;
    assert_eq!((count, rules), (72, 2));
    let client = server.client("system:test");
    let role = client.world().cluster::<api::rbac::v1::ClusterRole>("system:basic-user").unwrap();
    let mut role = role.to_owned();
    role.rules = Some(vec![api::rbac::v1::PolicyRule {
        verbs: vec!["get".to_owned()],
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["pods".to_owned()]),
        ..Default::default()
    }]);
    client.write(vec![world::Change::update(role)]).await.unwrap();
    drop((client, server));
    let again = apiserver::open(store, config()).await.unwrap();
    let (_, rules) = roles(&again).await;
    assert!(rules > 2, "what was taken away is back, what was added is kept: {rules}");
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what_and_no_secret_at_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let policy = AuditPolicy::parse(
        "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, resources: [{group: '', resources: [secrets]}]}
- {level: None, nonResourceURLs: ['*']}
- {level: RequestResponse}
",
    );
    let audit = Some(AuditConfig::open(policy.unwrap(), &path).unwrap());
    let door = Door::open_guarded(Access { audit, ..Access::default() }).await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"word": "sesame-open"}});
    door.post("/api/v1/namespaces/default/secrets", secret).await.is(201);
    door.get("/api/v1/namespaces/default/secrets/s").await.is(200);
    door.get("/version").await.is(200);
    door.acting("jane", &[], "GET", PODS, &Value::Null).await.is(403);
    door.bearing("wrong-token", "GET", PODS).await.is(401);
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "visible"}});
    door.post("/api/v1/namespaces/default/configmaps", map).await.is(201);

    // In whatever form it is sent and answered.
    let maps = "/api/v1/namespaces/default/configmaps";
    let packed = wire::ask(&door, "GET", &format!("{maps}/m"), PROTOBUF, b"").await.is(200);
    wire::ask(&door, "PUT", &format!("{maps}/m"), PROTOBUF, &packed.bytes).await.is(200);

    let log = std::fs::read_to_string(&path).unwrap();
    for hidden in ["sesame", "c2VzYW1l", "wrong-token"] {
        assert!(!log.contains(hidden), "{hidden}");
    }
    let events: Vec<Value> = log.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let shown: Vec<String> = events
        .iter()
        .map(|it| {
            format!(
                "{} {} {} {} {}",
                it["level"].as_str().unwrap(),
                it["verb"].as_str().unwrap(),
                it["objectRef"]["resource"].as_str().unwrap(),
                it["responseStatus"]["code"],
                it["annotations"]["authorization.k8s.io/decision"].as_str().unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "Metadata create secrets 201 allow",
            "Metadata get secrets 200 allow",
            "RequestResponse list pods 403 forbid",
            "RequestResponse list pods 401 -",
            "RequestResponse create configmaps 201 allow",
            "RequestResponse get configmaps 200 allow",
            "RequestResponse update configmaps 200 allow",
        ]
    );
    assert_eq!(events[2]["user"]["username"], "admin");
    assert_eq!(events[2]["impersonatedUser"]["username"], "jane");
    assert_eq!(events[4]["requestObject"]["data"]["a"], "visible");
    for (event, said) in
        [(4, "responseObject"), (5, "responseObject"), (6, "requestObject"), (6, "responseObject")]
    {
        assert_eq!(events[event][said]["data"]["a"], "visible", "{event} {said}");
    }
}

#[tokio::test]
async fn secrets_are_sealed_in_the_store_and_open_everywhere_else() {
    let config = |providers: &str| {
        let text = format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{{resources: [secrets], providers: [{providers}]}}]}}"
        );
        let encryption = Encryption::parse(&text).unwrap();
        let access = Access { encryption, ..Access::default() };
        apiserver::Config { access, ..house::config() }
    };
    let key =
        "{aesgcm: {keys: [{name: key1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=}]}}";
    let store = house::memory();
    let open = async |config| apiserver::open(store.clone(), config).await;
    let stored = async || {
        let snapshot = store.snapshot().await.unwrap();
        let range = store::KeyRange::prefix("/registry/secrets/");
        let page = snapshot.range(&range, 10, None).unwrap();
        page.entries.iter().map(|it| it.value.clone()).collect::<Vec<_>>()
    };
    let secret = |name: &str| {
        house::object::<api::core::v1::Secret>(
            json!({"metadata": {"name": name, "namespace": "default"}, "stringData": {"a": "sesame"}}),
        )
    };
    let server = open(config(key)).await.unwrap();
    let client = server.client("system:test");
    client.write(vec![world::Change::create(secret("s"))]).await.unwrap();
    let kept = stored().await;
    assert!(kept[0].starts_with(b"k8s:enc:aesgcm:v1:key1:"));
    assert!(!String::from_utf8_lossy(&kept[0]).contains("c2VzYW1l"));
    drop((client, server));

    // With the key it is read again; without it the door does not open.
    let server = open(config(key)).await.unwrap();
    let world = server.client("system:test").world();
    let found = world.get::<api::core::v1::Secret>(&world::ObjectKey::new("default", "s"));
    assert_eq!(found.unwrap().data.as_ref().unwrap()["a"].0, b"sesame");
    drop(server);
    assert!(open(house::config()).await.is_err(), "no key");
    assert!(open(config("{identity: {}}")).await.is_err(), "no key");
    // Identity first: what is written is plain from now on, and the old is still read.
    let server = open(config(&format!("{{identity: {{}}}}, {key}"))).await.unwrap();
    let client = server.client("system:test");
    client.write(vec![world::Change::create(secret("t"))]).await.unwrap();
    assert_eq!(stored().await.iter().filter(|it| it.starts_with(b"k8s:enc:")).count(), 1);
}
