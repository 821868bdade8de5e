//! A Service is one address for pods that come and go: by name, by ClusterIP and by node port.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use tests::{Cluster, until};

const MANIFEST: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: stanchion.dev/toolbox:1
        args: [serve, /www]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: www, mountPath: /www}]
      volumes: [{name: www, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: stanchion.dev/toolbox:1
    args: [sleep, infinity]
";

/// A first packet that got lost is sent again after a second.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The page as this machine gets it: its last line.
fn page(address: &str, port: u16) -> io::Result<String> {
    let place = SocketAddr::new(address.parse().expect("an address"), port);
    let mut stream = TcpStream::connect_timeout(&place, ANSWER_MAX)?;
    stream.write_all(b"GET /name HTTP/1.0\r\nHost: web\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_owned())
}

fn ready(cluster: &Cluster, replicas: i64) {
    cluster.wait_for("the set is as large as wanted", &["statefulset", "web"], |set| {
        let status = &set["status"];
        let all = [&status["readyReplicas"], &status["replicas"]];
        let size = |it: &serde_json::Value| it.as_i64().unwrap_or_default();
        all.into_iter().all(|it| size(it) == replicas).then_some(())
    });
}

#[test]
fn a_service_follows_its_pods() {
    let Some(mut cluster) = Cluster::start("services") else { return };
    cluster.apply(MANIFEST);
    ready(&cluster, 2);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=120s"]);
    for name in ["web-0", "web-1"] {
        cluster.exec(name, &["tee", "/www/name"], name);
    }
    let service = cluster.json(&["get", "service", "web"]);
    let address = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let node_port: u16 =
        service["spec"]["ports"][0]["nodePort"].as_u64().unwrap().try_into().unwrap();
    let node = cluster.json(&["get", "node", "n1"]);
    let node = node["status"]["addresses"][0]["address"].as_str().unwrap().to_owned();

    // From this machine by both, from a pod by name and by address.
    let both: BTreeSet<String> = ["web-0", "web-1"].map(str::to_owned).into();
    for (host, port) in [(address.as_str(), 80), (node.as_str(), node_port)] {
        let mut seen = BTreeSet::new();
        until(&format!("{host}:{port} is both pods"), || {
            seen.insert(page(host, port).map_err(|it| it.to_string())?);
            if seen == both { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }
    let from_pod = |url: &str| cluster.exec("client", &["get", url], "").trim().to_owned();
    for host in ["web", "web.default.svc.cluster.local", &address] {
        assert!(both.contains(&from_pod(&format!("http://{host}/name"))), "{host}");
    }

    // Endpoints that somebody wrote by hand, behind an address and behind a name.
    let pod = cluster.json(&["get", "pod", "web-1"]);
    let pod = pod["status"]["podIP"].as_str().unwrap().to_owned();
    for (name, spec) in [("by-hand", ""), ("by-name", "clusterIP: None, ")] {
        cluster.apply(&format!(
            "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{{spec}ports: [{{port: 8080}}]}}
---
apiVersion: v1
kind: Endpoints
metadata: {{name: {name}}}
subsets: [{{addresses: [{{ip: {pod}}}], ports: [{{port: 8080}}]}}]"
        ));
        until(&format!("{name} is web-1"), || {
            let page = format!("http://{name}:8080/name");
            let said = cluster.try_exec("client", &["get", &page], "");
            let right = said.ok && said.out.trim() == "web-1";
            if right { Ok(()) } else { Err(format!("{}{}", said.out, said.errors)) }
        });
    }

    // One leaves: nobody is sent to it once it is no endpoint any more.
    cluster.kubectl(&["scale", "statefulset", "web", "--replicas=1"]);
    ready(&cluster, 1);
    cluster.wait_for("one address is left", &["endpoints", "web"], |it| {
        let addresses = it["subsets"][0]["addresses"].as_array().map_or(0, Vec::len);
        (addresses == 1).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(page(&address, 80).unwrap(), "web-0");
    }

    // A connection that is open while the server starts again goes on.
    let mut open = TcpStream::connect((address.as_str(), 80)).unwrap();
    cluster.stop();
    assert_eq!(page(&address, 80).unwrap(), "web-0", "rules outlive the server");
    cluster.up();
    open.write_all(b"GET /name HTTP/1.0\r\nHost: web\r\n\r\n").unwrap();
    let mut said = String::new();
    open.read_to_string(&mut said).unwrap();
    assert!(said.ends_with("web-0"), "{said}");

    // Without a pod it refuses, at once.
    cluster.kubectl(&["scale", "statefulset", "web", "--replicas=0"]);
    until("nobody answers", || match page(&address, 80) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
