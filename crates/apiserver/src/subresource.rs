//! Paths below an object's own that do something else than write it.

mod binding;
mod eviction;
mod log;
mod log_socket;
mod negotiate;
mod onward;
mod port_forward;
mod proxy;
mod remote_command;
mod scale;
mod streams;
pub(crate) mod token;
mod tunnel;

use crate::{
    answer::Answer,
    ask::Ask,
    http::no_such_path,
    server::Server,
    target::{Query, Target},
};
use api::{
    Failure, Subresource,
    core::v1::{Node, Pod},
};
use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use std::sync::Arc;
use world::{ObjectKey, Typed};

fn of(target: &Target) -> Option<Subresource> {
    let own = target.kind.subresources.iter();
    own.copied().find(|it| it.name() == target.subresource)
}

/// Whether the answer is not an object but bytes from a container, a pod or a node.
pub(crate) fn is_stream(target: &Target) -> bool {
    matches!(
        of(target),
        Some(
            Subresource::Exec
                | Subresource::Attach
                | Subresource::Log
                | Subresource::PortForward
                | Subresource::Proxy
        )
    )
}

/// Whether a stream answers to this verb: streams are opened, and a proxy passes on whatever it gets. What an other
/// verb is allowed to do must not open one.
pub(crate) fn takes(target: &Target, verb: &str) -> bool {
    match of(target) {
        Some(Subresource::Exec | Subresource::Attach | Subresource::PortForward) => {
            matches!(verb, "get" | "create")
        }
        Some(Subresource::Log) => verb == "get",
        _ => true,
    }
}

pub(crate) async fn stream(
    server: &Arc<Server>,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    match of(target) {
        Some(Subresource::Exec | Subresource::Attach) => {
            streams::connect(server, target, query, request).await
        }
        Some(Subresource::PortForward) => {
            port_forward::connect(server, target, query, request).await
        }
        Some(Subresource::Proxy) => proxy::pass(server, target, request).await,
        Some(Subresource::Log) => log::read(server, target, query, request).await,
        _ => Err(no_such_path()),
    }
}

/// `None` when the ordinary verbs serve this path.
pub(crate) async fn act(ask: &Ask, verb: &str, body: &Bytes) -> Option<Result<Answer, Failure>> {
    match (of(&ask.target), verb) {
        (Some(Subresource::Scale), "get") => Some(scale::get(ask).await),
        (Some(Subresource::Scale), "update") => Some(scale::update(ask, body.clone()).await),
        (Some(Subresource::Scale), "patch") => Some(scale::patch(ask, body.clone()).await),
        (Some(Subresource::Binding), "create") => Some(binding::create(ask, body.clone()).await),
        (Some(Subresource::Eviction), "create") => Some(eviction::create(ask, body.clone()).await),
        (Some(Subresource::Token), "create") => Some(token::create(ask, body.clone()).await),
        (None, _) => Some(Err(no_such_path())),
        (Some(_), _) => None,
    }
}

/// A pod and the node that runs it.
async fn placed(
    server: &Server,
    target: &Target,
) -> Result<(Typed<Pod>, Option<Typed<Node>>), Failure> {
    let view = server.fresh(None).await?;
    let key = ObjectKey::new(&target.namespace, &target.name);
    let pod: Option<Typed<Pod>> = view.world.get(&key);
    let pod = pod.ok_or_else(|| Failure::not_found(&target.kind, &target.name))?;
    let name = api::core::pod::node_name(&pod);
    if name.is_empty() {
        return Ok((pod, None));
    }
    let node: Option<Typed<Node>> = view.world.cluster(name);
    let node = node.ok_or_else(|| Failure::not_found(api::kind_of::<Node>(), name))?;
    Ok((pod, Some(node)))
}
