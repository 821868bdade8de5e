//! HTTPS: connections, and the way of each request through authentication, authorization and its verb.

use crate::{
    accept,
    answer::{self, Answer},
    ask::Ask,
    audit::Trail,
    authn::{self, Caller},
    authz::{self, About, Objects, Verdict, Wish},
    body,
    error::Error,
    not_built,
    patience::Patience,
    rest,
    reviews::{self, Review},
    server::Server,
    subresource,
    target::{Query, Target},
    tls::Tls,
    usage,
    user::User,
    view::View,
    wire,
};
use api::Failure;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    convert::Infallible, net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};
use stdx::ShutdownSignal;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// Upstream's `--http2-max-streams-per-connection` default.
const STREAMS_MAX: u32 = 100;

/// Longer than a UUID, and short enough for a log.
const AUDIT_ID_MAX: usize = 64;

/// All headers of one request; upstream's, which is Go's.
const HEADERS_BYTES_MAX: u32 = 1 << 20;

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
        let room = Arc::new(Room::new(&self.config.patience));
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
        room: Arc<Room>,
        mut shutdown: ShutdownSignal,
    ) {
        let mut connections = JoinSet::new();
        loop {
            let Some(place) = room.place().await else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.wait() => break,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let place = room.better(place);
                    let (server, acceptor, shutdown) =
                        (self.clone(), acceptor.clone(), shutdown.clone());
                    connections.spawn(async move {
                        let time = server.config.patience.handshake;
                        let crowded = place.crowded;
                        let talk = server.converse(stream, acceptor, shutdown, crowded);
                        match crowded {
                            false => talk.await,
                            true => drop(stdx::timeout(time, talk).await),
                        }
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
        crowded: bool,
    ) {
        let _without_delay = stream.set_nodelay(true);
        let patience = self.config.patience.clone();
        let stream = match stdx::timeout(patience.handshake, acceptor.accept(stream)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return tracing::debug!("TLS handshake: {error}"),
            None => return tracing::debug!("TLS handshake: took too long"),
        };
        let peer = stream.get_ref().0.peer_addr().ok();
        let certificates = stream.get_ref().1.peer_certificates();
        let user = certificates.and_then(|it| it.first()).and_then(authn::user_of).map(Arc::new);
        let signal = shutdown.clone();
        let service = service_fn(move |request| {
            let (server, user, shutdown) = (self.clone(), user.clone(), signal.clone());
            let call = Call { user, peer, shutdown };
            async move {
                Ok::<_, Infallible>(match crowded {
                    false => server.answer(call, request).await,
                    true => server.answer_in_a_crowd(&request),
                })
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        let mut http1 = builder.http1();
        http1.timer(TokioTimer::new()).header_read_timeout(patience.headers).keep_alive(!crowded);
        let mut http2 = builder.http2();
        http2.timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
        http2.max_header_list_size(HEADERS_BYTES_MAX);
        // Who is gone without a word gives its place back.
        http2.keep_alive_interval(patience.silence).keep_alive_timeout(patience.silence);
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

    /// Whether the server lives can be asked however many others are here.
    fn answer_in_a_crowd(&self, request: &Request<Incoming>) -> Answer {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let health = is_read.then(|| self.health(request.uri().path(), &query)).flatten();
        health.unwrap_or_else(|| {
            let many = self.config.patience.connections;
            let why = format!("the server has {many} connections and takes no more for now");
            let mut failure = Failure::unavailable(why);
            failure.details.get_or_insert_default().retry_after_seconds = 1;
            answer::failure(&failure)
        })
    }

    /// Whatever happens inside, there is an answer.
    async fn answer(self: Arc<Self>, call: Call, request: Request<Incoming>) -> Answer {
        let metrics = &self.clone().metrics;
        let _under_way = metrics.begin();
        let method = request.method().clone();
        let headers = request.headers().clone();
        let (parts, body) = request.into_parts();
        // A client may name its request, so that it finds it again in the log.
        let named = parts.headers.get("audit-id").and_then(|it| it.to_str().ok());
        let named = named.filter(|it| !it.is_empty() && it.len() <= AUDIT_ID_MAX);
        let id = named.map_or_else(|| self.config.entropy.uuid(), str::to_owned);
        let to = self.config.access.audit.as_ref();
        let mut trail = Trail::new(to, &self.config.clock, &id, call.peer, &parts);
        let request = Request::from_parts(parts, body);
        let route = self.clone().route(call, request, &mut trail);
        let (resource, result) = match AssertUnwindSafe(route).catch_unwind().await {
            Ok(routed) => routed,
            Err(_panic) => {
                trail.panicked();
                let why = Failure::internal("the request could not be handled");
                (String::new(), Err(why))
            }
        };
        // Told in JSON, whatever the client gets it in.
        let answer = result.unwrap_or_else(|failure| answer::failure(&failure));
        let mut answer = trail.end(answer);
        if let Ok(form) = accept::form(&headers) {
            answer = wire::packed(answer, form, !resource.is_empty());
        }
        answer = wire::smaller(answer, &headers);
        metrics.count(method.as_str(), &resource, answer.status().as_u16());
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.headers_mut().insert("audit-id", id);
        }
        answer
    }

    /// The resource that was asked for (for counting) and the answer.
    async fn route(
        self: Arc<Self>,
        call: Call,
        request: Request<Incoming>,
        trail: &mut Trail,
    ) -> (String, Result<Answer, Failure>) {
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let method = request.method().clone();
        let view = self.ledger.view();
        let caller = self.caller(&view, call.user, request.headers());
        let is_read = method == Method::GET || method == Method::HEAD;
        // Whether the server lives is everybody's business, unless they pretend to be somebody.
        if !matches!(caller, Caller::Wrong)
            && is_read
            && let Some(answer) = self.health(&path, &query)
        {
            return (String::new(), Ok(answer));
        }
        let target = Target::parse(&self.kinds, &path);
        let asked = Asked::of(&method, &path, target.as_ref(), &query);
        let (wish, version) = (asked.wish(), asked.version());
        let user = match caller {
            Caller::Known(user) => user,
            Caller::Nobody | Caller::Wrong => {
                trail.begin(None, None, &wish, version);
                return (asked.resource().to_owned(), Err(Failure::unauthorized()));
            }
        };
        let acting = match self.impersonated(&view, &user, request.headers()) {
            Ok(acting) => acting,
            Err(failure) => {
                trail.begin(Some(&user), None, &wish, version);
                return (asked.resource().to_owned(), Err(failure));
            }
        };
        trail.begin(Some(&user), acting.as_ref(), &wish, version);
        let user = acting.map_or(user, Arc::new);
        let verdict = self.may(&view, &user, &wish);
        trail.decided(&verdict);
        let resource = asked.resource().to_owned();
        if !verdict.allowed {
            let failure = authz::forbidden(&user, &wish, &verdict.reason);
            tracing::debug!("{}", failure.message);
            return (resource, Err(failure));
        }
        if let Some((review, namespace)) = Review::parse(&path) {
            return (resource, self.review(&user, review, &namespace, request, trail).await);
        }
        if let Some(asked) = usage::Asked::parse(&path) {
            if !is_read {
                let why = "the server does not allow this method on the requested resource";
                return (String::new(), Err(Failure::new(405, "MethodNotAllowed", why)));
            }
            // Counted and packed as what is no object: these kinds have no messages of ours.
            return (String::new(), self.usage(&asked, &query).await);
        }
        let Some(target) = &target else {
            return (resource, self.other(&path, &query, request.headers(), is_read).await);
        };
        let verb = verb(&method, target, &query);
        (
            resource,
            self.act(&user, target.clone(), query.clone(), verb, request, call.shutdown, trail)
                .await,
        )
    }

    /// What roles allow, and what opening a stream takes besides: a socket is opened with GET, which
    /// must not make `get` enough to run commands.
    fn may(&self, view: &View, user: &User, wish: &Wish<'_>) -> Verdict {
        let verdict = self.authorize(view, user, wish);
        let About::Objects(it) = wish.about else { return verdict };
        let is_stream = matches!(it.subresource, "exec" | "attach" | "portforward");
        if !verdict.allowed || it.resource != "pods" || !is_stream || wish.verb != "get" {
            return verdict;
        }
        self.authorize(view, user, &Wish { verb: "create", ..*wish })
    }

    async fn review(
        self: Arc<Self>,
        user: &User,
        review: &Review,
        namespace: &str,
        request: Request<Incoming>,
        trail: &mut Trail,
    ) -> Result<Answer, Failure> {
        if request.method() != Method::POST {
            let why = "the server does not allow this method on the requested resource";
            return Err(Failure::new(405, "MethodNotAllowed", why));
        }
        let (parts, body) = request.into_parts();
        let body = body::read(body, self.config.patience.body).await?;
        trail.body(&parts.headers, &body);
        let view = self.fresh(None).await?;
        reviews::answer(&self, &view, user, review, namespace, &parts.headers, body)
    }

    /// Paths that are about no objects.
    async fn other(
        &self,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
        is_read: bool,
    ) -> Result<Answer, Failure> {
        if !is_read {
            return Err(not_built::refusal(path).unwrap_or_else(no_such_path));
        }
        if path.starts_with("/openapi/v") {
            return self.openapi(path, query.one("hash"), headers).await;
        }
        match path {
            "/metrics" => {
                Ok(answer::text(StatusCode::OK, self.metrics.text(&self.store.figures())))
            }
            // kubectl asks whether a kind without patches is a custom one, and takes only a list for an answer.
            not_built::CUSTOM_KINDS => Ok(answer::json(
                StatusCode::OK,
                &not_built::no_custom_kinds(self.ledger.view().revision),
            )),
            "/version" | "/version/" => Ok(answer::json(StatusCode::OK, &self.version())),
            "/openid/v1/jwks" => {
                let keys = self.tokens.jwks().to_string();
                Ok(answer::whole(StatusCode::OK, "application/jwk-set+json", keys))
            }
            "/.well-known/openid-configuration" => {
                Ok(answer::json(StatusCode::OK, &self.tokens.discovery()))
            }
            _ => self.discovery(path, headers).ok_or_else(no_such_path),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "each is another thing, and there is one caller")]
    async fn act(
        self: Arc<Self>,
        user: &User,
        target: Target,
        query: Query,
        verb: &'static str,
        request: Request<Incoming>,
        shutdown: ShutdownSignal,
        trail: &mut Trail,
    ) -> Result<Answer, Failure> {
        if subresource::is_stream(&target) {
            if !subresource::takes(&target, verb) {
                return Err(not_allowed(&target));
            }
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
            true => body::read(request.into_body(), ask.server.config.patience.body).await?,
            false => Bytes::new(),
        };
        trail.body(&ask.headers, &body);
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

/// Places for connections.
struct Room {
    places: Arc<Semaphore>,
    spare: Arc<Semaphore>,
}

struct Place {
    crowded: bool,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    fn new(patience: &Patience) -> Room {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Room { places: semaphore(patience.connections), spare: semaphore(patience.spare) }
    }

    /// A place, a spare one if there is no other; waits while there is neither.
    async fn place(&self) -> Option<Place> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Some(Place { crowded: false, _permit: permit });
        }
        let permit = self.spare.clone().acquire_owned().await.ok()?;
        Some(Place { crowded: true, _permit: permit })
    }

    /// The same place, or another one if that has become free meanwhile.
    fn better(&self, place: Place) -> Place {
        match self.places.clone().try_acquire_owned() {
            Ok(permit) if place.crowded => Place { crowded: false, _permit: permit },
            _ => place,
        }
    }
}

/// One request on a connection.
struct Call {
    /// Whom the connection's certificate names.
    user: Option<Arc<User>>,
    peer: Option<SocketAddr>,
    shutdown: ShutdownSignal,
}

/// What a request wants, with the texts that a wish borrows.
struct Asked<'a> {
    verb: String,
    path: &'a str,
    target: Option<&'a Target>,
    review: Option<(&'static Review, String)>,
    usage: Option<usage::Asked>,
    /// Of one object that a list or a watch is held to.
    name: String,
    fields: &'a str,
}

impl<'a> Asked<'a> {
    fn of(
        method: &Method,
        path: &'a str,
        target: Option<&'a Target>,
        query: &'a Query,
    ) -> Asked<'a> {
        let review = Review::parse(path);
        let fields = query.one("fieldSelector");
        let usage = usage::Asked::parse(path);
        let verb = match (target, &review) {
            (Some(target), _) => verb(method, target, query).to_owned(),
            (None, _) if usage.is_some() && matches!(*method, Method::GET | Method::HEAD) => {
                let named = usage.as_ref().is_some_and(|it| !it.names().2.is_empty());
                if named { "get" } else { "list" }.to_owned()
            }
            (None, Some(_)) if method == Method::POST => "create".to_owned(),
            (None, _) => method.as_str().to_lowercase(),
        };
        let is_many = matches!(verb.as_str(), "list" | "watch" | "deletecollection");
        let named = fields.strip_prefix("metadata.name=").filter(|it| !it.contains(','));
        let name = match target {
            Some(target) if target.name.is_empty() && is_many => named.unwrap_or_default(),
            Some(target) => &target.name,
            None => "",
        };
        Asked { verb, path, target, review, usage, name: name.to_owned(), fields }
    }

    fn wish(&self) -> Wish<'_> {
        if let Some((review, namespace)) = &self.review {
            let (group, resource) = (review.group, review.plural);
            let about = Objects { group, resource, namespace, ..Objects::default() };
            return Wish { verb: &self.verb, about: About::Objects(about) };
        }
        if let Some(usage) = &self.usage {
            let (resource, namespace, name) = usage.names();
            let group = usage::GROUP;
            let about = Objects { group, resource, namespace, name, ..Objects::default() };
            return Wish { verb: &self.verb, about: About::Objects(about) };
        }
        let Some(target) = self.target else { return Wish::path(&self.verb, self.path) };
        let mut wish = Wish::of(&self.verb, target);
        if let About::Objects(it) = &mut wish.about {
            it.name = &self.name;
            it.fields = self.fields;
        }
        wish
    }

    fn version(&self) -> &str {
        match (self.target, &self.usage) {
            (Some(target), _) => &target.version,
            (None, Some(_)) => usage::VERSION,
            (None, None) => reviews::VERSION,
        }
    }

    fn resource(&self) -> &str {
        match (self.target, &self.review) {
            (Some(target), _) => &target.kind.plural,
            (None, Some((review, _))) => review.plural,
            (None, None) => "",
        }
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
