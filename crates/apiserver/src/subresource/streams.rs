//! A terminal, or a pipe, into a container: the client's connection becomes the node's.
//!
//! Upstream: `pkg/registry/core/pod/{strategy.go,rest/subresources.go}`.

use super::{log, placed};
use crate::{
    answer::{Answer, Body},
    http::upgrade,
    node,
    server::Server,
    target::{Query, Target, encode},
};
use api::{Failure, core::v1::Pod};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::io::copy_bidirectional;

/// Headers of the upgrade that both ends have to agree on.
const HANDSHAKE: [header::HeaderName; 4] = [
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

pub(crate) async fn connect(
    server: &Arc<Server>,
    target: &Target,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let (pod, node) = placed(server, target).await?;
    let container = node::container(&pod, query.one("container"))?;
    let node = node.ok_or_else(|| {
        Failure::bad_request(format!("pod {} does not have a host assigned", target.name))
    })?;
    let path = format!(
        "/{}/{}/{}/{}?{}",
        target.subresource,
        encode(&target.namespace),
        encode(&target.name),
        encode(&container),
        parameters(query)
    );
    let Some(protocol) = upgrade(&request).map(str::to_owned) else {
        return Err(Failure::bad_request("unable to upgrade: missing upgrade headers in request"));
    };
    if !protocol.eq_ignore_ascii_case("websocket") {
        // Clients that were refused over WebSocket try again: tell them why they were.
        if !runs(&pod, &container) {
            return Err(Failure::internal(format!("container not found ({container:?})")));
        }
        return Err(Failure::bad_request(format!(
            "unable to upgrade: {protocol:?} is not supported, only \"websocket\" is"
        )));
    }
    let mut onward = Request::get(&path)
        .header(header::HOST, "node")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket");
    for name in HANDSHAKE {
        for value in request.headers().get_all(&name) {
            onward = onward.header(&name, value);
        }
    }
    let onward = onward.body(Empty::<Bytes>::new()).map_err(Failure::internal)?;
    let mut answer = node::send(server.node_proxy()?, &node, onward).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(log::refusal(answer).await);
    }
    let (client, far) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    tokio::spawn(async move {
        let (client, far) = match tokio::try_join!(client, far) {
            Ok(both) => both,
            Err(error) => return tracing::debug!("upgrading a stream: {error}"),
        };
        let (mut client, mut far) = (TokioIo::new(client), TokioIo::new(far));
        if let Err(error) = copy_bidirectional(&mut client, &mut far).await {
            tracing::debug!("a stream broke: {error}");
        }
    });
    let mut switching = Response::new(Body::Whole(None));
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switching.headers_mut() = answer.headers().clone();
    Ok(switching)
}

fn runs(pod: &Pod, container: &str) -> bool {
    let Some(status) = &pod.status else { return false };
    let all = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let mut all = all.into_iter().flatten().flatten();
    all.any(|it| it.name == container && it.state.as_ref().is_some_and(|it| it.running.is_some()))
}

/// The node's names for what the client asked for.
fn parameters(query: &Query) -> String {
    let mut parameters: Vec<String> =
        [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
            .iter()
            .filter(|(asked, _)| query.is(asked))
            .map(|(_, name)| format!("{name}=1"))
            .collect();
    parameters.extend(query.all("command").map(|it| format!("command={}", encode(it))));
    parameters.join("&")
}
