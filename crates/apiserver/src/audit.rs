//! Who did what, line by line: each request as events of `audit.k8s.io/v1`, as detailed as the policy
//! says. Bodies are written from level Request on, so Metadata never shows what a Secret holds.
//!
//! Upstream: `apiserver/pkg/endpoints/filters/audit.go`, `apiserver/pkg/audit`. Deviation: the log is
//! rotated at 100 MB, and ten older files are kept.

mod log;
mod policy;

pub(crate) use log::Log;
pub use policy::Policy;

use crate::{
    answer::{Answer, Body},
    authz::{About, Verdict, Wish},
    body,
    user::User,
    yaml,
};
use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use policy::{Detail, Level, Stage};
use serde_json::{Value, json};
use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use stdx::Clock;

/// A policy and where its events go.
#[derive(Clone)]
pub struct AuditConfig {
    policy: Arc<Policy>,
    log: Arc<Log>,
}

impl AuditConfig {
    /// Appends to a file, which is made if it is not there, readable by its owner only.
    pub fn open(policy: Policy, path: &Path) -> io::Result<AuditConfig> {
        Ok(AuditConfig { policy: Arc::new(policy), log: Arc::new(Log::open(path)?) })
    }
}

/// What is told of one request.
pub(crate) struct Trail {
    to: Option<AuditConfig>,
    clock: Arc<dyn Clock>,
    event: Value,
    detail: Detail,
}

impl Trail {
    pub(crate) fn new(
        to: Option<&AuditConfig>,
        clock: &Arc<dyn Clock>,
        id: &str,
        peer: Option<SocketAddr>,
        request: &http::request::Parts,
    ) -> Trail {
        let mut event = Value::Null;
        if to.is_some() {
            let agent = request.headers.get(http::header::USER_AGENT);
            event = json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": id,
                "requestURI": request.uri.path_and_query().map_or("/", |it| it.as_str()),
                "sourceIPs": peer.map(|it| it.ip().to_string()).into_iter().collect::<Vec<_>>(),
                "userAgent": agent.and_then(|it| it.to_str().ok()).unwrap_or_default(),
                "requestReceivedTimestamp": clock.now().rfc3339_micros(),
                "annotations": {},
            });
        }
        let (to, clock) = (to.cloned(), clock.clone());
        let detail =
            Detail { level: Level::None, omitted: Vec::new(), omits_managed_fields: false };
        Trail { to, clock, event, detail }
    }

    /// The request is understood: how much is told of it is known from here on. `user`: who sent it;
    /// `acting`: whom they act as, if that is somebody else.
    pub(crate) fn begin(
        &mut self,
        user: Option<&User>,
        acting: Option<&User>,
        wish: &Wish<'_>,
        version: &str,
    ) {
        let Some(to) = &self.to else { return };
        self.detail = to.policy.judge(user, wish);
        if self.detail.level == Level::None {
            return;
        }
        let event = &mut self.event;
        event["level"] = self.detail.level.name().into();
        event["verb"] = wish.verb.into();
        event["user"] = user.map_or_else(|| json!({}), User::to_json);
        if let Some(acting) = acting {
            event["impersonatedUser"] = acting.to_json();
        }
        if let About::Objects(it) = &wish.about {
            let parts = [
                ("resource", it.resource),
                ("namespace", it.namespace),
                ("name", it.name),
                ("apiGroup", it.group),
                ("apiVersion", version),
                ("subresource", it.subresource),
            ];
            let parts = parts.into_iter().filter(|it| !it.1.is_empty());
            event["objectRef"] =
                Value::Object(parts.map(|(key, value)| (key.to_owned(), value.into())).collect());
        }
        self.tell(Stage::RequestReceived);
    }

    pub(crate) fn decided(&mut self, verdict: &Verdict) {
        if self.detail.level != Level::None {
            let decision = if verdict.allowed { "allow" } else { "forbid" };
            let notes = &mut self.event["annotations"];
            notes["authorization.k8s.io/decision"] = decision.into();
            notes["authorization.k8s.io/reason"] = verdict.reason.as_str().into();
        }
    }

    /// What was sent, in whatever form: what cannot be read is refused later, and has nothing to tell.
    pub(crate) fn body(&mut self, headers: &HeaderMap, sent: &Bytes) {
        if self.detail.level < Level::Request || sent.is_empty() {
            return;
        }
        let json = body::to_json(headers, sent.clone()).unwrap_or_else(|_| sent.clone());
        let value = serde_json::from_slice::<Value>(&json).ok();
        // Patches have types of their own, and an apply is YAML.
        if let Some(value) = value.or_else(|| yaml::read(sent).ok().map(|it| it.value)) {
            self.event["requestObject"] = self.shown(value);
        }
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.detail.omits_managed_fields {
            let without = |it: &mut Value| {
                if let Some(meta) = it.get_mut("metadata").and_then(Value::as_object_mut) {
                    meta.remove("managedFields");
                }
            };
            without(&mut object);
            let items = object.get_mut("items").and_then(Value::as_array_mut);
            items.into_iter().flatten().for_each(without);
        }
        object
    }

    /// Tells how the request ended; an answer that goes on is told when it begins and when it ends.
    pub(crate) fn end(mut self, mut answer: Answer) -> Answer {
        if self.detail.level == Level::None {
            return answer;
        }
        self.event["responseStatus"] = json!({"metadata": {}, "code": answer.status().as_u16()});
        match answer.body_mut() {
            Body::Whole(bytes) => {
                let wanted = self.detail.level == Level::RequestResponse;
                if let Some(bytes) = bytes.as_ref().filter(|_| wanted)
                    && let Ok(value) = serde_json::from_slice::<Value>(bytes)
                {
                    self.event["responseObject"] = self.shown(value);
                }
                self.tell(Stage::ResponseComplete);
            }
            Body::Passed(_) => self.tell(Stage::ResponseComplete),
            Body::Pieces(pieces) => {
                self.tell(Stage::ResponseStarted);
                let inner = std::mem::replace(pieces, Box::pin(futures_util::stream::empty()));
                *pieces = Box::pin(Followed { inner, end: Ended(self) });
            }
        }
        answer
    }

    /// The request broke something.
    pub(crate) fn panicked(&mut self) {
        if self.detail.level != Level::None {
            self.event["responseStatus"] = json!({"metadata": {}, "code": 500});
            self.tell(Stage::Panic);
        }
    }

    fn tell(&mut self, stage: Stage) {
        let Some(to) = self.to.as_ref().filter(|_| !self.detail.omitted.contains(&stage)) else {
            return;
        };
        self.event["stage"] = stage.name().into();
        self.event["stageTimestamp"] = self.clock.now().rfc3339_micros().into();
        to.log.append(&self.event);
    }
}

/// Pieces that tell when there are no more, or when nobody wants them any more.
struct Followed {
    inner: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    #[allow(dead_code, reason = "dropped with the stream")]
    end: Ended,
}

struct Ended(Trail);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.tell(Stage::ResponseComplete);
    }
}

impl Stream for Followed {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.inner.as_mut().poll_next(context)
    }
}
