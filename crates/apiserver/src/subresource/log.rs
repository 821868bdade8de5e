//! What a container printed, as its node tells it.
//!
//! Upstream: `pkg/registry/core/pod/{strategy.go,rest/log.go}`.

use super::{log_socket, placed};
use crate::{
    answer::{self, Answer, Body},
    http::upgrade,
    node,
    server::Server,
    target::{Query, Target, encode},
};
use api::Failure;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;

/// What the node is asked for as it was asked for here.
const PASSED_ON: [&str; 8] = [
    "follow",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "limitBytes",
    "stream",
];

/// A node's refusal is a sentence or two.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

pub(crate) async fn read(
    server: &Server,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let wants_socket = upgrade(&request).is_some_and(|it| it.eq_ignore_ascii_case("websocket"));
    let (pod, node) = placed(server, target).await?;
    let container = node::container(&pod, query.one("container"))?;
    // A pod without a node has printed nothing.
    let Some(node) = node else {
        return match wants_socket {
            true => log_socket::pass_on(request, None),
            false => Ok(answer::text(StatusCode::OK, "")),
        };
    };
    let parameters: Vec<String> = query
        .pairs()
        .filter(|(key, value)| PASSED_ON.contains(key) && !value.is_empty() && *value != "false")
        .map(|(key, value)| format!("{key}={}", encode(value)))
        .collect();
    let path = format!(
        "/containerLogs/{}/{}/{}?{}",
        encode(&target.namespace),
        encode(&target.name),
        encode(&container),
        parameters.join("&")
    );
    let proxy = server.node_proxy()?;
    let answer = node::send(proxy, &node, ask(&path)?).await?;
    if !answer.status().is_success() {
        return Err(refusal(answer).await);
    }
    if wants_socket {
        return log_socket::pass_on(request, Some(answer.into_body()));
    }
    let mut passed = Response::new(Body::Passed(answer.into_body()));
    passed.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(passed)
}

fn ask(path: &str) -> Result<Request<Empty<Bytes>>, Failure> {
    let request = Request::get(path).header(header::HOST, "node").body(Empty::new());
    request.map_err(Failure::internal)
}

/// A node's refusal in the words of the node.
pub(super) async fn refusal(answer: Response<Incoming>) -> Failure {
    let code = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
    let text = body.map(|it| it.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        500 => "InternalError",
        _ => "",
    };
    let message = match text.as_str() {
        "" => format!("the server responded with the status code {code}"),
        text => text.to_owned(),
    };
    Failure::new(code, reason, message)
}
