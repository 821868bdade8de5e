//! Hosts of a story are machines to each other, and nothing to the machine that they are on.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    time::Duration,
};
use tests::{Host, Hosts, until};

/// Far longer than a host on the same machine takes.
const ANSWER_MAX: Duration = Duration::from_secs(2);

fn interfaces() -> String {
    let said = Command::new("ip").args(["-brief", "link"]).output().expect("ip");
    String::from_utf8(said.stdout).expect("UTF-8")
}

fn reaches(from: &Host, to: &Host) -> bool {
    let listener = to.within(|| TcpListener::bind((to.address(), 0))).expect("a port");
    let place = listener.local_addr().expect("a place");
    let sent = from.within(|| {
        let mut stream = TcpStream::connect_timeout(&place, ANSWER_MAX)?;
        stream.write_all(b"hello")
    });
    let mut said = String::new();
    sent.is_ok()
        && listener.accept().is_ok_and(|(mut it, _)| it.read_to_string(&mut said).is_ok())
        && said == "hello"
}

#[test]
fn hosts_are_machines_of_their_own() {
    let Some(hosts) = Hosts::start("hosts", &["h1", "h2"]) else { return };
    let (h1, h2) = (hosts.host("h1"), hosts.host("h2"));
    assert_eq!(h1.ok(&["cat", "/proc/sys/kernel/hostname"]).trim(), "h1");
    assert!(h1.ok(&["cat", "/etc/hosts"]).contains(&format!("{} h2", h2.address())));
    let links = h1.ok(&["ip", "-brief", "link"]);
    assert!(links.contains("eth0@") && links.lines().count() == 2, "{links}");
    assert!(!interfaces().contains(hosts.host("h1").name()));
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains(&h2.address().to_string()));

    assert!(reaches(h1, h2) && reaches(h2, h1));
    hosts.cut("h2");
    assert!(!reaches(h1, h2));
    hosts.heal("h2");
    until("h1 reaches h2 again", || if reaches(h1, h2) { Ok(()) } else { Err("not yet".into()) });

    // What a host mounts is nobody else's.
    let place = h1.directory().join("mounted");
    std::fs::create_dir_all(&place).unwrap();
    h1.ok(&["mount", "-t", "tmpfs", "none", place.to_str().unwrap()]);
    assert_eq!(tests::leftovers(hosts.directory()), Vec::<String>::new());

    let mut running = h2.spawn("cat", &["sh", "-c", "echo ready; exec sleep 1000"]);
    running.line("its word", |it| it == "ready");
    assert!(running.ended().is_none());
    running.kill();
    assert!(running.ended().is_some());
}

#[test]
fn an_instance_lives_on_a_host() {
    let Some(hosts) = Hosts::start("host-up", &["h1", "h2"]) else { return };
    let (h1, h2) = (hosts.host("h1"), hosts.host("h2"));
    let data = h1.data_dir();
    let listen = format!("--listen={}:6443", h1.address());
    let flags = ["up", &listen, "--kubelet-port=0", "--data-dir", data.to_str().unwrap()];
    let mut server = h1.serve("up", &flags);
    server.line("the ready line", |it| it.starts_with("ready in "));
    let kubectl = h2.kubectl(&data.join("admin.kubeconfig"));
    let node = kubectl.json(&["get", "node", "h1"]);
    assert_eq!(node["metadata"]["name"], "h1");
    // Its interfaces bear the name of the instance: they are the host's, and not this machine's.
    let own = h1.ok(&["ip", "-brief", "link"]);
    let own: Vec<&str> = own.lines().filter_map(|it| it.split([' ', '@']).next()).collect();
    let own: Vec<&str> = own.into_iter().filter(|it| !["lo", "eth0"].contains(it)).collect();
    assert!(own.iter().any(|it| it.starts_with("stn")), "{own:?}");
    let machine = interfaces();
    assert!(!own.iter().any(|it| machine.contains(it)), "{own:?} in {machine}");
    server.stop();
}
