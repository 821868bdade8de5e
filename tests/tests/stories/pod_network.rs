//! Three machines, one cluster: pods reach each other wherever they are, by address, by name and as a Service, and each
//! machine answers for all.

use serde_json::Value;
use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};
use tests::{Host, Hosts, Kubectl, Running, in_network_of, process_of, until};

const NAMES: [&str; 3] = ["h1", "h2", "h3"];
/// A disk that is full is another story.
const NO_EVICTION: &str = "--eviction-hard=memory.available<1Mi";
const SERVER: &str = "https://192.0.2.1:6443";

const MANIFEST: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: nginx-svc
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - labelSelector: {matchLabels: {app: web}}
            topologyKey: kubernetes.io/hostname
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
metadata: {name: nginx-svc}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 8080}]
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
kind: Service
metadata: {name: near}
spec:
  type: NodePort
  internalTrafficPolicy: Local
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

/// A first packet that got lost is sent again after a second.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A server with a node on h1, and nodes on the others.
struct Machines {
    running: Vec<Running>,
    kubectl: Kubectl,
    hosts: Hosts,
}

fn machines(story: &str, way: &str) -> Option<Machines> {
    let hosts = Hosts::start(story, &NAMES)?;
    let first = hosts.host("h1");
    let data = |host: &Host| host.data_dir().to_str().expect("UTF-8").to_owned();
    let listen = format!("--listen={}:6443", first.address());
    let flags = ["up", &listen, way, NO_EVICTION, "--kubelet-port=0", "--data-dir", &data(first)];
    let mut server = first.serve("up", &flags);
    server.line("the ready line", |it| it.starts_with("ready in "));
    let mut running = vec![server];
    let said = first.stanchion(&["token", "create"]);
    assert!(said.ok, "{}{}", said.out, said.errors);
    let token = said.out.trim();
    for name in &NAMES[1..] {
        let host = hosts.host(name);
        let joining = ["node", "--server", SERVER, "--token", token];
        let flags = [NO_EVICTION, "--kubelet-port=0", "--data-dir", &data(host)];
        running.push(host.serve("node", &[&joining[..], &flags].concat()));
    }
    let kubectl = first.kubectl(&first.data_dir().join("admin.kubeconfig"));
    let machines = Machines { running, kubectl, hosts };
    for name in NAMES {
        machines.wait_for_node(name, "True");
    }
    Some(machines)
}

impl Machines {
    fn wait_for_node(&self, name: &str, ready: &str) {
        self.kubectl.wait_for(&format!("node {name} is Ready: {ready}"), &["node", name], |node| {
            let conditions = node["status"]["conditions"].as_array()?;
            conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == ready).then_some(())
        });
    }

    /// The set's pods, each on a node of its own, each with a page that says its name.
    fn pods(&self) -> Vec<Value> {
        let pods: Vec<Value> =
            (0..3).map(|it| self.kubectl.wait_ready(&format!("web-{it}"))).collect();
        for (number, _) in pods.iter().enumerate() {
            let name = format!("web-{number}");
            self.kubectl.exec(&name, &["tee", "/www/name"], &name);
        }
        pods
    }

    fn seen_from(&self, pod: &str, host: &str) -> String {
        self.kubectl.exec(pod, &["get", &format!("http://{host}/name")], "").trim().to_owned()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for words in [["get", "nodes,pods", "-Ao", "wide"], ["get", "events", "-A", "-o=wide"]]
            {
                println!("{}", self.kubectl.try_kubectl(&words).out);
            }
        }
    }
}

/// The page as whoever calls this gets it: its last line.
fn page(address: &str, port: u16) -> io::Result<String> {
    let place = SocketAddr::new(address.parse().expect("an address"), port);
    let mut stream = TcpStream::connect_timeout(&place, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(b"GET /name HTTP/1.0\r\nHost: web\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_owned())
}

/// Asks the cluster's DNS for the one address of a name; gives that and how long it is good for.
fn dig(name: &str) -> io::Result<(Ipv4Addr, u32)> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    socket.connect("10.96.0.10:53")?;
    let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).expect("a short label"));
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    socket.send(&question)?;
    let mut said = [0; 512];
    let length = socket.recv(&mut said)?;
    // One answer, at the end: … ttl, length of the address, address.
    let answers = u16::from_be_bytes([said[6], said[7]]);
    match said[..length].last_chunk::<10>() {
        Some([a, b, c, d, 0, 4, address @ ..]) if answers == 1 => {
            Ok((Ipv4Addr::from(*address), u32::from_be_bytes([*a, *b, *c, *d])))
        }
        _ => Err(io::Error::other(format!("{name}: {answers} answers"))),
    }
}

/// Asks again and again, until everybody has answered; nobody else may.
fn everybody(all: &BTreeSet<String>, what: &str, ask: impl Fn() -> io::Result<String>) {
    let mut seen = BTreeSet::new();
    until(&format!("{what} is all pods"), || {
        seen.insert(ask().map_err(|error| error.to_string())?);
        if seen == *all { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn node_port(service: &Value) -> u16 {
    let port = service["spec"]["ports"][0]["nodePort"].as_u64();
    port.and_then(|it| it.try_into().ok()).expect("a node port")
}

fn pods_of_three_machines_are_one_network(story: &str, way: &str) -> Option<Machines> {
    let machines = machines(story, way)?;
    let (kubectl, hosts) = (&machines.kubectl, &machines.hosts);
    kubectl.apply(MANIFEST);
    let pods = machines.pods();
    let all: BTreeSet<String> = (0..3).map(|it| format!("web-{it}")).collect();
    let on: BTreeSet<&str> = pods.iter().map(|it| text(it, "/spec/nodeName")).collect();
    assert_eq!(on.len(), 3, "each on a node of its own");
    let wide = kubectl.kubectl(&["get", "sts,svc,po", "-o", "wide"]);
    for pod in &pods {
        let (node, address) = (text(pod, "/spec/nodeName"), text(pod, "/status/podIP"));
        let range = kubectl.json(&["get", "node", node]);
        let range = text(&range, "/spec/podCIDR").trim_end_matches("0/24").to_owned();
        assert!(address.starts_with(&range), "{address} on {node}, which has {range}");
        let line =
            wide.lines().find(|it| it.starts_with(&format!("pod/{}", text(pod, "/metadata/name"))));
        assert!(line.is_some_and(|it| it.contains(address) && it.contains(node)), "{wide}");
    }

    // From every pod to every pod: by address, by its own name, and by the name and address of a Service.
    let services = ["web", "near"].map(|it| kubectl.json(&["get", "service", it]));
    let [web, near] = services.each_ref().map(|it| text(it, "/spec/clusterIP"));
    for from in &pods {
        let from = text(from, "/metadata/name");
        for to in &pods {
            let (name, address) = (text(to, "/metadata/name"), text(to, "/status/podIP"));
            assert_eq!(machines.seen_from(from, &format!("{address}:8080")), name);
            assert_eq!(machines.seen_from(from, &format!("{name}.nginx-svc:8080")), name);
        }
        assert!(all.contains(&machines.seen_from(from, "web")));
        assert!(all.contains(&machines.seen_from(from, web)));
        assert_eq!(machines.seen_from(from, "near"), from, "a policy keeps to the node");
    }

    // The API by its Service's address, and the pods' names with their TTL, from pods and from machines.
    for (number, pod) in pods.iter().enumerate() {
        let container = text(pod, "/status/containerStatuses/0/containerID");
        let (process, _) = process_of(container).expect("the container's process");
        let own = format!("web-{number}.nginx-svc.default.svc.cluster.local");
        let looked = || {
            let api = SocketAddr::from((Ipv4Addr::new(10, 96, 0, 1), 443));
            TcpStream::connect_timeout(&api, ANSWER_MAX).expect("the API by its Service");
            (0..3)
                .map(|it| dig(&own.replace(&format!("web-{number}"), &format!("web-{it}"))))
                .collect()
        };
        let by_pod: io::Result<Vec<_>> = in_network_of(process, looked);
        let by_host: io::Result<Vec<_>> = hosts.host(text(pod, "/spec/nodeName")).within(looked);
        let wanted: Vec<(Ipv4Addr, u32)> =
            pods.iter().map(|it| (text(it, "/status/podIP").parse().unwrap(), 30)).collect();
        assert_eq!(by_pod.unwrap(), wanted);
        assert_eq!(by_host.unwrap(), wanted);
    }

    // Every machine answers for the Service: by its address on the machine, by a port from elsewhere.
    let ports = services.each_ref().map(node_port);
    for host in hosts.all() {
        let own = pods.iter().find(|it| text(it, "/spec/nodeName") == host.name()).unwrap();
        let own = text(own, "/metadata/name");
        everybody(&all, &format!("{web} on {}", host.name()), || host.within(|| page(web, 80)));
        let at = host.address().to_string();
        everybody(&all, &format!("port {} of {at}", ports[0]), || {
            hosts.elsewhere(|| page(&at, ports[0]))
        });
        assert_eq!(host.within(|| page(near, 80)).unwrap(), own);
        assert_eq!(hosts.elsewhere(|| page(&at, ports[1])).unwrap(), own);
    }
    Some(machines)
}

/// What an instance has in the network of a host.
fn left_on(host: &Host) -> String {
    let links = host.ok(&["ip", "-brief", "link"]);
    let routes = host.ok(&["ip", "route"]);
    let ours = links.lines().filter(|it| it.starts_with("st"));
    ours.chain(routes.lines().filter(|it| it.contains("10.244.")))
        .map(|it| format!("{it}\n"))
        .collect()
}

#[test]
fn pods_of_three_machines_are_one_network_in_envelopes() {
    let story = "vxlan";
    let Some(mut machines) = pods_of_three_machines_are_one_network(story, "--pod-network=vxlan")
    else {
        return;
    };

    // A connection between machines outlives the servers of both.
    let on = |name: &str| {
        let pods = machines.kubectl.json(&["get", "pods"]);
        let pods = pods["items"].as_array().unwrap();
        pods.iter().find(|it| text(it, "/spec/nodeName") == name).unwrap().clone()
    };
    let (second, third) = (on("h2"), on("h3"));
    let (process, _) =
        process_of(text(&second, "/status/containerStatuses/0/containerID")).expect("a process");
    let far = text(&third, "/status/podIP").to_owned();
    let place = SocketAddr::new(far.parse().unwrap(), 8080);
    let mut open =
        in_network_of(process, || TcpStream::connect_timeout(&place, ANSWER_MAX)).unwrap();
    for running in &mut machines.running[1..] {
        running.kill();
    }
    for (running, name) in machines.running[1..].iter_mut().zip(&NAMES[1..]) {
        let host = machines.hosts.host(name);
        let data = host.data_dir();
        let flags = ["node", NO_EVICTION, "--kubelet-port=0", "--data-dir", data.to_str().unwrap()];
        *running = host.serve("node", &flags);
        running.line("the ready line", |it| it.starts_with("ready in "));
    }
    open.write_all(b"GET /name HTTP/1.0\r\nHost: web\r\n\r\n").unwrap();
    let mut said = String::new();
    open.read_to_string(&mut said).unwrap();
    assert!(said.ends_with(text(&third, "/metadata/name")), "{said}");

    // A machine without its wire is reached by nobody, and with it by all.
    machines.hosts.cut("h3");
    let look = || in_network_of(process, || page(&far, 8080));
    assert!(look().is_err());
    let long = std::env::var("STANCHION_TEST_LONG").is_ok_and(|it| !it.is_empty());
    if long {
        machines.wait_for_node("h3", "Unknown");
    }
    machines.hosts.heal("h3");
    until("h3 answers again", || look().map(drop).map_err(|error| error.to_string()));
    machines.wait_for_node("h3", "True");

    // A node that is taken out of the cluster leaves no way to it.
    machines.running[2].kill();
    let down = machines.hosts.host("h3").stanchion(&["down"]);
    assert!(down.ok, "{}{}", down.out, down.errors);
    assert_eq!(left_on(machines.hosts.host("h3")), "");
    machines.kubectl.kubectl(&["delete", "node", "h3"]);
    let first = machines.hosts.host("h1");
    let gone = format!("{}.0/24", far.rsplit_once('.').unwrap().0);
    until("the way to h3 is gone", || match first.ok(&["ip", "route"]) {
        routes if routes.contains(&gone) => Err(routes),
        _ => Ok(()),
    });
}

#[test]
fn pods_of_three_machines_are_one_network_by_routes() {
    let way = "--pod-network=host-routes";
    let Some(machines) = pods_of_three_machines_are_one_network("routes", way) else { return };
    let second = machines.hosts.host("h2");
    let routes = second.ok(&["ip", "route"]);
    assert!(
        routes.contains("via 192.0.2.1 dev eth0") && routes.contains("via 192.0.2.3 dev eth0"),
        "{routes}"
    );
    assert!(!second.ok(&["ip", "-brief", "link"]).contains("stx"));
}
