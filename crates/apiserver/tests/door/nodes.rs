//! Logs and streams: the node answers, the door passes on.

use crate::house::{Door, object};
use api::core::v1::Node;
use apiserver::{Connection, NodeProxy};
use serde_json::json;
use std::{io, net::SocketAddr, sync::Arc};
use stdx::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};
use world::Change;

/// A node whose server is the test.
struct Pipe(mpsc::UnboundedSender<(SocketAddr, DuplexStream)>);

impl NodeProxy for Pipe {
    fn dial(
        &self,
        _node: &str,
        address: SocketAddr,
    ) -> BoxFuture<'_, io::Result<Box<dyn Connection>>> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let _sent = self.0.send((address, far));
        Box::pin(async move { Ok(Box::new(near) as Box<dyn Connection>) })
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn door_with_a_pod() -> (Door, mpsc::UnboundedReceiver<(SocketAddr, DuplexStream)>) {
    let (sender, calls) = mpsc::unbounded_channel();
    let door = Door::open_with(Some(Arc::new(Pipe(sender)))).await;
    let node: Node = object(json!({"metadata": {"name": "n1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}}));
    let client = door.server.client("system:node:n1");
    client.write(vec![Change::create_with_status(node)]).await.unwrap();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1",
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}});
    door.post(PODS, pod).await.is(201);
    (door, calls)
}

/// Reads a request's head and answers it.
async fn answer(
    calls: &mut mpsc::UnboundedReceiver<(SocketAddr, DuplexStream)>,
    text: &str,
) -> (String, DuplexStream) {
    let (address, mut stream) = calls.recv().await.expect("the node is called");
    assert_eq!(address.to_string(), "10.0.0.1:10250");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    stream.write_all(text.as_bytes()).await.unwrap();
    (String::from_utf8(head).unwrap(), stream)
}

#[tokio::test]
async fn a_log_is_what_the_node_says() {
    let (door, mut calls) = door_with_a_pod().await;
    let reply = door.get(&format!("{PODS}/p/log")).await.is(400);
    assert_eq!(
        reply.message(),
        "a container name must be specified for pod p, choose one of: [a b]"
    );
    let reply = door.get(&format!("{PODS}/p/log?container=x")).await.is(400);
    assert_eq!(reply.message(), "container x is not valid for pod p");
    let path = format!("{PODS}/p/log?container=b&tailLines=5&follow=true&pretty=1");
    let (reply, (head, _stream)) = tokio::join!(
        door.get(&path),
        answer(&mut calls, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n"),
    );
    assert_eq!(reply.is(200).text, "hello\n");
    let first = head.lines().next().unwrap();
    assert_eq!(first, "GET /containerLogs/default/p/b?tailLines=5&follow=true HTTP/1.1");
    let path = format!("{PODS}/p/log?container=b");
    let (reply, _) = tokio::join!(
        door.get(&path),
        answer(&mut calls, "HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\n\r\nwaiting"),
    );
    assert_eq!(reply.is(400).message(), "waiting");
}

#[tokio::test]
async fn a_log_comes_through_a_web_socket_too() {
    let (door, mut calls) = door_with_a_pod().await;
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "binary.k8s.io"),
    ];
    let path = format!("{PODS}/p/log?container=b");
    let (mut client, (head, _stream)) = tokio::join!(
        door.upgrade(&path, &headers),
        answer(&mut calls, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n"),
    );
    assert!(head.starts_with("GET /containerLogs/default/p/b? HTTP/1.1"), "{head}");
    // An empty message, the text, the end: binary, unmasked.
    let mut frames = [0; 12];
    client.read_exact(&mut frames).await.unwrap();
    assert_eq!(&frames, b"\x82\x00\x82\x06hello\n\x88\x00");
}

#[tokio::test]
async fn a_stream_is_joined_to_the_nodes() {
    let (door, mut calls) = door_with_a_pod().await;
    door.get(&format!("{PODS}/p/exec?container=a&command=ls")).await.is(400);
    // What one may do who may update or delete is not enough to run commands or to read what they said.
    for (method, part) in [
        ("PUT", "exec"),
        ("PATCH", "attach"),
        ("DELETE", "portforward"),
        ("DELETE", "log"),
        ("POST", "log"),
    ] {
        let path = format!("{PODS}/p/{part}?container=a&command=ls");
        door.call(method, &path, "application/json", "").await.is(405);
    }
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
    ];
    let path = format!(
        "{PODS}/p/exec?container=a&command=echo&command=a%20b&stdin=true&stdout=true&tty=true"
    );
    let accepted = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n";
    let (mut client, (head, mut node)) =
        tokio::join!(door.upgrade(&path, &headers), answer(&mut calls, accepted),);
    let first = head.lines().next().unwrap();
    assert_eq!(
        first,
        "GET /exec/default/p/a?input=1&output=1&tty=1&command=echo&command=a%20b HTTP/1.1"
    );
    assert!(head.contains("v5.channel.k8s.io"), "{head}");
    client.write_all(b"ping").await.unwrap();
    let mut four = [0; 4];
    node.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"ping");
    node.write_all(b"pong").await.unwrap();
    client.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"pong");
}
