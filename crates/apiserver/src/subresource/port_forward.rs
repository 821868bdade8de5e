//! Connections to ports of a pod, through the door.
//!
//! Three forms come in: SPDY; SPDY inside a WebSocket, which kubectl speaks since 1.31; and the older WebSocket with a
//! pair of channels for each port, which goes on to the node as it is. The first two end here, and each connection
//! that they carry becomes a WebSocket to the node, so that one that fails leaves the others alone.
//! Upstream: `pkg/registry/core/pod/rest/subresources.go`,
//! `k8s.io/cri-streaming/pkg/streaming/portforward/httpstream.go`.

use super::{
    negotiate,
    onward::{self, CLOSE},
    placed, streams,
    tunnel::Tunnel,
};
use crate::{
    answer::Answer,
    http::upgrade,
    server::Server,
    spdy::{Accepted, Receiver, Sender, Session},
    target::{Query, Target, encode},
};
use api::{Failure, core::v1::Node};
use futures_util::{SinkExt, StreamExt};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use world::Typed;

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNELED: &str = "SPDY/3.1+portforward.k8s.io";

/// How long a client may take to open both streams of a connection. Upstream's default.
const CREATION_MAX: Duration = Duration::from_secs(30);

/// What went wrong with a connection is a sentence or two.
const WHY_BYTES_MAX: usize = 64 * 1024;

const DATA: u8 = 0;

pub(super) async fn connect(
    server: &Arc<Server>,
    target: &Target,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let (_, node) = placed(server, target).await?;
    let node = node.ok_or_else(|| {
        Failure::bad_request(format!("pod {} does not have a host assigned", target.name))
    })?;
    let path = format!("/portForward/{}/{}", encode(&target.namespace), encode(&target.name));
    let place = Place { server: server.clone(), node: Arc::new(node), path };
    let wanted = upgrade(&request).unwrap_or_default().to_owned();
    if wanted.eq_ignore_ascii_case(negotiate::SPDY) {
        let protocol = match negotiate::spdy_protocol(request.headers(), &[PROTOCOL]) {
            Ok(protocol) => protocol,
            Err(refusal) => return Ok(*refusal),
        };
        let client = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match client.await {
                Ok(client) => serve(TokioIo::new(client), &place).await,
                Err(error) => tracing::debug!("upgrading a stream: {error}"),
            }
        });
        return Ok(negotiate::switch_to_spdy(protocol));
    }
    if !wanted.eq_ignore_ascii_case("websocket") {
        return Err(streams::no_upgrade());
    }
    if negotiate::web_socket_protocols(request.headers()).contains(&TUNNELED) {
        let answer = negotiate::switch_to_web_socket(request.headers(), TUNNELED)?;
        let client = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match client.await {
                Ok(client) => {
                    let (client, config) = (TokioIo::new(client), Some(onward::config()));
                    let socket =
                        WebSocketStream::from_raw_socket(client, Role::Server, config).await;
                    serve(Tunnel::new(socket), &place).await;
                }
                Err(error) => tracing::debug!("upgrading a stream: {error}"),
            }
        });
        return Ok(answer);
    }
    let ports: Vec<String> = query
        .all("ports")
        .chain(query.all("port"))
        .map(|it| format!("port={}", encode(it)))
        .collect();
    let path = format!("{}?{}", place.path, ports.join("&"));
    streams::pass_on(server, &place.node, &path, request).await
}

/// Where connections go.
#[derive(Clone)]
struct Place {
    server: Arc<Server>,
    node: Arc<Typed<Node>>,
    path: String,
}

/// The two streams of one connection, while one of them is missing.
#[derive(Default)]
struct Pair {
    data: Option<(Receiver, Sender)>,
    error: Option<Sender>,
}

/// What one of a session's tasks ended with.
enum Ended {
    Connection,
    /// The time for both streams of this request is over.
    Creation(String),
}

/// Serves a session until the client leaves; its connections end with it.
async fn serve(client: impl AsyncRead + AsyncWrite + Send + 'static, place: &Place) {
    let mut session = Session::start(client);
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = session.accept() => accepted,
            Some(ended) = tasks.join_next() => {
                if let Ok(Ended::Creation(id)) = ended
                    && let Some(Pair { error: Some(error), .. }) = pairs.remove(&id)
                {
                    let why = format!("(request={id}) timed out waiting for streams");
                    let _gone = error.send(why.into()).await;
                    error.finish().await;
                }
                continue;
            }
        };
        let Some(accepted) = accepted else { return };
        let Some((id, port)) = request(&accepted) else { continue };
        let pair = pairs.entry(id.clone()).or_default();
        if pair.data.is_none() && pair.error.is_none() {
            let id = id.clone();
            tasks.spawn(async move {
                stdx::sleep(CREATION_MAX).await;
                Ended::Creation(id)
            });
        }
        let Accepted { headers, receiver, sender, .. } = accepted;
        match headers.one("streamtype") {
            "error" if pair.error.is_none() => pair.error = Some(sender),
            "data" if pair.data.is_none() => pair.data = Some((receiver, sender)),
            // Twice the same: the second is reset by being dropped.
            _ => {}
        }
        if pair.data.is_some() && pair.error.is_some() {
            let pair = pairs.remove(&id).unwrap_or_default();
            let place = place.clone();
            tasks.spawn(async move {
                forward(&place, port, pair).await;
                Ended::Connection
            });
        }
    }
}

/// Which connection a stream belongs to, and the port; `None` for a stream that says neither, which is reset.
fn request(accepted: &Accepted) -> Option<(String, u16)> {
    let headers = &accepted.headers;
    let port: u16 = headers.one("port").parse().ok().filter(|it| *it > 0)?;
    let id = match (headers.one("requestid"), headers.one("streamtype")) {
        // Before there were ids, a connection's streams were opened one after the other, the error stream first.
        ("", "error") => accepted.stream.to_string(),
        ("", "data") => accepted.stream.checked_sub(2)?.to_string(),
        (id, "error" | "data") => id.to_owned(),
        _ => return None,
    };
    Some((id, port))
}

async fn forward(place: &Place, port: u16, pair: Pair) {
    let (Some((from, to)), Some(error)) = (pair.data, pair.error) else { return };
    let path = format!("{}?port={port}", place.path);
    let why = match onward::open(&place.server, &place.node, &path).await {
        Ok(node) => carry(node, from, &to).await,
        Err(failure) => format!("error forwarding port {port}: {}", failure.message),
    };
    if why.is_empty() {
        to.finish().await;
        return error.finish().await;
    }
    let _gone = error.send(why.into()).await;
    to.reset().await;
    error.reset().await;
}

/// Carries bytes both ways until the pod has closed, or the client is gone. What went wrong, or nothing.
async fn carry<N: AsyncRead + AsyncWrite + Unpin>(
    node: WebSocketStream<N>,
    mut from: Receiver,
    to: &Sender,
) -> String {
    let (mut sink, mut source) = node.split();
    let to_node = async {
        while let Some(piece) = from.next().await {
            let mut message = Vec::with_capacity(piece.len() + 1);
            message.push(DATA);
            message.extend_from_slice(&piece);
            if sink.send(Message::binary(message)).await.is_err() {
                break;
            }
        }
        let _node_gone = sink.send(Message::binary(vec![CLOSE, DATA])).await;
        std::future::pending::<()>().await;
    };
    let to_client = async {
        let mut why = Vec::new();
        // The first two bytes of each channel are the port.
        let mut begun = [false; 2];
        loop {
            let mut data = match source.next().await {
                Some(Ok(Message::Binary(data))) if !data.is_empty() => data,
                Some(Ok(Message::Close(_))) | None => break,
                Some(Ok(_)) => continue,
                Some(Err(error)) => {
                    if why.is_empty() {
                        why = format!("the connection to the node broke: {error}").into_bytes();
                    }
                    break;
                }
            };
            let channel = data.split_to(1)[0];
            // Besides data there is only what went wrong.
            let Some(begun) = begun.get_mut(usize::from(channel)) else { continue };
            if !std::mem::replace(begun, true) {
                continue;
            }
            if channel == DATA {
                if to.send(data).await.is_err() {
                    break;
                }
            } else if why.len() < WHY_BYTES_MAX {
                why.extend_from_slice(&data);
            }
        }
        String::from_utf8_lossy(&why).into_owned()
    };
    tokio::select! {
        why = to_client => why,
        () = to_node => String::new(),
        () = to.gone() => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::testing::Client;
    use tokio::io::DuplexStream;

    type Pod = WebSocketStream<DuplexStream>;

    /// A client with its data stream, and the node's end of the connection that carries it.
    async fn start() -> (Client, u32, Pod) {
        let (mut client, server) = Client::pair();
        let mut session = Session::start(server);
        let data = client.open(&[("streamtype", "data"), ("port", "80")]).await;
        let accepted = session.accept().await.unwrap();
        assert_eq!(request(&accepted), None, "there is no stream two numbers before the first");
        let (near, far) = tokio::io::duplex(64 * 1024);
        let near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let pod = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        tokio::spawn(async move {
            let Accepted { receiver, sender, .. } = accepted;
            let why = carry(near, receiver, &sender).await;
            if why.is_empty() {
                sender.finish().await;
            } else {
                let _gone = sender.send(why.into()).await;
                sender.reset().await;
            }
            session.end().await;
        });
        (client, data, pod)
    }

    async fn say(pod: &mut Pod, message: &[u8]) {
        pod.send(Message::binary(message.to_vec())).await.unwrap();
    }

    async fn next(pod: &mut Pod) -> Vec<u8> {
        pod.next().await.unwrap().unwrap().into_data().to_vec()
    }

    #[tokio::test]
    async fn bytes_go_both_ways_until_the_pod_has_said_all() {
        let (mut client, data, mut pod) = start().await;
        say(&mut pod, &[0, 80, 0]).await;
        say(&mut pod, &[1, 80, 0]).await;
        client.say(data, b"question").await;
        client.finish(data).await;
        assert_eq!(next(&mut pod).await, b"\0question");
        assert_eq!(next(&mut pod).await, [CLOSE, DATA]);
        say(&mut pod, b"\0answer").await;
        pod.close(None).await.unwrap();
        client.until(|it| it.on(data).finished).await;
        assert_eq!(client.on(data).text(), "answer", "without the port");
    }

    #[tokio::test]
    async fn what_went_wrong_is_told() {
        let (mut client, data, mut pod) = start().await;
        say(&mut pod, &[0, 80, 0]).await;
        say(&mut pod, &[1, 80, 0]).await;
        say(&mut pod, b"\x01connection refused").await;
        pod.close(None).await.unwrap();
        client.until(|it| it.on(data).reset).await;
        assert_eq!(client.on(data).text(), "connection refused");
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_connection_to_the_pod() {
        let (client, _, mut pod) = start().await;
        drop(client);
        while let Some(Ok(_)) = pod.next().await {}
    }

    #[tokio::test]
    async fn streams_of_one_connection_name_it_or_follow_each_other() {
        let (mut client, server) = Client::pair();
        let mut session = Session::start(server);
        let mut ids = Vec::new();
        for headers in [
            &[("streamtype", "error"), ("port", "80")][..],
            &[("streamtype", "data"), ("port", "80")],
            &[("streamtype", "error"), ("port", "80"), ("requestid", "7")],
            &[("streamtype", "data"), ("port", "80"), ("requestid", "7")],
            &[("streamtype", "data"), ("port", "0"), ("requestid", "8")],
            &[("streamtype", "data"), ("port", "65536"), ("requestid", "8")],
            &[("streamtype", "other"), ("port", "80"), ("requestid", "8")],
        ] {
            client.open(headers).await;
            ids.push(request(&session.accept().await.unwrap()).map(|it| it.0));
        }
        let expected = [Some("1"), Some("1"), Some("7"), Some("7"), None, None, None];
        assert_eq!(ids, expected.map(|it| it.map(str::to_owned)));
    }
}
