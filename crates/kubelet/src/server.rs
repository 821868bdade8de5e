//! The node's server: logs, exec, attach, port-forward, health and figures, over mutual TLS.
//!
//! Who may ask: holders of a client certificate of the cluster's authority in the group of administrators, which is
//! what the API server shows. Upstream: `pkg/kubelet/server/server.go` (1.36).

mod answer;
mod calls;
pub(crate) mod log;
mod logs;
mod metrics;
mod streams;
mod summary;
mod system_logs;
mod watch;

use crate::kubelet::Shared;
use answer::{Answer, text};
use api::{
    Object,
    core::{pod::node_name, v1::Pod},
};
use http::{Method, Request, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{collections::BTreeMap, convert::Infallible, io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use world::{ObjectKey, Typed};

/// Upstream: `system:masters` may everything.
const ADMINISTRATORS: &str = "system:masters";
/// Connections at one time; more wait to be accepted. A followed log is one, and so is an exec.
const CONNECTIONS_MAX: usize = 2000;
/// A client that connects and says nothing is let go.
const HEAD_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub struct ServerError {
    address: String,
    #[source]
    source: io::Error,
}

pub(crate) struct Server {
    listener: TcpListener,
    port: u16,
    acceptor: TlsAcceptor,
}

#[derive(Clone)]
pub(crate) struct Context {
    shared: Arc<Shared>,
}

impl Context {
    pub(crate) fn new(shared: Arc<Shared>) -> Context {
        Context { shared }
    }
}

impl Server {
    pub(crate) async fn bind(
        host: &str,
        port: u16,
        tls: Arc<rustls::ServerConfig>,
    ) -> Result<Server, ServerError> {
        let failed = |source| ServerError { address: format!("{host}:{port}"), source };
        let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Server { listener, port, acceptor: TlsAcceptor::from(tls) })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Serves until it is dropped; open connections end with it.
    pub(crate) async fn run(&self, context: Context) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (acceptor, context) = (self.acceptor.clone(), context.clone());
                    connections.spawn(async move {
                        converse(stream, acceptor, context).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a connection to the node's server");
                    stdx::sleep(Duration::from_millis(50)).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, context: Context) {
    let _no_delay = stream.set_nodelay(true);
    let stream = match stdx::timeout(HEAD_MAX, acceptor.accept(stream)).await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => return tracing::debug!(%error, "TLS with a client of the node"),
        None => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let trusted = certificates.and_then(<[_]>::first).is_some_and(|it| is_administrator(it));
    let service = service_fn(|request: Request<Incoming>| {
        let context = context.clone();
        async move {
            let answer = match trusted || request.uri().path() == "/healthz" {
                true => route(&context, request).await,
                false => text(StatusCode::UNAUTHORIZED, "Unauthorized"),
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the node's server");
    }
}

fn is_administrator(certificate: &[u8]) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return false;
    };
    let groups = certificate.subject().iter_organization();
    groups.into_iter().any(|it| it.as_str() == Ok(ADMINISTRATORS))
}

async fn route(context: &Context, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let read = matches!(*request.method(), Method::GET | Method::POST);
    match parts.as_slice() {
        _ if !read => text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"),
        ["healthz"] => text(StatusCode::OK, "ok"),
        ["stanchion", "volumes"] => calls::answer(context, request).await,
        ["pods"] => summary::pods(context),
        ["metrics"] => metrics::kubelet(context).await,
        ["metrics", "resource"] => metrics::resource(context).await,
        ["metrics", "cadvisor"] => metrics::cadvisor(context).await,
        ["stats", "summary"] => summary::summary(context).await,
        ["logs", ..] if *request.method() == Method::GET => {
            let rest = path.trim_start_matches('/').strip_prefix("logs/").unwrap_or_default();
            system_logs::answer(&decode(&rest.replace('+', "%2B"))).await
        }
        ["containerLogs", namespace, pod, container] => {
            logs::answer(context, namespace, pod, container, &query).await
        }
        ["exec" | "attach", namespace, pod, container]
        | ["exec" | "attach", namespace, pod, _, container] => {
            let order = streams::Order { attach: parts[0] == "attach", namespace, pod, container };
            streams::answer(context, &order, &query, request).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            streams::port_forward(context, namespace, pod, &query, request).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

impl Context {
    /// A pod of this node.
    fn pod(&self, namespace: &str, name: &str) -> Option<Typed<Pod>> {
        let pod = self.shared.client.world().get::<Pod>(&ObjectKey::new(namespace, name))?;
        (node_name(&pod) == self.shared.facts.node_name).then(|| as_it_runs(pod))
    }

    /// Every pod of this node.
    fn pods(&self) -> Vec<Typed<Pod>> {
        let world = self.shared.client.world();
        let here = world.indexed::<Pod>("node", &self.shared.facts.node_name);
        let mut pods: Vec<_> = here.map(as_it_runs).collect();
        pods.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
        pods
    }
}

/// A mirror pod is asked for, and the static pod that it mirrors is meant.
fn as_it_runs(pod: Typed<Pod>) -> Typed<Pod> {
    let Some(uid) = crate::static_pods::mirrored(&pod).map(str::to_owned) else { return pod };
    let mut pod = pod.to_owned();
    pod.metadata.uid = Some(uid);
    Typed::from(pod)
}

/// What follows the question mark.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    fn parse(text: &str) -> Query {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|it| !it.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.entry(decode(key)).or_default().push(decode(value));
        }
        Query(all)
    }

    fn one(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.first().map(String::as_str).filter(|it| !it.is_empty())
    }

    fn all(&self, key: &str) -> Vec<String> {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// `1` and `true`, as clients of either age write it.
    fn flag(&self, key: &str) -> bool {
        matches!(self.one(key), Some("1" | "true"))
    }
}

/// `%41+b` → `A b`
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let byte = hex.and_then(|it| u8::from_str_radix(it, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_query_as_it_was_meant() {
        let query = Query::parse("command=a%20b&command=%2Fbin%2Fls&tty=1&follow=true&x=&y=%zz");
        assert_eq!(query.all("command"), ["a b", "/bin/ls"]);
        assert!(query.flag("tty") && query.flag("follow") && !query.flag("x"));
        assert_eq!(query.one("y"), Some("%zz"));
    }
}
