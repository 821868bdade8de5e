//! Pods of two nodes, each node a network namespace, a wire between them: real packets, both ways of carrying them.

use crate::namespaces::{Pod, in_own_namespace};
use network::{
    Error, Network, PodNetwork, Reach,
    peers::{Config, Peers},
    service::{self, Translation},
};
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};
use tempfile::TempDir;
use world::World;

const VXLAN: PodNetwork = PodNetwork::Vxlan { vni: 1, port: 8472 };
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// What has no answer has none after that either.
const SILENCE: Duration = Duration::from_millis(300);

/// Runs `ip` in the namespace of this thread.
fn ip(words: &str) -> String {
    let said = Command::new("ip").args(words.split(' ')).output().expect("ip (package iproute2)");
    assert!(said.status.success(), "ip {words}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

/// One node's side, made in the namespace of the calling thread.
struct Side {
    network: Network,
    peers: Peers,
    translation: Translation,
    _data: TempDir,
}

fn range(number: u8) -> String {
    format!("10.244.{number}.0/24")
}

fn config(instance: &str, number: u8, by: PodNetwork) -> Config {
    Config {
        instance: instance.to_owned(),
        node_name: format!("n{number}"),
        pod_cidr: range(number).parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        reach: Reach { address: Ipv4Addr::new(192, 0, 2, number), by },
    }
}

async fn side(number: u8, by: PodNetwork) -> Side {
    let data = tempfile::tempdir().unwrap();
    let instance = format!("i{number}");
    let config = config(&instance, number, by);
    let dns_address = Ipv4Addr::new(10, 96, 0, 10);
    let network = Network::start(network::Config {
        instance: instance.clone(),
        bridge: network::bridge_name(&instance),
        pod_cidr: config.pod_cidr,
        dns_address,
        data_dir: data.path().to_owned(),
        reach: Some(config.reach),
    });
    let network = network.await.unwrap();
    let translation = Translation::new(service::Config {
        bridge: network::bridge_name(&instance),
        instance,
        node_name: config.node_name.clone(),
        cluster_cidr: config.cluster_cidr,
        service_cidr: "10.96.0.0/12".parse().unwrap(),
        dns_address,
    });
    Side { network, peers: Peers::new(config), translation, _data: data }
}

/// Runs on the node's thread, with an event loop.
fn on<T: Send + 'static>(node: &Pod, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    node.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work())
    })
}

fn node(number: u8, address: Ipv4Addr) -> String {
    format!(
        r#"{{"kind":"Node","apiVersion":"v1","metadata":{{"name":"n{number}"}},"spec":{{"podCIDR":"{}"}},
        "status":{{"addresses":[{{"type":"InternalIP","address":"{address}"}}]}}}}"#,
        range(number)
    )
}

fn world(nodes: &[(u8, Ipv4Addr)]) -> World {
    let mut world = World::default();
    for (revision, (number, address)) in (2..).zip(nodes) {
        let node = node(*number, *address);
        world.put(api::kind_of::<api::core::v1::Node>(), node.into(), revision).unwrap();
    }
    world
}

fn both() -> World {
    world(&[(1, FIRST), (2, SECOND)])
}

/// The other node: a namespace with a wire to the one of this thread.
fn wired() -> Pod {
    let other = Pod::new();
    ip(&format!("link add eth0 type veth peer name eth0 netns {}", other.id));
    let plug = |address: Ipv4Addr| {
        ip("link set lo up");
        ip(&format!("address add {address}/24 dev eth0"));
        ip("link set eth0 up");
    };
    plug(FIRST);
    other.run(move || plug(SECOND));
    other
}

/// Answers datagrams and connections to port 8080 with the address of who asks.
fn serve() {
    let socket = UdpSocket::bind("0.0.0.0:8080").unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut bytes) {
            let _gone = socket.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
    let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let from = stream.peer_addr().unwrap().ip();
            thread::spawn(move || {
                let mut piece = [0; 64];
                while let Ok(1..) = stream.read(&mut piece) {
                    let _gone = stream.write_all(from.to_string().as_bytes());
                }
            });
        }
    });
}

/// Who asked, as the answer says.
fn ask(place: (IpAddr, u16), patience: Duration) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(SocketAddr::from(place))?;
    socket.send(b"who")?;
    let mut bytes = [0; 64];
    let length = socket.recv(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

fn say(stream: &mut TcpStream) -> String {
    stream.write_all(b"who").unwrap();
    let mut bytes = [0; 64];
    let length = stream.read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

fn carries(by: PodNetwork, mtu: u32) {
    in_own_namespace(async move || {
        let other = wired();
        let mut first = side(1, by).await;
        let (one, two) = (Pod::new(), Pod::new());
        let (one_id, two_id) = (one.id, two.id);
        let at_one = first.network.attach("one", one_id).await.unwrap();
        first.peers.bring(&both()).await.unwrap();
        let (mut second, at_two) = on(&other, async move || {
            let mut second = side(2, by).await;
            let at_two = second.network.attach("two", two_id).await.unwrap();
            second.peers.bring(&both()).await.unwrap();
            (second, at_two)
        });
        one.run(serve);
        two.run(serve);
        other.run(serve);

        // Pods see each other's own addresses, from either side, and the nodes reach them.
        assert_eq!(one.run(move || ask((at_two, 8080), PATIENCE)).unwrap(), at_one.to_string());
        assert_eq!(two.run(move || ask((at_one, 8080), PATIENCE)).unwrap(), at_two.to_string());
        assert!(ask((at_two, 8080), PATIENCE).is_ok());
        let said = one.run(|| ip("link show dev eth0"));
        assert!(said.contains(&format!("mtu {mtu} ")), "{said}");

        // A restart of both sides disturbs nobody.
        let mut open = one.run(move || TcpStream::connect((at_two, 8080))).unwrap();
        open.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(say(&mut open), at_one.to_string());
        let before = ip("route");
        Peers::new(config("i1", 1, by)).bring(&both()).await.unwrap();
        assert_eq!(ip("route"), before);
        assert_eq!(say(&mut open), at_one.to_string());

        // A Service's endpoint on the other node, by its address and by a port of this node.
        let mut services = both();
        let kind = api::kind_of::<api::core::v1::Service>();
        let service = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"web","namespace":"a"},"spec":{
            "clusterIP":"10.96.0.9","ports":[{"port":80,"nodePort":30080,"protocol":"UDP"}]}}"#;
        services.put(kind, service.to_owned().into(), 8).unwrap();
        let slice = format!(
            r#"{{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{{"name":"web-1","namespace":"a",
            "labels":{{"kubernetes.io/service-name":"web"}}}},"addressType":"IPv4",
            "ports":[{{"name":"","port":8080,"protocol":"UDP"}}],"endpoints":[{{"addresses":["{at_two}"],"nodeName":"n2"}}]}}"#
        );
        let kind = api::kind_of::<api::discovery::v1::EndpointSlice>();
        services.put(kind, slice.into(), 9).unwrap();
        match first.translation.bring(&services).await {
            Ok(()) => {
                let service: IpAddr = Ipv4Addr::new(10, 96, 0, 9).into();
                let asked = one.run(move || ask((service, 80), PATIENCE)).unwrap();
                assert!([at_one.to_string(), "10.244.1.1".to_owned()].contains(&asked), "{asked}");
                assert!(ask((service, 80), PATIENCE).is_ok(), "from the node");
                let node: IpAddr = FIRST.into();
                assert!(other.run(move || ask((node, 30080), PATIENCE)).is_ok(), "from elsewhere");
                // What leaves the cluster has the node's address, and nothing else has.
                let outside = one.run(|| ask((SECOND.into(), 8080), PATIENCE)).unwrap();
                assert_eq!(outside, FIRST.to_string());
                assert_eq!(
                    one.run(move || ask((at_two, 8080), PATIENCE)).unwrap(),
                    at_one.to_string()
                );
            }
            Err(error) => {
                let _lost =
                    writeln!(io::stderr(), "skipped: no nf_tables: {}", stdx::one_line(&error));
            }
        }

        // A node that is gone is nobody's way, and one that comes back is.
        first.peers.bring(&world(&[(1, FIRST)])).await.unwrap();
        assert!(!ip("route").contains("10.244.2.0/24"));
        assert!(one.run(move || ask((at_two, 8080), SILENCE)).is_err());
        first.peers.bring(&both()).await.unwrap();
        assert_eq!(one.run(move || ask((at_two, 8080), PATIENCE)).unwrap(), at_one.to_string());

        // A node with another address is found there.
        other.run(|| {
            ip("address del 192.0.2.2/24 dev eth0");
            ip("address add 192.0.2.3/24 dev eth0");
        });
        let moved = || world(&[(1, FIRST), (2, Ipv4Addr::new(192, 0, 2, 3))]);
        first.peers.bring(&moved()).await.unwrap();
        let moved_config = Config {
            reach: Reach { address: Ipv4Addr::new(192, 0, 2, 3), by },
            ..config("i2", 2, by)
        };
        second = on(&other, async move || {
            second.peers = Peers::new(moved_config);
            second.peers.bring(&moved()).await.unwrap();
            second
        });
        assert_eq!(one.run(move || ask((at_two, 8080), PATIENCE)).unwrap(), at_one.to_string());

        drop(second);
        network::remove_all("i1", &network::bridge_name("i1")).await.unwrap();
        let left = ip("-brief link");
        assert!(!left.contains("st") && !ip("route").contains("10.244"), "{left}{}", ip("route"));
    });
}

#[test]
fn pods_of_two_nodes_reach_each_other_in_envelopes() {
    carries(VXLAN, 1450);
}

#[test]
fn pods_of_two_nodes_reach_each_other_by_routes() {
    carries(PodNetwork::HostRoutes, 1500);
}

#[test]
fn a_change_of_the_way_leaves_nothing_of_the_other() {
    in_own_namespace(async || {
        let _other = wired();
        Peers::new(config("i1", 1, VXLAN)).bring(&both()).await.unwrap();
        assert!(ip("route").contains("10.244.2.0/24 via 10.244.2.0 dev stxi1"), "{}", ip("route"));
        let said = ip("-details link show dev stxi1");
        assert!(said.contains("id 1 ") && said.contains("dstport 8472 nolearning"), "{said}");
        let known = || ip("neighbour show dev stxi1").matches("PERMANENT").count();
        assert_eq!(known(), 1);
        Peers::new(config("i1", 1, PodNetwork::HostRoutes)).bring(&both()).await.unwrap();
        assert!(ip("route").contains("10.244.2.0/24 via 192.0.2.2 dev eth0"), "{}", ip("route"));
        assert!(!ip("-brief link").contains("stxi1"));
        let other_number = PodNetwork::Vxlan { vni: 7, port: 4789 };
        for by in [VXLAN, other_number] {
            Peers::new(config("i1", 1, by)).bring(&both()).await.unwrap();
            assert_eq!(ip("route").matches("10.244.2.0/24").count(), 1);
        }
        let said = ip("-details link show dev stxi1");
        assert!(said.contains("id 7 ") && said.contains("dstport 4789"), "{said}");
    });
}

#[test]
fn instances_of_one_machine_keep_apart() {
    in_own_namespace(async || {
        let _other = wired();
        let mut first = Peers::new(config("i1", 1, VXLAN));
        first.bring(&both()).await.unwrap();
        let mut same = Peers::new(config("i3", 3, VXLAN));
        let refused = same.bring(&both()).await;
        assert!(matches!(refused, Err(Error::VniTaken { vni: 1, port: 8472 })), "{refused:?}");
        let mut alone = Peers::new(config("i4", 1, VXLAN));
        alone.bring(&world(&[(1, FIRST)])).await.unwrap();
        let mut routed = Peers::new(config("i5", 1, PodNetwork::HostRoutes));
        routed.bring(&both()).await.unwrap();
        network::remove_all("i5", "stni5").await.unwrap();
        assert!(ip("route").contains("via 10.244.2.0 dev stxi1"), "{}", ip("route"));
    });
}

#[test]
fn a_node_on_another_segment_is_named_and_the_others_are_reached() {
    in_own_namespace(async || {
        let _other = wired();
        let far = Ipv4Addr::new(198, 51, 100, 9);
        let mut peers = Peers::new(config("i1", 1, PodNetwork::HostRoutes));
        let error = peers.bring(&world(&[(2, SECOND), (9, far)])).await.unwrap_err();
        let said = stdx::one_line(&error);
        assert!(
            said.contains("1 of the other nodes") && said.contains("n9 at 198.51.100.9"),
            "{said}"
        );
        assert!(ip("route").contains("10.244.2.0/24 via 192.0.2.2"));
    });
}
