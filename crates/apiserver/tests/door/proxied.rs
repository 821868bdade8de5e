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

#[tokio::test]
async fn a_connection_to_a_pod_can_become_something_else() {
    let Some(address) = address().await else {
        println!("skipped: this machine has no address but loopback ones");
        return;
    };
    let door = Door::open().await;
    let listener = TcpListener::bind((address, 0)).await.expect("a free port");
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(backend(stream));
        }
    });
    pod_at(&door, at).await;
    let through = format!("{PODS}/p:{}/proxy", at.port());
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
