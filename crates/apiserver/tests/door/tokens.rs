//! Tokens of service accounts: what they say, whom they open for, and what ends them.

use crate::house::Door;
use apiserver::Access;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/default/token";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEW: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

async fn guarded() -> Door {
    let access = Access { root_ca: "PEM".to_owned(), ..Access::default() };
    Door::open_guarded(access).await
}

fn token(reply: &Value) -> String {
    reply["status"]["token"].as_str().expect("a token").to_owned()
}

fn claims(token: &str) -> Value {
    let middle = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
}

async fn pod(door: &Door, name: &str) -> Value {
    let pod = json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "c", "image": "x"},
    ]}});
    door.post(PODS, pod).await.is(201).body
}

#[tokio::test]
async fn a_token_names_its_account_and_opens_as_it() {
    let door = guarded().await;
    let reply = door.post(TOKEN, json!({"spec": {"expirationSeconds": 600}})).await.is(201);
    let token = token(&reply.body);
    let said = claims(&token);
    assert_eq!(said["sub"], "system:serviceaccount:default:default");
    assert_eq!(said["aud"], json!(["https://kubernetes.default.svc.cluster.local"]));
    assert_eq!(said["iss"], "https://kubernetes.default.svc.cluster.local");
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 600);
    let bound = &said["kubernetes.io"];
    assert_eq!(bound["namespace"], "default");
    assert_eq!(bound["serviceaccount"]["name"], "default");
    let refused = door.bearing(&token, "GET", PODS).await.is(403);
    assert!(refused.message().contains("User \"system:serviceaccount:default:default\" cannot"));
    let groups = json!({
        "metadata": {"name": "g"}, "roleRef": {"kind": "ClusterRole", "name": "system:aggregate-to-view"},
        "subjects": [{"kind": "Group", "name": "system:serviceaccounts:default"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    door.post(bindings, groups).await.is(201);
    door.bearing(&token, "GET", PODS).await.is(200);
    // Another tenant's namespace stays closed to it.
    door.bearing(&token, "GET", "/api/v1/namespaces/kube-system/pods").await.is(403);
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let door = guarded().await;
    let bound = |kind: &str, object: &Value| {
        json!({"spec": {"boundObjectRef": {
            "kind": kind, "apiVersion": "v1", "name": object["metadata"]["name"],
            "uid": object["metadata"]["uid"],
        }}})
    };
    let who = async |token: &str| door.bearing(token, "GET", "/version").await.code;
    let first = pod(&door, "p").await;
    let of_pod = token(&door.post(TOKEN, bound("Pod", &first)).await.is(201).body);
    assert_eq!(claims(&of_pod)["kubernetes.io"]["pod"]["name"], "p");
    assert_eq!(who(&of_pod).await, 200);
    door.call("DELETE", &format!("{PODS}/p"), "application/json", r#"{"gracePeriodSeconds":0}"#)
        .await
        .is(200);
    assert_eq!(who(&of_pod).await, 401);
    // Another pod of the name is another pod.
    pod(&door, "p").await;
    assert_eq!(who(&of_pod).await, 401);
    door.post(TOKEN, bound("Pod", &first)).await.is(409);

    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = door.post(secrets, json!({"metadata": {"name": "s"}})).await.is(201).body;
    let of_secret = token(&door.post(TOKEN, bound("Secret", &secret)).await.is(201).body);
    assert_eq!(who(&of_secret).await, 200);
    door.delete(&format!("{secrets}/s")).await.is(200);
    assert_eq!(who(&of_secret).await, 401);

    let plain = token(&door.post(TOKEN, json!({})).await.is(201).body);
    assert_eq!(who(&plain).await, 200);
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    door.delete(account).await.is(200);
    assert_eq!(who(&plain).await, 401);
    let again = json!({"metadata": {"name": "default"}});
    door.post("/api/v1/namespaces/default/serviceaccounts", again).await.is(201);
    assert_eq!(who(&plain).await, 401, "another account of the name");
}

#[tokio::test]
async fn a_token_opens_only_for_whom_it_is_meant() {
    let door = guarded().await;
    let asked = json!({"spec": {"audiences": ["vault"]}});
    let token = token(&door.post(TOKEN, asked).await.is(201).body);
    door.bearing(&token, "GET", "/version").await.is(401);
    let review = async |audiences: Value| {
        let asked = json!({"spec": {"token": token, "audiences": audiences}});
        door.post(REVIEW, asked).await.is(201).body["status"].clone()
    };
    let yes = review(json!(["other", "vault"])).await;
    assert_eq!(yes["authenticated"], true);
    assert_eq!(yes["audiences"], json!(["vault"]));
    assert_eq!(yes["user"]["username"], "system:serviceaccount:default:default");
    assert_ne!(review(json!(["other"])).await["authenticated"], true);
    assert_ne!(review(json!([])).await["authenticated"], true);
    door.post(REVIEW, json!({"spec": {}})).await.is(400);
    // Another cluster's token is no token.
    let other = guarded().await;
    let foreign = other.post(TOKEN, json!({})).await.is(201).body;
    let foreign = self::token(&foreign);
    let status = door.post(REVIEW, json!({"spec": {"token": foreign}})).await.body;
    assert_ne!(status["status"]["authenticated"], true);
    door.bearing(&foreign, "GET", "/version").await.is(401);
}

#[tokio::test]
async fn what_no_token_is_issued_for_is_said() {
    let door = guarded().await;
    let ask = async |spec: Value| door.post(TOKEN, json!({"spec": spec})).await;
    let short = ask(json!({"expirationSeconds": 599})).await.is(422);
    assert!(short.message().ends_with("may not specify a duration less than 10 minutes"));
    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}});
    ask(bound).await.is(404);
    let odd =
        json!({"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}});
    let reply = ask(odd).await.is(400);
    assert_eq!(reply.message(), "cannot bind token to object of type apps/v1, Kind=Deployment");
    let none = "/api/v1/namespaces/default/serviceaccounts/none/token";
    door.post(none, json!({})).await.is(404);
    door.acting("jane", &[], "POST", TOKEN, &json!({})).await.is(403);
}

#[tokio::test]
async fn a_pod_gets_its_accounts_files_unless_it_will_have_none() {
    let door = guarded().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "web"}, "imagePullSecrets": [{"name": "pull"}]});
    door.post(accounts, account).await.is(201);
    let make = async |name: &str, more: Value| {
        let mut spec = json!({"serviceAccountName": "web", "initContainers": [
            {"name": "i", "image": "x"},
        ], "containers": [
            {"name": "a", "image": "x"},
            {"name": "b", "image": "x", "volumeMounts": [
                {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
            ]},
        ], "volumes": [{"name": "own", "emptyDir": {}}]});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        door.post(PODS, json!({"metadata": {"name": name}, "spec": spec})).await
    };
    let pod = make("p", json!({})).await.is(201).body;
    let spec = &pod["spec"];
    let volume = &spec["volumes"][1];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    for (of, n) in [("initContainers", 0), ("containers", 0)] {
        let mount = &spec[of][n]["volumeMounts"][0];
        assert_eq!(mount["name"], name);
        assert_eq!(mount["readOnly"], true);
    }
    assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    let without = make("q", json!({"automountServiceAccountToken": false})).await.is(201).body;
    assert_eq!(without["spec"]["volumes"].as_array().unwrap().len(), 1);
    let refused = make("r", json!({"serviceAccountName": "none"})).await.is(403);
    assert_eq!(
        refused.message(),
        r#"pods "r" is forbidden: error looking up service account default/none: serviceaccount "none" not found"#
    );
}

#[tokio::test]
async fn a_secret_of_the_kind_holds_a_token_of_its_account() {
    let door = guarded().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({
        "metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "default"}},
        "type": "kubernetes.io/service-account-token",
    });
    let made = door.post(secrets, secret).await.is(201).body;
    let text = |key: &str| {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(made["data"][key].as_str().unwrap())
            .unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!((text("namespace").as_str(), text("ca.crt").as_str()), ("default", "PEM"));
    door.bearing(&text("token"), "GET", "/version").await.is(200);
    door.delete(&format!("{secrets}/s")).await.is(200);
    door.bearing(&text("token"), "GET", "/version").await.is(401);
}

#[tokio::test]
async fn bootstrap_tokens_open_for_bootstrappers_until_their_time_is_over() {
    let door = guarded().await;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let make = async |id: &str, more: Value| {
        let mut data = json!({
            "token-id": id, "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:nodes",
        });
        for (key, value) in more.as_object().unwrap() {
            data[key] = value.clone();
        }
        let secret = json!({
            "metadata": {"name": format!("bootstrap-token-{id}")},
            "type": "bootstrap.kubernetes.io/token", "stringData": data,
        });
        door.post(secrets, secret).await.is(201);
        door.bearing(&format!("{id}.0123456789abcdef"), "GET", "/version").await.code
    };
    assert_eq!(make("aaaaaa", json!({})).await, 200);
    assert_eq!(make("bbbbbb", json!({"expiration": "2020-01-01T00:00:00Z"})).await, 401);
    assert_eq!(make("cccccc", json!({"usage-bootstrap-authentication": "false"})).await, 401);
    assert_eq!(make("dddddd", json!({"auth-extra-groups": "system:masters"})).await, 401);
    door.bearing("aaaaaa.0123456789abcdeX", "GET", "/version").await.is(401);
    door.bearing("aaaaaa.0123456789abcdee", "GET", "/version").await.is(401);
    door.bearing("aaaaaa.0123456789abcdef", "GET", PODS).await.is(403);
}
