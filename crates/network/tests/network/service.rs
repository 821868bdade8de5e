//! Services as clients see them: real packets between namespaces, through rules of the real kernel.

use crate::namespaces::{Pod, in_own_namespace};
use network::{
    Network,
    service::{Config, Translation},
};
use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};
use world::World;

const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const SERVICE: &str = "10.96.0.9:80";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn config(instance: &str) -> Config {
    Config {
        instance: instance.to_owned(),
        bridge: network::bridge_name(instance),
        node_name: "n1".to_owned(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
        dns_address: DNS,
    }
}

async fn network(instance: &str, range: &str, dns: Ipv4Addr, data_dir: &Path) -> Network {
    let config = network::Config {
        instance: instance.to_owned(),
        bridge: network::bridge_name(instance),
        pod_cidr: range.parse().unwrap(),
        dns_address: dns,
        data_dir: data_dir.to_owned(),
        reach: None,
    };
    Network::start(config).await.unwrap()
}

/// A Service with what is in `spec`, and a slice with these endpoints.
fn world(spec: &str, protocol: &str, endpoints: &[String]) -> World {
    let mut world = World::default();
    let service = format!(
        r#"{{"kind":"Service","apiVersion":"v1","metadata":{{"name":"web","namespace":"a"}},"spec":{{"clusterIP":"10.96.0.9",
        {spec}"ports":[{{"port":80,"nodePort":30080,"protocol":"{protocol}"}}]}}}}"#
    );
    let endpoints: Vec<String> =
        endpoints.iter().map(|it| format!(r#"{{"addresses":["{it}"],"nodeName":"n1"}}"#)).collect();
    let slice = format!(
        r#"{{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{{"name":"web-1","namespace":"a",
        "labels":{{"kubernetes.io/service-name":"web"}}}},"addressType":"IPv4",
        "ports":[{{"name":"","port":8080,"protocol":"{protocol}"}}],"endpoints":[{}]}}"#,
        endpoints.join(",")
    );
    let kind = api::kind_of::<api::core::v1::Service>();
    world.put(kind, service.into(), 1).unwrap();
    world.put(api::kind_of::<api::discovery::v1::EndpointSlice>(), slice.into(), 2).unwrap();
    world
}

/// `false`, and says so, where the kernel has no nf_tables.
async fn bring(translation: &mut Translation, world: &World) -> bool {
    match translation.bring(world).await {
        Ok(()) => true,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let missing = cause.as_deref().is_some_and(|it| {
                it.contains("not supported") || it.contains("Operation not permitted")
            });
            assert!(missing, "{}", stdx::one_line(&error));
            let _lost = writeln!(io::stderr(), "skipped: no nf_tables: {}", stdx::one_line(&error));
            false
        }
    }
}

/// Answers every connection and every datagram to port 8080 with its name and the address of who asks.
fn serve(pod: &Pod, name: &'static str) {
    pod.run(move || {
        let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let from = stream.peer_addr().unwrap().ip();
                thread::spawn(move || {
                    let _gone = writeln!(stream, "{name} {from}");
                    // And back what comes, until the client closes its half.
                    let mut piece = [0; 64];
                    while let Ok(read @ 1..) = stream.read(&mut piece) {
                        let _gone = stream.write_all(&piece[..read]);
                    }
                });
            }
        });
        let socket = UdpSocket::bind("0.0.0.0:8080").unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut bytes) {
                let _gone = socket.send_to(name.as_bytes(), from);
            }
        });
    });
}

fn call(at: &str) -> io::Result<String> {
    let address: SocketAddr = at.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said.trim().to_owned())
}

fn call_from(pod: &Pod, at: &str) -> io::Result<String> {
    let at = at.to_owned();
    pod.run(move || call(&at))
}

/// The names of all that answer.
fn answering(pod: &Pod, at: &str) -> BTreeSet<String> {
    let calls = (0..40).map(|_| call_from(pod, at).unwrap());
    calls.map(|it| it.split(' ').next().unwrap().to_owned()).collect()
}

/// A network with a client and two endpoints; the client's address, and theirs.
struct House {
    _data: tempfile::TempDir,
    network: Network,
    client: Pod,
    one: Pod,
    two: Pod,
    addresses: [String; 3],
}

impl House {
    async fn new() -> House {
        let data = tempfile::tempdir().unwrap();
        let network = network("s1", "10.244.0.0/24", DNS, data.path()).await;
        let (client, one, two) = (Pod::new(), Pod::new(), Pod::new());
        let mut addresses = Vec::new();
        for (name, pod) in [("client", &client), ("one", &one), ("two", &two)] {
            addresses.push(network.attach(name, pod.id).await.unwrap().to_string());
        }
        serve(&one, "one");
        serve(&two, "two");
        let addresses = addresses.try_into().unwrap();
        House { _data: data, network, client, one, two, addresses }
    }

    fn both(&self) -> Vec<String> {
        self.addresses[1..].to_vec()
    }
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|it| (*it).to_owned()).collect()
}

#[test]
fn a_service_is_all_its_endpoints_and_nobody_without_one() {
    in_own_namespace(async || {
        let house = House::new().await;
        let mut translation = Translation::new(config("s1"));
        if !bring(&mut translation, &world("", "TCP", &house.both())).await {
            return;
        }
        assert_eq!(answering(&house.client, SERVICE), names(&["one", "two"]));
        let said = call_from(&house.client, SERVICE).unwrap();
        assert!(said.ends_with(&house.addresses[0]), "{said}: the client's own address");

        // One leaves: from now on nobody is sent to it.
        translation.bring(&world("", "TCP", &house.both()[1..])).await.unwrap();
        assert_eq!(answering(&house.client, SERVICE), names(&["two"]));

        translation.bring(&world("", "TCP", &[])).await.unwrap();
        let refused = call_from(&house.client, SERVICE).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // The node tells itself by way of its loopback interface, which a new namespace has down.
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        if up.is_ok_and(|it| it.success()) {
            let refused = call(SERVICE).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "from the node too");
        }

        translation.bring(&world("", "TCP", &house.both()[..1])).await.unwrap();
        assert_eq!(answering(&house.client, SERVICE), names(&["one"]));
    });
}

#[test]
fn the_node_reaches_services_by_address_and_by_port() {
    in_own_namespace(async || {
        let house = House::new().await;
        let mut translation = Translation::new(config("s1"));
        if !bring(&mut translation, &world("", "TCP", &house.both())).await {
            return;
        }
        assert!(call(SERVICE).unwrap().ends_with("10.244.0.1"), "from the node's own address");
        let node_port = format!("{}:30080", house.network.host_gateway());
        assert!(call(&node_port).unwrap().ends_with("10.244.0.1"));
        let said = call_from(&house.client, &node_port).unwrap();
        assert!(said.ends_with("10.244.0.1"), "{said}: policy Cluster shows the node");
        let local = r#""type":"NodePort","externalTrafficPolicy":"Local","#;
        translation.bring(&world(local, "TCP", &house.both())).await.unwrap();
        let said = call_from(&house.client, &node_port).unwrap();
        assert!(said.ends_with(&house.addresses[0]), "{said}: policy Local shows the client");
    });
}

#[test]
fn a_host_port_answers_on_the_loopback_address_which_stays_the_machines_own() {
    in_own_namespace(async || {
        let house = House::new().await;
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        let mut world = world("", "TCP", &house.both());
        let pod = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p","namespace":"a","uid":"u"}},
            "spec":{{"nodeName":"n1","containers":[{{"name":"c","ports":[{{"containerPort":8080,"hostPort":8081,"hostIP":"127.0.0.1"}}]}}]}},
            "status":{{"phase":"Running","podIP":"{}"}}}}"#,
            house.addresses[1].split(':').next().unwrap()
        );
        world.put(api::kind_of::<api::core::v1::Pod>(), pod.into(), 3).unwrap();
        let mut translation = Translation::new(config("s1"));
        if !bring(&mut translation, &world).await || !up.is_ok_and(|it| it.success()) {
            return;
        }
        assert_eq!(call("127.0.0.1:8081").unwrap(), "one 10.244.0.1");
        let elsewhere = format!("{}:8081", house.network.host_gateway());
        assert!(call(&elsewhere).is_err(), "on that address and no other");

        // What listens on the machine's loopback address is not for pods, whatever way they make for it.
        let own = TcpListener::bind("127.0.0.1:9000").unwrap();
        own.set_nonblocking(true).unwrap();
        let gateway = house.network.host_gateway();
        house.client.run(move || {
            let all: &[&[&str]] = &[
                &["ip", "link", "set", "lo", "down"],
                &["ip", "route", "del", "local", "127.0.0.0/8", "table", "local"],
                &["ip", "route", "add", "127.0.0.0/8", "via", &gateway.to_string()],
            ];
            for words in all {
                // Where a route was not there, none has to go.
                let _done = Command::new(words[0]).args(&words[1..]).output();
            }
            let _sysctl = std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1");
            let at: SocketAddr = "127.0.0.1:9000".parse().unwrap();
            assert!(TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_err());
        });
        assert_eq!(own.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    in_own_namespace(async || {
        let house = House::new().await;
        let mut translation = Translation::new(config("s1"));
        if !bring(&mut translation, &world("", "TCP", &house.both()[..1])).await {
            return;
        }
        assert_eq!(call_from(&house.one, SERVICE).unwrap(), "one 10.244.0.1");
        assert_eq!(call_from(&house.two, SERVICE).unwrap(), format!("one {}", house.addresses[2]));
    });
}

#[test]
fn a_client_with_affinity_stays_where_it_was_whatever_else_changes() {
    in_own_namespace(async || {
        let house = House::new().await;
        let mut translation = Translation::new(config("s1"));
        let sticky = r#""sessionAffinity":"ClientIP","#;
        if !bring(&mut translation, &world(sticky, "TCP", &house.both())).await {
            return;
        }
        let first = answering(&house.client, SERVICE);
        assert_eq!(first.len(), 1, "{first:?}");
        let more = [house.both(), vec!["10.244.0.77".to_owned()]].concat();
        translation.bring(&world(sticky, "TCP", &more)).await.unwrap();
        assert_eq!(answering(&house.client, SERVICE), first);
        // And goes elsewhere when that is gone.
        let (other, left) = match first.contains("one") {
            true => ("two", &house.both()[1..]),
            false => ("one", &house.both()[..1]),
        };
        translation.bring(&world(sticky, "TCP", left)).await.unwrap();
        assert_eq!(answering(&house.client, SERVICE), names(&[other]));
    });
}

#[test]
fn an_open_connection_survives_every_change_and_a_restart() {
    in_own_namespace(async || {
        let house = House::new().await;
        let mut translation = Translation::new(config("s1"));
        if !bring(&mut translation, &world("", "TCP", &house.both()[..1])).await {
            return;
        }
        let stream = house.client.run(|| {
            let mut stream = TcpStream::connect(SERVICE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut hello = [0; 15];
            stream.read_exact(&mut hello).unwrap();
            stream
        });
        let echo = |mut stream: TcpStream| {
            stream.write_all(b"still there").unwrap();
            let mut back = [0; 11];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"still there");
            stream
        };
        translation.bring(&world("", "TCP", &house.both()[1..])).await.unwrap();
        let stream = echo(stream);
        drop(translation);
        let mut translation = Translation::new(config("s1"));
        translation.bring(&world("", "TCP", &house.both())).await.unwrap();
        echo(stream);
    });
}

#[test]
fn a_client_that_goes_on_sending_datagrams_reaches_the_endpoint_that_is_left() {
    in_own_namespace(async || {
        let house = House::new().await;
        let mut translation = Translation::new(config("s1"));
        if !bring(&mut translation, &world("", "UDP", &house.both()[..1])).await {
            return;
        }
        let socket = house.client.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(SERVICE).unwrap();
            socket
        });
        let ask = || {
            socket.send(b"who").unwrap();
            let mut name = [0; 8];
            let length = socket.recv(&mut name).unwrap();
            String::from_utf8_lossy(&name[..length]).into_owned()
        };
        assert_eq!(ask(), "one");
        translation.bring(&world("", "UDP", &house.both()[1..])).await.unwrap();
        assert_eq!(ask(), "two", "on the same socket");
    });
}

#[test]
fn what_leaves_for_elsewhere_bears_the_nodes_address() {
    in_own_namespace(async || {
        let house = House::new().await;
        let elsewhere = tempfile::tempdir().unwrap();
        let dns = Ipv4Addr::new(192, 0, 2, 53);
        let others = network("s2", "192.0.2.0/28", dns, elsewhere.path()).await;
        let outside = Pod::new();
        let address = others.attach("outside", outside.id).await.unwrap();
        serve(&outside, "outside");
        let mut translation = Translation::new(config("s1"));
        if !bring(&mut translation, &world("", "TCP", &[])).await {
            return;
        }
        let said = call_from(&house.client, &format!("{address}:8080")).unwrap();
        assert_eq!(said, "outside 192.0.2.1");
    });
}

#[test]
fn nothing_is_left_on_the_way_down_and_others_keep_theirs() {
    in_own_namespace(async || {
        let house = House::new().await;
        let mut translation = Translation::new(config("s1"));
        if !bring(&mut translation, &world("", "TCP", &house.both())).await {
            return;
        }
        network::remove_all("s2", "stns2").await.unwrap();
        assert!(call(SERVICE).is_ok(), "another instance goes down");
        network::remove_all("s1", "stns1").await.unwrap();
        network::remove_all("s1", "stns1").await.unwrap();
        let tables = Command::new("nft").args(["list", "tables"]).output();
        if let Ok(tables) = tables {
            assert_eq!(String::from_utf8_lossy(&tables.stdout), "");
        }
    });
}
