//! Three volumes on directories of an NFS server, a set of three pods whose claims take them, and all that moves pods:
//! deleted, and drained away. And a shell that asks for one of them by its short name.

use super::{NODES, Site, nodes_of, text};
use serde_json::Value;
use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};
use tests::until;

const SET: &str = include_str!("../../../manifests/statefulset-web-nfs.yaml");

fn volume(site: &Site, number: usize) -> String {
    format!(
        "apiVersion: v1
kind: PersistentVolume
metadata:
  name: pv-nfs-{number}
spec:
  capacity:
    storage: 1Gi
  volumeMode: Filesystem
  accessModes:
    - ReadWriteOnce
  persistentVolumeReclaimPolicy: Retain
  storageClassName: nfs
  nfs:
    path: {}/v{number}
    server: {}
---
",
        site.share().display(),
        site.server.address()
    )
}

pub(super) fn a_set_keeps_its_data_on_static_volumes_wherever_it_goes(site: &Site) {
    let kubectl = &site.kubectl;
    for number in 1..=3 {
        let directory = site.share().join(format!("v{number}"));
        fs::create_dir(&directory).unwrap();
        kubectl.apply(&volume(site, number));
    }
    kubectl.wait_for("the volumes are Available", &["pv"], |it| {
        let all = it["items"].as_array()?;
        let free = all.iter().filter(|it| it["status"]["phase"] == "Available").count();
        (free == 3).then_some(())
    });
    kubectl.apply(SET);
    let pods = site.wait_set(3);
    assert_eq!(nodes_of(&pods), NODES, "one on each node");
    site.wide(&pods);
    let mut taken: Vec<String> = (0..3).map(|it| volume_of(site, it)).collect();
    for number in 0..3 {
        let say = "hostname > /usr/share/nginx/html/index.html";
        kubectl.exec(&format!("web-{number}"), &["sh", "-c", say], "");
    }
    same_data(site, &pods);

    kubectl.kubectl(&["delete", "pod", "-l", "app=nginx"]);
    let again = site.wait_set(3);
    assert!(pods.iter().zip(&again).all(|(old, new)| uid(old) != uid(new)), "all of them are new");
    same_data(site, &again);

    // Away from a node, and back to anywhere.
    let node = text(&again[1], "/spec/nodeName");
    let drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data"];
    let drained = kubectl.kubectl(&drain);
    assert!(drained.contains(&format!("node/{node} drained")), "{drained}");
    let away = kubectl.wait_for("web-1 is elsewhere", &["pod", "web-1"], |it| {
        (uid(it) != uid(&again[1]) && tests::is_ready(it)).then(|| it.clone())
    });
    assert_ne!(text(&away, "/spec/nodeName"), node);
    let pods = site.wait_set(3);
    same_data(site, &pods);
    kubectl.kubectl(&["uncordon", node]);
    kubectl.kubectl(&["delete", "pod", "web-1"]);
    let back = site.wait_set(3);
    assert_eq!(nodes_of(&back), NODES, "the free node is the best one");
    same_data(site, &back);
    let mut now: Vec<String> = (0..3).map(|it| volume_of(site, it)).collect();
    assert_eq!(now, taken, "each its own volume throughout");
    taken.sort();
    now.dedup();
    assert_eq!(taken, ["pv-nfs-1", "pv-nfs-2", "pv-nfs-3"]);

    asked_for_in_a_shell(site, text(&back[0], "/status/podIP"));

    kubectl.kubectl(&["delete", "statefulset/web", "service/nginx"]);
    kubectl.kubectl(&["delete", "pvc", "-l", "app=nginx"]);
    kubectl.wait_for("the volumes are Released", &["pv"], |it| {
        let all = it["items"].as_array()?;
        all.iter().all(|it| it["status"]["phase"] == "Released").then_some(())
    });
    kubectl.kubectl(&["delete", "pv", "--all"]);
    assert_eq!(site.directories(), ["v1", "v2", "v3"], "what was retained is there");
}

fn uid(pod: &Value) -> &str {
    text(pod, "/metadata/uid")
}

fn volume_of(site: &Site, number: usize) -> String {
    let claim = site.wait_bound(&format!("www-web-{number}"));
    text(&claim, "/spec/volumeName").to_owned()
}

/// Each pod serves its own page, from each node, and the server has it where its volume is.
fn same_data(site: &Site, pods: &[Value]) {
    for (number, pod) in pods.iter().enumerate() {
        let page = format!("web-{number}\n");
        let from = site.hosts.host(NODES[(number + 1) % NODES.len()]);
        assert_eq!(from.within(|| served(text(pod, "/status/podIP"))).unwrap(), page);
        let volume = volume_of(site, number);
        let file = site.share().join(volume.replace("pv-nfs-", "v")).join("index.html");
        assert_eq!(fs::read_to_string(file).unwrap(), page);
    }
}

fn served(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((address, 80))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned())
}

/// `kubectl run -it` on a terminal, as a person types it.
fn asked_for_in_a_shell(site: &Site, address: &str) {
    let words = ["run", "-it", "--rm", "dns-test", "--image=busybox", "--", "sh"];
    let kubectl = site.kubectl.kubectl_command(&words);
    let all = [kubectl.get_program()].into_iter().chain(kubectl.get_args());
    let line: Vec<&str> = all.map(|it| it.to_str().expect("UTF-8")).collect();
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--flush", "--return", "--command", &line.join(" "), "/dev/null"]);
    for (name, value) in kubectl.get_envs() {
        terminal.env(name, value.expect("a value"));
    }
    let mut terminal =
        terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script starts");
    let mut keys = terminal.stdin.take().expect("a pipe");
    let mut screen = terminal.stdout.take().expect("a pipe");
    let seen = Arc::new(Mutex::new(String::new()));
    let writes = seen.clone();
    let reading = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut bytes) {
            let said = String::from_utf8_lossy(&bytes[..length]);
            writes.lock().unwrap_or_else(PoisonError::into_inner).push_str(&said);
        }
    });
    let says = |what: &str, part: &str| {
        until(what, || {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.contains(part) { Ok(()) } else { Err(seen.clone()) }
        });
    };
    says("kubectl asks for a key", "try pressing enter");
    keys.write_all(b"\n").unwrap();
    says("the shell's prompt", "# ");
    keys.write_all(b"nslookup web-0.nginx\n").unwrap();
    says("nslookup's answer", &format!("Address: {address}"));
    says("its name", "web-0.nginx.default.svc.cluster.local");
    keys.write_all(b"exit 0\n").unwrap();
    says("the pod is deleted", "pod \"dns-test\" deleted");
    assert!(terminal.wait().expect("script ends").success());
    reading.join().expect("all is read");
    site.kubectl.wait_gone(&["pod", "dns-test"]);
}
