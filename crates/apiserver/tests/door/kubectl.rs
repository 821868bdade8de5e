//! The door as kubectl finds it: the real program, over HTTPS.

use crate::house::Door;
use serde_json::json;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::process::Command;

/// kubectl with a home of its own, so that it remembers nothing from elsewhere.
struct Kubectl {
    home: TempDir,
}

struct Said {
    ok: bool,
    out: String,
    errors: String,
}

impl Kubectl {
    /// `None`, and says so, where there is no kubectl.
    fn find(door: &Door) -> Option<Kubectl> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&paths).any(|it| it.join("kubectl").exists()) {
            println!("skipped: no kubectl");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config"), door.kubeconfig().to_string()).unwrap();
        Some(Kubectl { home })
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        let output = Command::new("kubectl")
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"))
            .stdin(Stdio::null())
            .output()
            .await
            .expect("kubectl starts");
        Said {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs what has to succeed without a warning.
    #[track_caller]
    fn quiet(said: Said) -> String {
        assert!(said.ok && said.errors.is_empty(), "{}{}", said.out, said.errors);
        said.out
    }

    fn file(&self, name: &str, object: &serde_json::Value) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, object.to_string()).unwrap();
        path.to_string_lossy().into_owned()
    }
}

fn web(image: &str) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "serviceName": "nginx", "replicas": 3,
            "selector": {"matchLabels": {"app": "nginx"}},
            "template": {
                "metadata": {"labels": {"app": "nginx"}},
                "spec": {"containers": [
                    {"name": "nginx", "image": image, "ports": [{"containerPort": 80}],
                     "volumeMounts": [{"name": "www", "mountPath": "/www"}]},
                    {"name": "side", "image": "side:1"},
                ]},
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "www"},
                "spec": {"accessModes": ["ReadWriteOnce"],
                         "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    })
}

#[tokio::test]
async fn explains_kinds_and_fields() {
    let door = Door::open().await;
    let Some(kubectl) = Kubectl::find(&door) else { return };
    let said = Kubectl::quiet(kubectl.run(&["explain", "statefulset.spec", "--recursive"]).await);
    assert!(said.contains("GROUP:      apps") && said.contains("VERSION:    v1"), "{said}");
    for field in ["volumeClaimTemplates", "persistentVolumeClaimRetentionPolicy", "tolerations"] {
        assert!(said.contains(field), "{field}: {said}");
    }
    assert!(said.contains("serviceName\t<string>"), "{said}");
    let said = Kubectl::quiet(kubectl.run(&["explain", "pod.spec.volumes"]).await);
    assert!(said.contains("FIELD: volumes <[]Volume>"), "{said}");
    assert!(said.contains("name\t<string> -required-"), "{said}");
    let wrong = kubectl.run(&["explain", "pod.spec.volume"]).await;
    assert!(wrong.errors.contains("field \"volume\" does not exist"), "{}", wrong.errors);
}

#[tokio::test]
async fn applies_and_merges_containers_by_name() {
    let door = Door::open().await;
    let Some(kubectl) = Kubectl::find(&door) else { return };
    let file = kubectl.file("web.json", &web("nginx:1"));
    for how in ["--dry-run=server", "--dry-run=client"] {
        let said = Kubectl::quiet(kubectl.run(&["apply", "-f", &file, how]).await);
        assert!(said.starts_with("statefulset.apps/web created"), "{said}");
    }
    let path = "/apis/apps/v1/namespaces/default/statefulsets/web";
    door.get(path).await.is(404);
    Kubectl::quiet(kubectl.run(&["apply", "-f", &file]).await);

    // Another writer's container stays, ours changes.
    let mut object = door.get(path).await.is(200).body;
    let containers = object["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "other", "image": "other:1"}));
    door.put(path, &object).await.is(200);
    let file = kubectl.file("web.json", &web("nginx:2"));
    let said = Kubectl::quiet(kubectl.run(&["apply", "-f", &file]).await);
    assert!(said.contains("configured"), "{said}");
    let object = door.get(path).await.is(200).body;
    let containers = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let images: Vec<_> = containers.iter().map(|it| it["image"].as_str().unwrap()).collect();
    assert_eq!(images, ["nginx:2", "side:1", "other:1"]);
}

/// Defaults that the door filled in are no changes of the author's.
#[tokio::test]
async fn applies_again_without_a_change() {
    let door = Door::open().await;
    let Some(kubectl) = Kubectl::find(&door) else { return };
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "nginx"},
        "spec": {"clusterIP": "None", "selector": {"app": "nginx"},
                 "ports": [{"port": 80, "name": "web"}, {"port": 81, "name": "more"}]},
    });
    let file = kubectl.file("service.json", &service);
    Kubectl::quiet(kubectl.run(&["apply", "-f", &file]).await);
    let said = Kubectl::quiet(kubectl.run(&["apply", "-f", &file]).await);
    assert_eq!(said, "service/nginx unchanged\n");
}

/// Describing a node asks for its pods by field.
#[tokio::test]
async fn describes_nodes_and_pods() {
    let door = Door::open().await;
    let Some(kubectl) = Kubectl::find(&door) else { return };
    door.post("/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await.is(201);
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]},
    });
    door.post("/api/v1/namespaces/default/pods", pod).await.is(201);
    let said = Kubectl::quiet(kubectl.run(&["describe", "node", "n1"]).await);
    assert!(said.contains("Non-terminated Pods:          (1 in total)"), "{said}");
    let said = Kubectl::quiet(kubectl.run(&["describe", "pod", "p"]).await);
    assert!(said.contains("Node:             n1"), "{said}");
}

#[tokio::test]
async fn refuses_unknown_fields_by_name() {
    let door = Door::open().await;
    let Some(kubectl) = Kubectl::find(&door) else { return };
    let mut object = web("nginx:1");
    object["spec"]["replcas"] = json!(2);
    let file = kubectl.file("web.json", &object);
    let said = kubectl.run(&["apply", "-f", &file]).await;
    assert!(!said.ok && said.errors.contains("unknown field \"spec.replcas\""), "{}", said.errors);
}

/// A person turns from client-side to server-side apply, meets an autoscaler, and says who wins.
#[tokio::test]
async fn applies_on_the_servers_side() {
    let door = Door::open().await;
    let Some(kubectl) = Kubectl::find(&door) else { return };
    // Claim templates have one owner and are defaulted within: upstream, too, tells of a conflict there.
    let web = |image: &str| {
        let mut set = web(image);
        set["spec"].as_object_mut().unwrap().remove("volumeClaimTemplates");
        set["spec"]["template"]["spec"]["volumes"] = json!([{"name": "www", "emptyDir": {}}]);
        set
    };
    let file = kubectl.file("web.json", &web("nginx:1"));
    Kubectl::quiet(kubectl.run(&["apply", "-f", &file]).await);
    let applied = Kubectl::quiet(kubectl.run(&["apply", "--server-side", "-f", &file]).await);
    assert_eq!(applied, "statefulset.apps/web serverside-applied\n");
    let owners = "-o=jsonpath={range .metadata.managedFields[*]}{.manager} {.operation};{end}";
    let get = ["get", "sts", "web", "--show-managed-fields", owners];
    let said = Kubectl::quiet(kubectl.run(&get).await);
    assert!(said.contains("kubectl Apply;"), "{said}");
    assert!(!said.contains("client-side"), "what was applied there is applied here now: {said}");

    Kubectl::quiet(kubectl.run(&["scale", "sts", "web", "--replicas=5"]).await);
    let refused = kubectl.run(&["apply", "--server-side", "-f", &file]).await;
    let why = "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert!(refused.errors.contains(why), "{}", refused.errors);
    let forced = kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &file]).await;
    Kubectl::quiet(forced);
    let other = kubectl.file("other.json", &web("nginx:2"));
    let differs = kubectl.run(&["diff", "--server-side", "-f", &other]).await;
    assert!(differs.out.contains("+      - image: nginx:2"), "{}{}", differs.out, differs.errors);
    let told = kubectl.run(&["apply", "--server-side", "--field-manager=me", "-f", &other]).await;
    let path = ".spec.template.spec.containers[name=\"nginx\"].image";
    assert!(told.errors.contains(&format!("conflict with \"kubectl\": {path}")), "{}", told.errors);
    let dry = ["apply", "--server-side", "--dry-run=server", "-f", &other];
    assert!(Kubectl::quiet(kubectl.run(&dry).await).contains("(server dry run)"));
    let image = "-o=jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(Kubectl::quiet(kubectl.run(&["get", "sts", "web", image]).await), "nginx:1");
}
