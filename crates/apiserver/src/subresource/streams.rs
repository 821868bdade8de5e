//! A terminal, or a pipe, into a container. A client that speaks WebSocket speaks it with the node; SPDY ends here.
//!
//! Upstream: `pkg/registry/core/pod/{strategy.go,rest/subresources.go}`.

use super::{log, negotiate, onward, placed, remote_command};
use crate::{
    answer::{Answer, Body},
    http::upgrade,
    node,
    server::Server,
    target::{Query, Target, encode},
};
use api::{Failure, core::v1::Node};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::{body::Incoming, upgrade::OnUpgrade};
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
    let wanted = upgrade(&request).unwrap_or_default();
    if wanted.eq_ignore_ascii_case("websocket") {
        return pass_on(server, &node, &path, request).await;
    }
    if !wanted.eq_ignore_ascii_case(negotiate::SPDY) {
        return Err(no_upgrade());
    }
    let protocol = match negotiate::spdy_protocol(request.headers(), &remote_command::PROTOCOLS) {
        Ok(protocol) => protocol,
        Err(refusal) => return Ok(*refusal),
    };
    let far = onward::open(server, &node, &path).await?;
    let wants = remote_command::Wants {
        protocol,
        stdin: query.is("stdin"),
        stdout: query.is("stdout"),
        stderr: query.is("stderr"),
        tty: query.is("tty"),
    };
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match client.await {
            Ok(client) => remote_command::join(TokioIo::new(client), far, wants).await,
            Err(error) => tracing::debug!("upgrading a stream: {error}"),
        }
    });
    Ok(negotiate::switch_to_spdy(protocol))
}

pub(super) fn no_upgrade() -> Failure {
    Failure::bad_request("unable to upgrade: missing upgrade headers in request")
}

/// Lets the client speak WebSocket with the node itself.
pub(super) async fn pass_on(
    server: &Server,
    node: &Node,
    path: &str,
    mut request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let mut onward = Request::get(path)
        .header(header::HOST, "node")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket");
    for name in HANDSHAKE {
        for value in request.headers().get_all(&name) {
            onward = onward.header(&name, value);
        }
    }
    let onward = onward.body(Empty::<Bytes>::new()).map_err(Failure::internal)?;
    let mut answer = node::send(server.node_proxy()?, node, onward).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(log::refusal(answer).await);
    }
    let (client, far) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    splice(client, far);
    let mut switching = Response::new(Body::Whole(None));
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switching.headers_mut() = answer.headers().clone();
    Ok(switching)
}

/// Once both have agreed, copies bytes both ways until one of them ends.
pub(super) fn splice(client: OnUpgrade, far: OnUpgrade) {
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
