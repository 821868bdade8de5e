//! Who may: roles as kubectl gives and asks for them, tokens that a pod reads and that end with it, and
//! a certificate that somebody asks for and somebody approves.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use std::{fs, os::unix::fs::MetadataExt};
use tests::{Cluster, Said, until};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  serviceAccountName: web
  securityContext: {runAsUser: 1000, fsGroup: 2000}
  containers:
  - name: c
    image: stanchion.dev/toolbox:1
    args: [sleep, infinity]
";

/// A client with nothing but what a pod is given: by the name of the API's Service, and as client libraries
/// find it by themselves.
const INSIDE: &str = r"
apiVersion: v1
kind: ConfigMap
metadata: {name: by-name}
data:
  config: |
    apiVersion: v1
    kind: Config
    current-context: inside
    contexts: [{name: inside, context: {cluster: inside, user: inside, namespace: default}}]
    clusters: [{name: inside, cluster: {server: 'https://kubernetes.default.svc',
      certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt}}]
    users: [{name: inside, user: {tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token}}]
---
apiVersion: v1
kind: Pod
metadata: {name: inside}
spec:
  serviceAccountName: web
  restartPolicy: Never
  containers:
  - name: by-name
    image: stanchion.dev/toolbox:1
    command: [/bin-of-kubectl/kubectl, get, pods, -o, name, --cache-dir=/tmp/by-name]
    env: [{name: KUBECONFIG, value: /by-name/config}]
    volumeMounts: [{name: kubectl, mountPath: /bin-of-kubectl}, {name: by-name, mountPath: /by-name}]
  - name: by-itself
    image: stanchion.dev/toolbox:1
    command: [/bin-of-kubectl/kubectl, get, pods, -o, name, --cache-dir=/tmp/by-itself]
    volumeMounts: [{name: kubectl, mountPath: /bin-of-kubectl}]
  volumes:
  - {name: kubectl, hostPath: {path: KUBECTL}}
  - {name: by-name, configMap: {name: by-name}}
";

const FILES: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A file that asks who is asking.
fn review(cluster: &Cluster) -> String {
    let file = cluster.directory().join("review.json");
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    fs::write(&file, review).unwrap();
    file.to_str().unwrap().to_owned()
}

/// kubectl with nothing but a token.
fn bearing(cluster: &Cluster, token: &str, words: &[&str]) -> Said {
    let config = cluster.json(&["config", "view"]);
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
    let alone = ["--kubeconfig", "/dev/null", "--insecure-skip-tls-verify", "--server", &server];
    cluster.try_kubectl(&[&alone[..], &["--token", token], words].concat())
}

/// Where the kubectl on the PATH really is; it is linked statically wherever it comes from.
fn kubectl_directory() -> Option<String> {
    let found = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&found).map(|it| it.join("kubectl")).find(|it| it.is_file())?;
    let program = fs::canonicalize(found).ok()?;
    let is_program = fs::read(&program).is_ok_and(|it| it.starts_with(b"\x7fELF"));
    let is_named = program.file_name().is_some_and(|it| it == "kubectl");
    let directory = program.parent().filter(|_| is_program && is_named)?;
    Some(directory.to_str()?.to_owned())
}

fn claims(token: &str) -> Value {
    let middle = token.trim().split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
}

#[test]
fn tokens_open_what_roles_say_and_end_with_their_pod() {
    let Some(cluster) = Cluster::start("access") else { return };
    let admin = cluster.try_kubectl(&["create", "--raw", REVIEWS, "-f", &review(&cluster)]);
    assert!(admin.out.contains("kubernetes-admin"), "{admin:?}");
    assert_eq!(cluster.kubectl(&["auth", "can-i", "delete", "nodes"]).trim(), "yes");
    cluster.kubectl(&["create", "serviceaccount", "web"]);
    let web = "system:serviceaccount:default:web";
    let may = |verb: &str, what: &str| {
        let said = cluster.try_kubectl(&["auth", "can-i", verb, what, "--as", web]);
        said.out.trim().to_owned()
    };
    assert_eq!(may("list", "pods"), "no");
    cluster.kubectl(&["create", "role", "look", "--verb=get,list", "--resource=pods"]);
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "look",
        "--role=look",
        "--serviceaccount=default:web",
    ]);
    assert_eq!(may("list", "pods"), "yes");
    assert_eq!(may("list", "secrets"), "no");
    let listed = cluster.kubectl(&["auth", "can-i", "--list", "--as", web]);
    assert!(listed.lines().any(|it| it.starts_with("pods ")), "{listed}");

    let file = cluster.directory().join("token.json");
    let spec = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"expirationSeconds":600}}"#;
    fs::write(&file, spec).unwrap();
    let path = "/api/v1/namespaces/default/serviceaccounts/web/token";
    let token = cluster.kubectl(&["create", "--raw", path, "-f", file.to_str().unwrap()]);
    let token: Value = serde_json::from_str(&token).unwrap();
    let token = token["status"]["token"].as_str().unwrap();
    assert!(bearing(&cluster, token, &["get", "pods"]).ok);
    let refused = bearing(&cluster, token, &["get", "secrets"]);
    assert!(
        refused.errors.contains(
            "secrets is forbidden: User \"system:serviceaccount:default:web\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\""
        ),
        "{refused:?}"
    );

    // A pod reads its own.
    cluster.apply(POD);
    cluster.wait_ready("reader");
    let file = |name: &str| cluster.exec("reader", &["cat", &format!("{FILES}/{name}")], "");
    let token = file("token");
    let (token, said) = (token.trim(), claims(&token));
    assert_eq!(said["sub"], web);
    let bound = &said["kubernetes.io"];
    let pod = cluster.json(&["get", "pod", "reader"]);
    assert_eq!(bound["pod"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(bound["node"]["name"], pod["spec"]["nodeName"]);
    assert_eq!(file("namespace"), "default");
    assert!(file("ca.crt").contains("BEGIN CERTIFICATE"));
    let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let below = format!("kubelet/pods/{uid}/volumes/kubernetes.io~projected/{volume}/token");
    let found = fs::metadata(cluster.data_dir().join(below)).unwrap();
    let owned = (found.mode() & 0o777, found.uid(), found.gid());
    assert_eq!(owned, (0o640, 1000, 2000), "its user and its group read it, nobody else");
    assert!(bearing(&cluster, token, &["get", "pods"]).ok);
    cluster.kubectl(&["delete", "pod", "reader", "--grace-period=0", "--force"]);
    until("the token of a pod that is gone opens nothing", || {
        match bearing(&cluster, token, &["get", "pods"]) {
            said if said.errors.contains("Unauthorized") => Ok(()),
            said => Err(format!("{said:?}")),
        }
    });

    // A client in a pod finds the API, believes it, and is believed.
    if let Some(kubectl) = kubectl_directory() {
        cluster.apply(&INSIDE.replace("KUBECTL", &kubectl));
        cluster.wait_for("the clients are done", &["pod", "inside"], |it| {
            let ended = matches!(it["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            ended.then_some(())
        });
        for container in ["by-name", "by-itself"] {
            let said = cluster.kubectl(&["logs", "inside", "-c", container]);
            assert_eq!(said.trim(), "pod/inside", "{container}");
        }
        cluster.kubectl(&["delete", "pod/inside", "configmap/by-name"]);
    } else {
        println!("skipped: a client in a pod needs a kubectl that is a program of its own");
    }

    // What every namespace has comes back.
    cluster.kubectl(&["delete", "configmap", "kube-root-ca.crt"]);
    until("the certificate is published again", || {
        let map = cluster.look(&["get", "configmap", "kube-root-ca.crt"]);
        if map.is_null() { Err("it is not there".to_owned()) } else { Ok(()) }
    });

    // A token with which a node joins is one line, and ends when it is told to.
    let joining = cluster.stanchion_ok(&["token", "create"]);
    // Its third part says how to know the server, and is not for the server.
    let joining = joining.trim().rsplit_once('.').unwrap().0.to_owned();
    let ask = ["create", "--raw", REVIEWS, "-f", &review(&cluster)];
    let who = bearing(&cluster, joining.trim(), &ask);
    assert!(who.out.contains("system:bootstrappers"), "{who:?}");
    let id = joining.split('.').next().unwrap().to_owned();
    assert!(cluster.stanchion_ok(&["token", "list"]).contains(&id));
    cluster.stanchion_ok(&["token", "delete", &id]);
    assert!(!bearing(&cluster, joining.trim(), &ask).ok);
}
