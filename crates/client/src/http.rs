//! The world of one node, over HTTPS: its pods and what they name, and what every node follows.
//!
//! A watch for each kind, and one for each Secret and ConfigMap that a pod names, because that is all that a node
//! may read. Writes go one object at a time. Upstream: `client-go/tools/cache/reflector.go`,
//! `pkg/kubelet/util/manager/watch_based_manager.go` (1.36).

mod address;
mod connection;
mod events;
mod failure;
mod named;
mod partial;
mod reflector;
mod write;

pub use connection::{Connection, Way};

use crate::{Client, Follower, Token, TokenWish, Written};
use api::{
    Failure, KindRef,
    coordination::v1::Lease,
    core::v1::{Endpoints, Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
    node::v1::RuntimeClass,
    storage::v1::{CSIDriver, CSINode},
};
use named::Named;
use partial::Partial;
use reflector::Scope;
use std::sync::Arc;
use stdx::{BoxFuture, Clock, Timestamp};
use tokio::{sync::watch, task::JoinSet};
use world::{Change, Event, ObjectKey, World};

const LEASES: &str = "kube-node-lease";

/// A node's way to a server elsewhere. Dropped, it follows nothing any more.
pub struct Remote {
    connection: Arc<Connection>,
    partial: Arc<Partial>,
    events: events::Queue,
    clock: Arc<dyn Clock>,
    _tasks: JoinSet<()>,
}

impl Remote {
    /// Follows the world of `node`; returns once everything was read for the first time.
    ///
    /// # Errors
    /// What the server said when it refused to say anything.
    pub async fn open(
        connection: Arc<Connection>,
        node: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Remote, Failure> {
        let partial = Arc::new(Partial::new());
        // The two objects of its own that a node may read but not watch.
        let own = [
            (api::kind_of::<Lease>(), ObjectKey::new(LEASES, node)),
            (api::kind_of::<CSINode>(), ObjectKey::cluster(node)),
        ];
        for (kind, key) in own {
            read(&connection, &partial, kind, &key).await?;
        }
        let mut tasks = JoinSet::new();
        let mut followed = Vec::new();
        for scope in scopes() {
            let (told, known) = watch::channel(false);
            followed.push(known);
            let (connection, partial) = (connection.clone(), partial.clone());
            tasks.spawn(async move {
                reflector::follow(&connection, &partial, &scope, &told, None).await;
            });
        }
        let (told, known) = watch::channel(false);
        followed.push(known);
        let named = Named::new(connection.clone(), partial.clone());
        let pods = Scope::selected(api::kind_of::<Pod>(), &format!("spec.nodeName={node}"));
        let (of_pods, into) = (connection.clone(), partial.clone());
        tasks.spawn(async move {
            reflector::follow(&of_pods, &into, &pods, &told, Some(&named)).await;
        });
        let (events, backlog) = events::Queue::new(node);
        tasks.spawn(backlog.write(connection.clone()));
        for mut known in followed {
            // An end means a panic, which is told elsewhere.
            let _known = known.wait_for(|it| *it).await;
        }
        Ok(Remote { connection, partial, events, clock, _tasks: tasks })
    }

    /// Waits for a world in which `found` finds something.
    pub async fn until<T>(&self, found: impl FnMut(&World) -> Option<T>) -> Option<T> {
        self.partial.feed().follow().until(found).await
    }

    /// Everything that is open is opened again: another certificate is there.
    pub fn reconnect(&self) {
        self.connection.renew();
    }
}

/// What every node follows besides its pods.
fn scopes() -> Vec<Scope> {
    let kinds: [&KindRef; 7] = [
        api::kind_of::<Node>(),
        api::kind_of::<Service>(),
        api::kind_of::<Endpoints>(),
        api::kind_of::<EndpointSlice>(),
        api::kind_of::<Namespace>(),
        api::kind_of::<RuntimeClass>(),
        api::kind_of::<CSIDriver>(),
    ];
    kinds.into_iter().map(Scope::all).collect()
}

/// Reads one object; what is not there is taken out.
async fn read(
    connection: &Connection,
    partial: &Partial,
    kind: &KindRef,
    key: &ObjectKey,
) -> Result<(), Failure> {
    let before = partial.known(kind, key);
    match connection.call("GET", &address::of(kind, key), None).await {
        Ok(bytes) => partial.put(write::row(kind, &bytes)?),
        Err(failure) if failure.is_not_found() => {
            if let Some(before) = before {
                partial.ended(&before);
            }
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

impl Client for Remote {
    fn world(&self) -> World {
        self.partial.feed().latest()
    }

    fn follow(&self) -> Follower {
        self.partial.feed().follow()
    }

    /// One request for each object: a node's loops write one at a time.
    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Written, Failure>> {
        Box::pin(async move {
            let [change] = changes.as_slice() else {
                let count = changes.len();
                return Err(Failure::internal(format!(
                    "write {count} objects at once: only one can be written over HTTP"
                )));
            };
            let before = self.partial.known(&change.kind, &change.key);
            match write::send(&self.connection, change).await {
                Ok(write::Sent::Now(row)) => {
                    self.partial.put(row.clone());
                    Ok(Written { revision: row.revision, rows: vec![Some(row)] })
                }
                Ok(write::Sent::Gone) => {
                    if let Some(before) = before {
                        self.partial.gone(&before);
                    }
                    Ok(Written { revision: self.world().revision, rows: vec![None] })
                }
                Err(failure) => {
                    // What was decided on was not the latest: the next look is to see that.
                    let stale = matches!(failure.code, 404 | 409);
                    if stale {
                        let _still_unknown =
                            read(&self.connection, &self.partial, &change.kind, &change.key).await;
                    }
                    Err(failure)
                }
            }
        })
    }

    fn record(&self, event: Event) {
        self.events.record(event, self.clock.now());
    }

    fn token(&self, wish: TokenWish) -> BoxFuture<'_, Result<Token, Failure>> {
        Box::pin(async move {
            let path = format!(
                "{}/token",
                address::of(
                    api::kind_of::<api::core::v1::ServiceAccount>(),
                    &ObjectKey::new(&wish.namespace, &wish.account)
                )
            );
            let mut spec = serde_json::json!({
                "audiences": wish.audiences, "expirationSeconds": wish.expiration_s,
            });
            if let Some(it) = &wish.bound {
                spec["boundObjectRef"] = serde_json::json!({
                    "apiVersion": it.api_version, "kind": it.kind, "name": it.name, "uid": it.uid,
                });
            }
            let body = serde_json::json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
            });
            let issued = self.clock.now();
            let answer = self.connection.call("POST", &path, Some(body.to_string().into())).await?;
            let answer: serde_json::Value =
                serde_json::from_slice(&answer).map_err(Failure::internal)?;
            let status = &answer["status"];
            let token = status["token"].as_str().unwrap_or_default().to_owned();
            let expires = status["expirationTimestamp"].as_str().and_then(Timestamp::parse);
            match expires.filter(|_| !token.is_empty()) {
                Some(expires) => Ok(Token { token, issued, expires }),
                None => Err(Failure::internal("the server's answer holds no token")),
            }
        })
    }
}
