//! What goes through the door to a pod: requests, and connections that become something else.

use crate::house::{Door, STRATEGIC};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// An address of this machine that a pod could have: not a loopback one.
async fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.ok()?;
    // Nothing is sent: the kernel says from where it would be.
    socket.connect("192.0.2.1:9").await.ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("the head goes on"));
    }
    String::from_utf8(head).expect("text")
}

/// Agrees to speak `echo`, and then repeats what it hears.
async fn backend(mut stream: TcpStream) {
    let asked = head(&mut stream).await.to_lowercase();
    if !asked.contains("upgrade: echo") {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain";
        stream.write_all(answer).await.unwrap();
        return;
    }
    assert!(asked.starts_with("get /talk?loud=1 http/1.1"), "{asked}");
    assert!(!asked.contains("authorization"), "{asked}");
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    tokio::io::copy(&mut reading, &mut writing).await.unwrap();
}

async fn pod_at(door: &Door, at: SocketAddr) {
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "nodeName": "n"});
    door.post(PODS, json!({"metadata": {"name": "p"}, "spec": spec})).await.is(201);
    let address = at.ip().to_string();
    let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    door.patch(&format!("{PODS}/p/status"), STRATEGIC, status).await.is(200);
}

/// Somebody who speaks `echo`, on an address that a pod could have.
async fn echo() -> Option<SocketAddr> {
    let Some(address) = address().await else {
        println!("skipped: this machine has no address but loopback ones");
        return None;
    };
    let listener = TcpListener::bind((address, 0)).await.expect("a free port");
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(backend(stream));
        }
    });
    Some(at)
}

async fn converse(door: &Door, through: &str) {
    assert_eq!(door.get(&format!("{through}/")).await.is(200).text, "plain");
    let wanted = [("connection", "Upgrade"), ("upgrade", "echo")];
    let mut talk = door.upgrade(&format!("{through}/talk?loud=1"), &wanted).await;
    for words in ["hello", "and again", "good bye"] {
        talk.write_all(words.as_bytes()).await.unwrap();
        let mut heard = vec![0; words.len()];
        talk.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, words.as_bytes());
    }
    // What one side ends, the other hears.
    talk.shutdown().await.unwrap();
    assert_eq!(talk.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_connection_to_a_pod_can_become_something_else() {
    let Some(at) = echo().await else { return };
    let door = Door::open().await;
    pod_at(&door, at).await;
    converse(&door, &format!("{PODS}/p:{}/proxy", at.port())).await;
}

#[tokio::test]
async fn a_connection_to_a_service_goes_to_its_pods_and_nowhere_else() {
    let Some(at) = echo().await else { return };
    let door = Door::open().await;
    pod_at(&door, at).await;
    let all = "/api/v1/namespaces/default";
    for (name, ip) in [("web", at.ip().to_string()), ("elsewhere", "192.0.2.7".to_owned())] {
        let ports = json!([{"name": "http", "port": 80}]);
        let service = json!({"metadata": {"name": name}, "spec": {"ports": ports}});
        door.post(&format!("{all}/services"), service).await.is(201);
        let pod = json!({"kind": "Pod", "namespace": "default", "name": "p"});
        let subset = json!({
            "addresses": [{"ip": ip, "targetRef": pod}],
            "ports": [{"name": "http", "port": at.port()}],
        });
        let endpoints = json!({"metadata": {"name": name}, "subsets": [subset]});
        door.post(&format!("{all}/endpoints"), endpoints).await.is(201);
    }
    converse(&door, &format!("{all}/services/web:http/proxy")).await;
    converse(&door, &format!("{all}/services/http:web:80/proxy")).await;
    // The pod's name, and an address that is not the pod's.
    door.get(&format!("{all}/services/elsewhere:http/proxy/")).await.is(503);
}
