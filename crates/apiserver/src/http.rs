//! HTTPS: connections, and the way of each request through authentication, authorization and its verb.

use crate::{
    accept,
    answer::{self, Answer},
    ask::Ask,
    authn, authz, body,
    error::Error,
    not_built, rest,
    server::Server,
    subresource,
    target::{Query, Target},
    tls::Tls,
    usage,
    user::User,
    wire,
};
use api::Failure;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use stdx::ShutdownSignal;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// Each costs a TLS state and buffers; a cluster of the size meant here has some hundreds.
const CONNECTIONS_MAX: usize = 4096;

/// Upstream's `--http2-max-streams-per-connection` default.
const STREAMS_MAX: u32 = 100;

/// A client that takes longer to say who it is, or what it wants, is none.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(32);

/// How long requests that were under way may take to end.
const DRAIN: Duration = Duration::from_secs(5);

impl Server {
    /// Serves HTTPS on every listener until shutdown begins, then lets what is under way end.
    pub async fn serve(
        self: Arc<Self>,
        listeners: Vec<TcpListener>,
        tls: Tls,
        shutdown: ShutdownSignal,
    ) -> Result<(), Error> {
        let acceptor = TlsAcceptor::from(tls.server_config()?);
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut doors = JoinSet::new();
        for listener in listeners {
            let (server, acceptor) = (self.clone(), acceptor.clone());
            doors.spawn(server.listen(listener, acceptor, room.clone(), shutdown.clone()));
        }
        while doors.join_next().await.is_some() {}
        Ok(())
    }

    async fn listen(
        self: Arc<Self>,
        listener: TcpListener,
        acceptor: TlsAcceptor,
        room: Arc<Semaphore>,
        mut shutdown: ShutdownSignal,
    ) {
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.wait() => break,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (server, acceptor, shutdown) =
                        (self.clone(), acceptor.clone(), shutdown.clone());
                    connections.spawn(async move {
                        server.converse(stream, acceptor, shutdown).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: the next moment may be better.
                    tracing::warn!("accepting a connection: {error}");
                    stdx::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        let _late = stdx::timeout(DRAIN, ended).await;
    }

    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        mut shutdown: ShutdownSignal,
    ) {
        let _without_delay = stream.set_nodelay(true);
        let stream = match stdx::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return tracing::debug!("TLS handshake: {error}"),
            None => return tracing::debug!("TLS handshake: took too long"),
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let user = certificates.and_then(|it| it.first()).and_then(authn::user_of).map(Arc::new);
        let signal = shutdown.clone();
        let service = service_fn(move |request| {
            let (server, user, shutdown) = (self.clone(), user.clone(), signal.clone());
            async move { Ok::<_, Infallible>(server.answer(user, request, shutdown).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.wait() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection broke: {error}");
        }
    }

    /// Whatever happens inside, there is an answer.
    async fn answer(
        self: Arc<Self>,
        user: Option<Arc<User>>,
        request: Request<Incoming>,
        shutdown: ShutdownSignal,
    ) -> Answer {
        let metrics = &self.clone().metrics;
        let _under_way = metrics.begin();
        let method = request.method().clone();
        let headers = request.headers().clone();
        let route = self.clone().route(user, request, shutdown);
        let (resource, result) = match AssertUnwindSafe(route).catch_unwind().await {
            Ok(routed) => routed,
            Err(_panic) => {
                let why = Failure::internal("the request could not be handled");
                (String::new(), Err(why))
            }
        };
        let mut answer = result.unwrap_or_else(|failure| answer::failure(&failure));
        if let Ok(form) = accept::form(&headers) {
            answer = wire::packed(answer, form, !resource.is_empty());
        }
        answer = wire::smaller(answer, &headers);
        metrics.count(method.as_str(), &resource, answer.status().as_u16());
        let id = self.config.entropy.uuid();
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.headers_mut().insert("audit-id", id);
        }
        answer
    }

    /// The resource that was asked for (for counting) and the answer.
    async fn route(
        self: Arc<Self>,
        user: Option<Arc<User>>,
        request: Request<Incoming>,
        shutdown: ShutdownSignal,
    ) -> (String, Result<Answer, Failure>) {
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        if let Some(answer) = self.open_to_all(&path, &query, request.method()) {
            return (String::new(), Ok(answer));
        }
        let Some(user) = user else { return (String::new(), Err(Failure::unauthorized())) };
        if path.starts_with("/openapi/") && authz::allows(&user) {
            let headers = request.headers().clone();
            return (String::new(), self.openapi(&path, query.one("hash"), &headers).await);
        }
        if let Some(asked) = usage::Asked::parse(&path) {
            if !authz::allows(&user) {
                return (
                    String::new(),
                    Err(authz::forbidden_path(&user, request.method().as_str(), &path)),
                );
            }
            if request.method() != Method::GET {
                let message = "the server does not allow this method on the requested resource";
                return (String::new(), Err(Failure::new(405, "MethodNotAllowed", message)));
            }
            // Counted and packed as what is no object: these kinds have no messages of ours.
            return (String::new(), self.usage(&asked, &query).await);
        }
        let Some(target) = Target::parse(&self.kinds, &path) else {
            return (String::new(), self.other(&user, &path, &request));
        };
        let resource = target.kind.plural.clone();
        let verb = verb(request.method(), &target, &query);
        if !authz::allows(&user) {
            return (resource, Err(authz::forbidden(&user, verb, &target)));
        }
        (resource, self.act(&user, target, query, verb, request, shutdown).await)
    }

    fn open_to_all(&self, path: &str, query: &Query, method: &Method) -> Option<Answer> {
        if method != Method::GET && method != Method::HEAD {
            return None;
        }
        if path == "/version" || path == "/version/" {
            return Some(answer::json(StatusCode::OK, &self.version()));
        }
        self.health(path, query)
    }

    /// Paths that are about no objects.
    fn other(
        &self,
        user: &User,
        path: &str,
        request: &Request<Incoming>,
    ) -> Result<Answer, Failure> {
        if !authz::allows(user) {
            return Err(authz::forbidden_path(user, request.method().as_str(), path));
        }
        if request.method() == Method::POST
            && let Some(refusal) = not_built::refusal(path)
        {
            return Err(refusal);
        }
        if path == "/metrics" {
            let text = self.metrics.text(&self.store.figures());
            return Ok(answer::text(StatusCode::OK, text));
        }
        self.discovery(path, request.headers()).ok_or_else(no_such_path)
    }

    async fn act(
        self: Arc<Self>,
        user: &User,
        target: Target,
        query: Query,
        verb: &'static str,
        request: Request<Incoming>,
        shutdown: ShutdownSignal,
    ) -> Result<Answer, Failure> {
        if subresource::is_stream(&target) {
            return subresource::stream(&self, &target, &query, request).await;
        }
        let form = accept::form(request.headers())?;
        let headers = request.headers().clone();
        let ask = Ask { server: self, user: user.clone(), target, query, headers, form };
        if verb == "create"
            && ask.target.subresource.is_empty()
            && let Some(refusal) = not_built::refusal_of(&ask.target.kind)
        {
            return Err(refusal);
        }
        let has_body = !matches!(verb, "get" | "list" | "watch");
        let body = match has_body {
            true => body::read(request.into_body()).await?,
            false => Bytes::new(),
        };
        if !ask.target.subresource.is_empty()
            && let Some(answer) = subresource::act(&ask, verb, &body).await
        {
            return answer;
        }
        let ask = Arc::new(ask);
        let named = !ask.target.name.is_empty();
        let deprecations = ask.deprecations();
        let mut answer = match verb {
            "get" if ask.target.subresource.is_empty() || rest::create::part(&ask).is_ok() => {
                rest::get::get(&ask).await
            }
            "list" => rest::list::list(&ask).await,
            "watch" => rest::watch::watch(ask, shutdown).await,
            // Objects are made and cleared out in one namespace at a time.
            "create" | "deletecollection" if ask.target.is_all_namespaces() => {
                Err(not_allowed(&ask.target))
            }
            "create" if !named => rest::create::create(&ask, body).await,
            "update" if named => rest::update::update(&ask, body).await,
            "patch" if named => rest::patch::patch(&ask, body).await,
            "delete" if ask.target.subresource.is_empty() => rest::delete::delete(&ask, body).await,
            "deletecollection" => rest::delete::delete_all(&ask, body).await,
            "get" => Err(no_such_path()),
            _ => Err(not_allowed(&ask.target)),
        }?;
        answer::warn(&mut answer, &deprecations);
        Ok(answer)
    }

    fn version(&self) -> serde_json::Value {
        let version = &self.config.version;
        let mut numbers = version.trim_start_matches('v').split('.');
        let mut number = || numbers.next().unwrap_or_default().to_owned();
        serde_json::json!({
            "major": number(), "minor": number(), "gitVersion": version,
            "emulationMajor": "1", "emulationMinor": "36",
            "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "", "goVersion": "",
            "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        })
    }
}

fn verb(method: &Method, target: &Target, query: &Query) -> &'static str {
    let named = !target.name.is_empty();
    match *method {
        Method::GET | Method::HEAD if query.is("watch") && target.subresource.is_empty() => "watch",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    }
}

pub(crate) fn no_such_path() -> Failure {
    let mut failure =
        Failure::new(404, "NotFound", "the server could not find the requested resource");
    failure.details = Some(Box::default());
    failure
}

pub(crate) fn not_allowed(target: &Target) -> Failure {
    Failure::new(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
    .about(&target.kind, &target.name)
}

/// What the client asked its connection to become: `websocket`.
pub(crate) fn upgrade(request: &Request<Incoming>) -> Option<&str> {
    let connection = request.headers().get_all(header::CONNECTION).iter();
    let mut connection = connection.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
    if !connection.any(|it| it.trim().eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    request.headers().get(header::UPGRADE)?.to_str().ok()
}
