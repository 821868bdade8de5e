//! What loops tell users: written as Events off the hot path, counted up when they repeat.
//!
//! Upstream: `client-go/tools/record/{event,events_cache}.go`; `apiserver/pkg/storage/etcd3/lease_manager.go`.

use crate::{
    admit::Part,
    commit::{Draft, store_failure},
    server::Server,
    user::User,
    view::View,
};
use api::{
    AnyObject, Failure, KindRef,
    core::v1::{Event as ApiEvent, EventSource, ObjectReference},
    meta::{self, ObjectMeta},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use stdx::Timestamp;
use store::LeaseId;
use tokio::sync::mpsc;
use world::{Event, Note, ObjectKey};

/// Events that wait to be written; more than that are dropped.
const QUEUE: usize = 1024;

/// Series that are remembered to be counted up; upstream remembers as many.
const SERIES_MAX: usize = 4096;

/// One source may tell this many things of one object at once, and one more every five minutes; what
/// is beyond that is dropped. Upstream: `client-go/tools/record/events_cache.go`.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);

/// Events that there are at most: whatever tells more is dropped until old ones end.
const EVENTS_MAX: usize = 10_000;

/// How long an event stays after it last happened: upstream's `--event-ttl`.
const STAYS: Duration = Duration::from_secs(3600);

/// A lease serves the events of a minute, and no more than this many, as upstream's.
const LEASE_REUSE: Duration = Duration::from_secs(60);
const LEASE_KEYS_MAX: u32 = 1000;

struct Waiting {
    user: String,
    event: Event,
    at: Timestamp,
}

pub(crate) struct Recorder {
    queue: mpsc::Sender<Waiting>,
    lease: Mutex<Option<Shared>>,
}

#[derive(Clone, Copy)]
struct Shared {
    id: LeaseId,
    granted: Timestamp,
    keys: u32,
}

/// The side that writes.
pub(crate) struct Backlog(mpsc::Receiver<Waiting>);

impl Recorder {
    pub(crate) fn new() -> (Recorder, Backlog) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Recorder { queue, lease: Mutex::default() }, Backlog(waiting))
    }

    pub(crate) fn record(&self, user: &str, event: Event, at: Timestamp) {
        let waiting = Waiting { user: user.to_owned(), event, at };
        if let Err(error) = self.queue.try_send(waiting) {
            tracing::debug!("an event was dropped: {error}");
        }
    }

    /// The lease that an event written now hangs on.
    pub(crate) async fn lease(&self, server: &Server) -> Result<LeaseId, Failure> {
        let now = server.now();
        {
            let mut lease = self.lease.lock().expect("no panic while held");
            if let Some(shared) = lease.as_mut()
                && now.since(shared.granted) < LEASE_REUSE
                && shared.keys < LEASE_KEYS_MAX
            {
                shared.keys += 1;
                return Ok(shared.id);
            }
        }
        let id = server.store.grant(STAYS + LEASE_REUSE).await.map_err(store_failure)?;
        *self.lease.lock().expect("no panic while held") =
            Some(Shared { id, granted: now, keys: 1 });
        Ok(id)
    }

    pub(crate) fn forget_lease(&self) {
        *self.lease.lock().expect("no panic while held") = None;
    }
}

impl Backlog {
    /// Writes until the server is gone.
    pub(crate) fn start(mut self, server: &Arc<Server>) {
        let server = Arc::downgrade(server);
        tokio::spawn(async move {
            let mut series: HashMap<String, ObjectKey> = HashMap::new();
            let mut budgets: HashMap<String, Budget> = HashMap::new();
            while let Some(waiting) = self.0.recv().await {
                let Some(server) = server.upgrade() else { return };
                if series.len() >= SERIES_MAX {
                    series.clear();
                }
                if budgets.len() >= SERIES_MAX {
                    budgets.clear();
                }
                let about = &waiting.event.about;
                // A probe that fails each second must not hide that its container is killed.
                let Event { reporter, reason, .. } = &waiting.event;
                let source = format!("{}\0{reporter}\0{}\0{reason}", waiting.user, about.uid);
                if !budgets.entry(source).or_default().take(waiting.at) {
                    tracing::debug!("too many events about {}: one was dropped", about.key);
                    continue;
                }
                let name = series_of(&waiting);
                match write(&server, &waiting, series.get(&name)).await {
                    Ok(key) => drop(series.insert(name, key)),
                    Err(failure) => tracing::debug!("writing an event: {failure}"),
                }
            }
        });
    }
}

/// How much a source may still tell of an object.
#[derive(Default)]
struct Budget {
    spent: u32,
    since: Timestamp,
}

impl Budget {
    fn take(&mut self, now: Timestamp) -> bool {
        let refills = now.since(self.since).as_secs() / REFILL.as_secs();
        if refills > 0 {
            self.spent = self.spent.saturating_sub(u32::try_from(refills).unwrap_or(u32::MAX));
            self.since = now;
        }
        let granted = self.spent < BURST;
        self.spent += u32::from(granted);
        granted
    }
}

/// Equal for events that are counted up rather than told again.
fn series_of(Waiting { user, event, .. }: &Waiting) -> String {
    let Event { about, note, reason, message, reporter } = event;
    let (uid, path) = (&about.uid, &about.field_path);
    let about = format!("{:?}\0{}\0{uid}\0{path}", about.kind, about.key);
    format!("{user}\0{reporter}\0{about}\0{note:?}\0{reason}\0{message}")
}

async fn write(
    server: &Server,
    waiting: &Waiting,
    before: Option<&ObjectKey>,
) -> Result<ObjectKey, Failure> {
    let kind: &KindRef = api::kind_of::<ApiEvent>();
    let user = User::inside(&waiting.user);
    let propose = |view: &View| -> Result<Vec<Draft>, Failure> {
        let again = before.and_then(|key| Some((key, view.row(kind, key)?.typed::<ApiEvent>()?)));
        let draft = match again {
            Some((key, event)) => {
                let mut event = event.to_owned();
                event.count = Some(event.count.unwrap_or(1) + 1);
                event.last_timestamp = Some(meta::time(waiting.at));
                let object: AnyObject = Box::new(event);
                server.draft_update(view, kind, &user, key, Part::Own, object)?
            }
            None if view.table(kind).is_some_and(|it| it.len() >= EVENTS_MAX) => {
                return Err(Failure::unavailable("there are too many events"));
            }
            None => server.draft_create(view, kind, &user, Part::Own, Box::new(first(waiting)))?,
        };
        Ok(vec![draft])
    };
    let settled = server.write(false, propose).await?;
    let row = settled.outcomes.into_iter().next().and_then(|it| it.row);
    row.map(|it| it.key()).ok_or_else(|| Failure::internal("the event was not written"))
}

fn first(Waiting { user, event, at }: &Waiting) -> ApiEvent {
    let Event { about, note, reason, message, reporter } = event;
    let namespace = match &*about.key.namespace {
        "" => "default",
        namespace => namespace,
    };
    // `system:serviceaccount:kube-system:node-controller`, or a node that speaks for its kubelet.
    let (component, host) = match user.strip_prefix("system:node:") {
        Some(node) => ("kubelet", Some(node.to_owned())),
        None if reporter.is_empty() => (user.rsplit(':').next().unwrap_or(user), None),
        None => (*reporter, None),
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ApiEvent {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", about.key.name, at.0.saturating_mul(1000))),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        },
        involved_object: ObjectReference {
            api_version: Some(about.kind.api_version()),
            kind: Some(about.kind.kind.clone()),
            name: some(&about.key.name),
            namespace: some(&about.key.namespace),
            uid: some(&about.uid),
            resource_version: (about.revision > 0).then(|| about.revision.to_string()),
            field_path: some(&about.field_path),
        },
        reason: Some((*reason).to_owned()),
        message: Some(message.clone()),
        source: Some(EventSource { component: Some(component.to_owned()), host: host.clone() }),
        first_timestamp: Some(meta::time(*at)),
        last_timestamp: Some(meta::time(*at)),
        count: Some(1),
        type_: Some(match note {
            Note::Normal => "Normal".to_owned(),
            Note::Warning => "Warning".to_owned(),
        }),
        reporting_component: Some(component.to_owned()),
        reporting_instance: host,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_repeats_itself_is_heard_now_and_then() {
        let mut budget = Budget::default();
        let begin = Timestamp::from_seconds(1_000_000);
        let heard = |budget: &mut Budget, at| (0..100).filter(|_| budget.take(at)).count();
        assert_eq!(heard(&mut budget, begin), 25);
        assert_eq!(heard(&mut budget, begin.plus(REFILL - Duration::from_secs(1))), 0);
        assert_eq!(heard(&mut budget, begin.plus(REFILL * 2)), 2);
    }
}
