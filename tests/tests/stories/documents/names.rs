//! A set of three behind a headless Service: where its pods are, how `dig` sees them, and four ways to scale it.

use super::{DNS, NODES, Site, nodes_of, text};
use serde_json::Value;

const MANIFEST: &str = "apiVersion: v1
kind: Service
metadata: {name: nginx-svc, labels: {app: nginx}}
spec:
  ports: [{port: 80, name: web}]
  clusterIP: None
  selector: {app: nginx}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: nginx-svc
  replicas: 3
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec:
      containers:
      - name: nginx
        image: k8s.gcr.io/nginx-slim:0.8
        ports: [{containerPort: 80, name: web}]
";

pub(super) fn a_headless_service_is_scaled_in_four_ways_and_asked_for_by_name(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.apply(MANIFEST);
    let pods = site.wait_set(3);
    assert_eq!(nodes_of(&pods), NODES, "one on each node");
    let wide = site.wide(&pods);
    assert!(wide.contains("statefulset.apps/web   3/3"), "{wide}");
    assert!(
        wide.lines().any(|it| {
            let words: Vec<&str> = it.split_whitespace().collect();
            words.starts_with(&["service/nginx-svc", "ClusterIP", "None", "<none>", "80/TCP"])
        }),
        "{wide}"
    );

    // From each node, and from the pod on it.
    for pod in &pods {
        let host = site.hosts.host(text(pod, "/spec/nodeName"));
        for named in &pods {
            let name =
                format!("{}.nginx-svc.default.svc.cluster.local", text(named, "/metadata/name"));
            let words = ["dig", "-t", "A", &name, DNS];
            let wanted = format!("{name}. 30 IN A {}", text(named, "/status/podIP"));
            assert_eq!(answers(&host.ok(&words)), [&*wanted], "from {}", host.name());
            assert_eq!(answers(&site.beside(pod, &words)), [&*wanted], "from a pod");
        }
        // As pods shorten it, and as programs ask that complete nothing: for what it stands, and where that is.
        let short = ["dig", "-t", "A", "web-0.nginx-svc", DNS];
        let [alias, address] = &answers(&site.beside(pod, &short))[..] else {
            panic!("web-0.nginx-svc from a pod on {}", host.name())
        };
        assert_eq!(
            alias,
            "web-0.nginx-svc. 30 IN CNAME web-0.nginx-svc.default.svc.cluster.local."
        );
        assert!(address.ends_with(&format!(" 30 IN A {}", text(&pods[0], "/status/podIP"))));
        let all = ["dig", "-t", "A", "nginx-svc.default.svc.cluster.local", DNS];
        assert_eq!(answers(&host.ok(&all)).len(), 3);
    }

    let scaled = kubectl.kubectl(&["scale", "statefulset", "web", "--replicas=4"]);
    assert_eq!(scaled, "statefulset.apps/web scaled\n");
    site.wait_set(4);
    kubectl.apply(&MANIFEST.replace("replicas: 3", "replicas: 2"));
    let two = site.wait_set(2);
    assert_eq!(started(&two), started(&pods[..2]), "who stays is left alone");
    let mut edit = kubectl.kubectl_command(&["edit", "statefulset", "web"]);
    edit.env("KUBE_EDITOR", r"sed -i s/replicas:.2/replicas:\ 3/");
    let edited = edit.output().expect("kubectl runs");
    assert!(edited.status.success(), "{edited:?}");
    site.wait_set(3);
    let patch = r#"{"spec":{"replicas":1}}"#;
    kubectl.kubectl(&["patch", "statefulset", "web", "-p", patch]);
    site.wait_set(1);

    for what in ["statefulset/web", "service/nginx-svc"] {
        kubectl.kubectl(&["delete", what]);
    }
    kubectl.wait_gone(&["pod", "web-0"]);
}

fn started(pods: &[Value]) -> Vec<&str> {
    let started = "/status/containerStatuses/0/state/running/startedAt";
    pods.iter().map(|it| text(it, started)).collect()
}

/// The lines of dig's answer section, one space between words.
fn answers(said: &str) -> Vec<String> {
    let lines = said.lines().skip_while(|it| *it != ";; ANSWER SECTION:").skip(1);
    let lines = lines.take_while(|it| !it.is_empty());
    lines.map(|it| it.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}
