//! One watch, kept up for ever: everything that there is first, then every change, again from the last revision when
//! the connection breaks, and from the beginning when that revision is forgotten.

use super::{
    address,
    connection::{Connection, Stream},
    failure,
    named::Named,
    partial::Partial,
    write::row,
};
use api::{Failure, KindRef, core::v1::Pod};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{sync::Arc, time::Duration};
use stdx::Backoff;
use tokio::sync::watch;
use world::{ObjectKey, Row};

/// How long the server is asked to let a watch live; upstream draws between five and ten minutes.
const LENGTH_S: u64 = 8 * 60;
/// A watch of which nothing comes for so long, not even its end, is given up.
const SILENCE: Duration = Duration::from_secs(LENGTH_S + 60);

/// What one watch covers.
pub(super) struct Scope {
    pub(super) kind: KindRef,
    /// Of all namespaces where it is empty.
    namespace: String,
    name: Option<String>,
    field_selector: String,
}

impl Scope {
    pub(super) fn all(kind: &KindRef) -> Scope {
        Scope::selected(kind, "")
    }

    pub(super) fn selected(kind: &KindRef, field_selector: &str) -> Scope {
        let field_selector = field_selector.to_owned();
        Scope { kind: kind.clone(), namespace: String::new(), name: None, field_selector }
    }

    /// One object.
    pub(super) fn named(kind: &KindRef, key: &ObjectKey) -> Scope {
        Scope {
            kind: kind.clone(),
            namespace: key.namespace.to_string(),
            name: Some(key.name.to_string()),
            field_selector: format!("metadata.name={}", key.name),
        }
    }

    fn covers(&self, key: &ObjectKey) -> bool {
        (self.namespace.is_empty() || *key.namespace == *self.namespace)
            && self.name.as_deref().is_none_or(|it| *key.name == *it)
    }

    fn path(&self, after: Option<u64>) -> String {
        let mut path = address::collection(&self.kind, &self.namespace);
        path.push_str(&format!("?watch=true&allowWatchBookmarks=true&timeoutSeconds={LENGTH_S}"));
        if !self.field_selector.is_empty() {
            path.push_str("&fieldSelector=");
            path.push_str(&address::encoded(&self.field_selector));
        }
        path.push_str(&match after {
            Some(revision) => format!("&resourceVersion={revision}"),
            None => "&resourceVersion=&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
                .to_owned(),
        });
        path
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Follows for ever; `told` becomes true once everything was read for the first time. Pods come with all that they
/// name.
pub(super) async fn follow(
    connection: &Arc<Connection>,
    partial: &Arc<Partial>,
    scope: &Scope,
    told: &watch::Sender<bool>,
    named: Option<&Named>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut after = None;
    let mut silent = false;
    loop {
        let mut turn =
            Turn { partial, scope, told, named, after, gathered: after.is_none().then(Vec::new) };
        let ended = match connection.stream(&scope.path(after)).await {
            Ok(stream) => turn.read(stream, &mut backoff).await,
            Err(failure) => Err(failure),
        };
        after = turn.after;
        match ended {
            // Its time was over.
            Ok(()) => silent = false,
            Err(failure) => {
                if failure.code == 410 {
                    after = None;
                }
                let kind = &scope.kind.plural;
                // Each time once: a server that is away for an hour is no news every ten seconds.
                match std::mem::replace(&mut silent, true) {
                    true => tracing::debug!("follow {kind}: {failure}"),
                    false => tracing::info!("follow {kind}: {failure}"),
                }
                stdx::sleep(backoff.failed()).await;
            }
        }
    }
}

struct Turn<'a> {
    partial: &'a Partial,
    scope: &'a Scope,
    told: &'a watch::Sender<bool>,
    named: Option<&'a Named>,
    after: Option<u64>,
    /// What came before the mark that it is everything; none after it.
    gathered: Option<Vec<Arc<Row>>>,
}

impl Turn<'_> {
    async fn read(&mut self, mut stream: Stream, backoff: &mut Backoff) -> Result<(), Failure> {
        let mut lines = 0_u64;
        loop {
            let line = stdx::timeout(SILENCE, stream.line()).await;
            let line = line.unwrap_or_else(|| Err(Failure::unavailable("a watch fell silent")))?;
            let Some(line) = line else { return ended(lines) };
            self.take(&line).await?;
            lines += 1;
            backoff.succeeded();
        }
    }

    async fn take(&mut self, line: &[u8]) -> Result<(), Failure> {
        let frame: Frame<'_> = serde_json::from_slice(line).map_err(Failure::internal)?;
        let object = frame.object.get().as_bytes();
        match frame.kind {
            "ADDED" | "MODIFIED" => {
                let row = row(&self.scope.kind, object)?;
                let revision = row.revision;
                match &mut self.gathered {
                    Some(gathered) => gathered.push(row),
                    None => {
                        self.prepare(&row).await;
                        self.partial.put(row);
                        self.after = Some(revision);
                        self.prune();
                    }
                }
            }
            "DELETED" => {
                let row = row(&self.scope.kind, object)?;
                self.partial.removed(&row.kind, &row.key(), row.revision);
                self.after = Some(row.revision);
                self.prune();
            }
            "BOOKMARK" => {
                let mark: Value = serde_json::from_slice(object).map_err(Failure::internal)?;
                let meta = &mark["metadata"];
                let revision = meta["resourceVersion"].as_str().and_then(|it| it.parse().ok());
                let is_all = meta["annotations"]["k8s.io/initial-events-end"] == "true";
                if is_all && let Some(rows) = self.gathered.take() {
                    for row in &rows {
                        self.prepare(row).await;
                    }
                    let covers = |key: &ObjectKey| self.scope.covers(key);
                    self.partial.replace(&self.scope.kind, covers, rows, revision.unwrap_or(0));
                    self.told.send_replace(true);
                    self.prune();
                }
                if self.gathered.is_none() {
                    self.after = revision.or(self.after);
                }
            }
            "ERROR" => {
                let status: Value = serde_json::from_slice(object).unwrap_or_default();
                return Err(failure::of(500, &status, String::new));
            }
            other => tracing::debug!("a watch tells of {other:?}"),
        }
        Ok(())
    }

    /// A pod comes into the world together with what it names.
    async fn prepare(&self, row: &Arc<Row>) {
        if let (Some(named), Some(pod)) = (self.named, row.typed::<Pod>()) {
            named.bring(&pod).await;
        }
    }

    fn prune(&self) {
        if let Some(named) = self.named {
            named.prune();
        }
    }
}

/// A watch that tells of nothing, not even of a revision, is not begun again at once: a server that ends each of them so
/// would be asked without a pause.
fn ended(lines: u64) -> Result<(), Failure> {
    match lines {
        0 => Err(Failure::unavailable("a watch ended before it said anything")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_says_nothing_is_a_failed_one() {
        assert!(ended(0).is_err() && ended(1).is_ok());
    }

    #[test]
    fn a_watch_begins_with_everything_and_goes_on_from_where_it_was() {
        let pods = Scope::selected(api::kind_of::<Pod>(), "spec.nodeName=n1");
        assert_eq!(
            pods.path(Some(7)),
            "/api/v1/pods?watch=true&allowWatchBookmarks=true&timeoutSeconds=480\
             &fieldSelector=spec.nodeName%3Dn1&resourceVersion=7"
        );
        assert!(pods.path(None).contains("sendInitialEvents=true"));
        let key = ObjectKey::new("a", "p");
        let one = Scope::named(api::kind_of::<Pod>(), &key);
        assert!(one.covers(&key) && !one.covers(&ObjectKey::new("b", "p")));
        assert!(one.path(None).starts_with("/api/v1/namespaces/a/pods?"));
    }
}
