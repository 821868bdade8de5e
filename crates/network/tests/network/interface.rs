//! Interfaces as the kernel makes them, in network namespaces that these tests make themselves: the
//! host's is never touched.

use crate::namespaces::{Pod, in_own_namespace};
use network::{Config, Error, Network};
use rustix::thread::gettid;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
    thread,
};

/// Answers one datagram with the address it came from.
fn answer_one(at: IpAddr) -> (std::net::SocketAddr, thread::JoinHandle<()>) {
    let socket = UdpSocket::bind((at, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let mut bytes = [0; 64];
        let (_, from) = socket.recv_from(&mut bytes).unwrap();
        socket.send_to(from.ip().to_string().as_bytes(), from).unwrap();
    });
    (address, thread)
}

const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn config(data_dir: &Path) -> Config {
    Config {
        instance: "t1".to_owned(),
        bridge: network::bridge_name("t1"),
        pod_cidr: "10.244.0.0/24".parse().unwrap(),
        dns_address: DNS,
        data_dir: data_dir.to_owned(),
        reach: None,
    }
}

fn interfaces() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    names.filter(|it| it.starts_with("st")).collect()
}

#[test]
fn a_pod_reaches_its_node_the_dns_address_and_another_pod() {
    in_own_namespace(async || {
        let data = tempfile::tempdir().unwrap();
        let network = Network::start(config(data.path())).await.unwrap();
        let (one, two) = (Pod::new(), Pod::new());
        let first = network.attach("one", one.id).await.unwrap();
        let second = network.attach("two", two.id).await.unwrap();
        assert_eq!(first.to_string(), "10.244.0.2");
        assert_eq!(second.to_string(), "10.244.0.3");
        assert_eq!(network.host_gateway().to_string(), "10.244.0.1");

        for at in [network.host_gateway(), IpAddr::V4(DNS)] {
            let (server, thread) = answer_one(at);
            assert_eq!(one.ask(server), "10.244.0.2", "by way of {at}");
            thread.join().unwrap();
        }
        let (server, thread) = two.run(move || answer_one(second));
        assert_eq!(one.ask(server), "10.244.0.2", "from pod to pod");
        thread.join().unwrap();
    });
}

#[test]
fn attaching_again_gives_the_same_and_detaching_again_does_nothing() {
    in_own_namespace(async || {
        let data = tempfile::tempdir().unwrap();
        let network = Network::start(config(data.path())).await.unwrap();
        let pod = Pod::new();
        let address = network.attach("one", pod.id).await.unwrap();
        assert_eq!(network.attach("one", pod.id).await.unwrap(), address);
        let again = Network::start(config(data.path())).await.unwrap();
        assert_eq!(again.attach("one", pod.id).await.unwrap(), address, "after a restart too");
        assert_eq!(interfaces().len(), 2);
        network.detach("one").await.unwrap();
        network.detach("one").await.unwrap();
        assert_eq!(interfaces(), ["stnt1"]);
        let next = network.attach("one", pod.id).await.unwrap();
        assert_ne!(next, address, "an address that was let go rests");
    });
}

#[test]
fn a_new_process_of_a_sandbox_gets_a_new_pair_under_the_old_name() {
    in_own_namespace(async || {
        let data = tempfile::tempdir().unwrap();
        let network = Network::start(config(data.path())).await.unwrap();
        let (old, new) = (Pod::new(), Pod::new());
        let address = network.attach("one", old.id).await.unwrap();
        assert_eq!(network.attach("one", new.id).await.unwrap(), address);
        let (server, thread) = answer_one(network.host_gateway());
        assert_eq!(new.ask(server), address.to_string());
        thread.join().unwrap();
    });
}

#[test]
fn sweeps_what_no_living_sandbox_owns_and_removes_all_on_the_way_down() {
    in_own_namespace(async || {
        let data = tempfile::tempdir().unwrap();
        let network = Network::start(config(data.path())).await.unwrap();
        let (one, two) = (Pod::new(), Pod::new());
        network.attach("one", one.id).await.unwrap();
        network.attach("two", two.id).await.unwrap();
        assert_eq!(network.sweep(vec!["two".to_owned()]).await.unwrap(), 1);
        assert_eq!(interfaces().len(), 2);
        assert_eq!(network::remove_all("other", "stnother").await.unwrap(), 0);
        assert_eq!(network::remove_all("t1", "stnt1").await.unwrap(), 2);
        assert_eq!(interfaces().len(), 0);
    });
}

#[test]
fn takes_addresses_in_use_from_the_interfaces_when_the_file_is_lost() {
    in_own_namespace(async || {
        let data = tempfile::tempdir().unwrap();
        let network = Network::start(config(data.path())).await.unwrap();
        let (one, two) = (Pod::new(), Pod::new());
        let address = network.attach("one", one.id).await.unwrap();
        fs::remove_file(data.path().join("network/addresses")).unwrap();
        let network = Network::start(config(data.path())).await.unwrap();
        assert_ne!(network.attach("two", two.id).await.unwrap(), address);
        assert_eq!(network.attach("one", one.id).await.unwrap(), address);
    });
}

#[test]
fn refuses_a_range_that_another_interface_has_and_the_hosts_own_namespace() {
    in_own_namespace(async || {
        let data = tempfile::tempdir().unwrap();
        let network = Network::start(config(data.path())).await.unwrap();
        let other =
            Config { instance: "t2".to_owned(), bridge: "stnt2".to_owned(), ..config(data.path()) };
        let error = Network::start(other).await.unwrap_err();
        assert!(
            matches!(error, Error::Taken { ref interface, .. } if interface == "stnt1"),
            "{error}"
        );
        let here = gettid().as_raw_nonzero().get().unsigned_abs();
        let error = network.attach("one", here).await.unwrap_err();
        assert!(matches!(error, Error::HostNamespace { .. }), "{error}");
        let error = network.attach("one", u32::MAX).await.unwrap_err();
        assert_eq!(error.to_string(), "opening the network namespace /proc/4294967295/ns/net");
    });
}

#[test]
fn a_sandbox_that_cannot_have_an_interface_holds_nothing_afterwards() {
    in_own_namespace(async || {
        let data = tempfile::tempdir().unwrap();
        let network = Network::start(config(data.path())).await.unwrap();
        let pod = Pod::new();
        network.attach("one", pod.id).await.unwrap();
        let error = network.attach("two", pod.id).await.unwrap_err();
        assert!(error.to_string().ends_with("for sandbox two"), "{error}: eth0 is there already");
        assert_eq!(interfaces().len(), 2);
        let leases = fs::read_to_string(data.path().join("network/addresses")).unwrap();
        assert!(leases.contains(" one\n") && !leases.contains(" two\n"), "{leases}");
    });
}

#[test]
fn moves_the_bridge_to_another_range() {
    in_own_namespace(async || {
        let data = tempfile::tempdir().unwrap();
        let network = Network::start(config(data.path())).await.unwrap();
        let bound = |network: &Network| UdpSocket::bind((network.host_gateway(), 0)).is_ok();
        assert!(bound(&network));
        let moved = Config { pod_cidr: "10.245.0.0/24".parse().unwrap(), ..config(data.path()) };
        let moved = Network::start(moved).await.unwrap();
        assert!(bound(&moved) && !bound(&network));
        let pod = Pod::new();
        assert_eq!(moved.attach("one", pod.id).await.unwrap().to_string(), "10.245.0.2");
    });
}
