//! What loops tell users: written as Events off the hot path, counted up when they repeat.
//!
//! Upstream: `client-go/tools/record/{event,events_cache}.go`; `apiserver/pkg/storage/etcd3/lease_manager.go`.

use crate::{
    admit::{Deleting, Part},
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
    collections::{HashMap, HashSet},
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

/// Things that differ in nothing but their message are told as one once there are this many of them
/// within so much time. Upstream: `events_cache.go`, EventAggregator.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
const COMBINED: &str = "(combined from similar events): ";

struct Waiting {
    user: String,
    event: Event,
    at: Timestamp,
}

enum Task {
    Tell(Waiting),
    /// The namespace goes: nobody can look at its events any more.
    Sweep(String),
}

pub(crate) struct Recorder {
    queue: mpsc::Sender<Task>,
    lease: Mutex<Option<Shared>>,
}

#[derive(Clone, Copy)]
struct Shared {
    id: LeaseId,
    granted: Timestamp,
    keys: u32,
}

/// The side that writes.
pub(crate) struct Backlog(mpsc::Receiver<Task>);

impl Recorder {
    pub(crate) fn new() -> (Recorder, Backlog) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Recorder { queue, lease: Mutex::default() }, Backlog(waiting))
    }

    pub(crate) fn record(&self, user: &str, event: Event, at: Timestamp) {
        let waiting = Waiting { user: user.to_owned(), event, at };
        if self.queue.try_send(Task::Tell(waiting)).is_err() {
            tracing::debug!("an event was dropped");
        }
    }

    /// Removes what was told of objects in a namespace. What is missed ends with its lease.
    pub(crate) fn sweep(&self, namespace: &str) {
        if self.queue.try_send(Task::Sweep(namespace.to_owned())).is_err() {
            tracing::debug!("events of {namespace} stay until their time is over");
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
            let mut told = Told::default();
            while let Some(task) = self.0.recv().await {
                let Some(server) = server.upgrade() else { return };
                match task {
                    Task::Tell(waiting) => told.tell(&server, waiting).await,
                    Task::Sweep(namespace) => sweep(&server, &namespace).await,
                }
            }
        });
    }
}

async fn sweep(server: &Server, namespace: &str) {
    let kind: &KindRef = api::kind_of::<ApiEvent>();
    let user = User::inside("system:apiserver");
    let view = server.ledger.view();
    let rows = view.table(kind).into_iter().flat_map(|it| it.rows(Some(namespace)));
    for key in rows.map(|it| it.key()).collect::<Vec<_>>() {
        let asked = Deleting::default();
        let propose = |view: &View| Ok(vec![server.draft_delete(view, kind, &user, &key, &asked)?]);
        if let Err(failure) = server.write(false, propose).await {
            tracing::debug!("removing the event {key}: {failure}");
        }
    }
}

/// What was told before, as far as it bears on what is told next.
#[derive(Default)]
struct Told {
    series: HashMap<String, ObjectKey>,
    budgets: HashMap<String, Budget>,
    similar: HashMap<String, Similar>,
}

impl Told {
    async fn tell(&mut self, server: &Server, mut waiting: Waiting) {
        if self.series.len() >= SERIES_MAX {
            self.series.clear();
        }
        if self.budgets.len() >= SERIES_MAX {
            self.budgets.clear();
        }
        if self.similar.len() >= SERIES_MAX {
            self.similar.clear();
        }
        let about = &waiting.event.about;
        // A probe that fails each second must not hide that its container is killed.
        let Event { reporter, reason, .. } = &waiting.event;
        let source = format!("{}\0{reporter}\0{}\0{reason}", waiting.user, about.uid);
        if !self.budgets.entry(source).or_default().take(waiting.at) {
            tracing::debug!("too many events about {}: one was dropped", about.key);
            return;
        }
        let name = self.series_of(&mut waiting);
        match write(server, &waiting, self.series.get(&name)).await {
            Ok(key) => drop(self.series.insert(name, key)),
            Err(failure) => tracing::debug!("writing an event: {failure}"),
        }
    }

    /// Equal for events that are counted up rather than told again. One of many that are similar
    /// becomes one of the series of them all.
    fn series_of(&mut self, waiting: &mut Waiting) -> String {
        let kin = kin_of(waiting);
        let similar = self.similar.entry(kin.clone()).or_default();
        let message = &mut waiting.event.message;
        if similar.is_one_too_many(message, waiting.at) {
            *message = format!("{COMBINED}{message}");
            return kin;
        }
        format!("{kin}\0{message}")
    }
}

/// Messages of events that differ in nothing else.
#[derive(Default)]
struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

impl Similar {
    fn is_one_too_many(&mut self, message: &str, now: Timestamp) -> bool {
        if now.since(self.last) > SIMILAR_WITHIN {
            self.messages.clear();
        }
        self.last = now;
        if self.messages.contains(message) {
            return false;
        }
        if self.messages.len() + 1 >= SIMILAR_MAX {
            return true;
        }
        self.messages.insert(message.to_owned());
        false
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

/// Equal for events that differ in their message at most.
fn kin_of(Waiting { user, event, .. }: &Waiting) -> String {
    let Event { about, note, reason, reporter, .. } = event;
    let (uid, path) = (&about.uid, &about.field_path);
    let about = format!("{:?}\0{}\0{uid}\0{path}", about.kind, about.key);
    format!("{user}\0{reporter}\0{about}\0{note:?}\0{reason}")
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
                // The latest of those that are told as one.
                event.message = Some(waiting.event.message.clone());
                let object: AnyObject = Box::new(event);
                server.draft_update(view, kind, &user, key, Part::Own, object)?
            }
            None if view.table(kind).is_some_and(|it| it.len() >= EVENTS_MAX) => {
                return Err(Failure::unavailable("there are too many events"));
            }
            None => {
                let event = Box::new(first(waiting, view, kind));
                server.draft_create(view, kind, &user, Part::Own, event)?
            }
        };
        Ok(vec![draft])
    };
    let settled = server.write(false, propose).await?;
    let row = settled.outcomes.into_iter().next().and_then(|it| it.row);
    row.map(|it| it.key()).ok_or_else(|| Failure::internal("the event was not written"))
}

fn first(Waiting { user, event, at }: &Waiting, view: &View, kind: &KindRef) -> ApiEvent {
    let Event { about, note, reason, message, reporter } = event;
    let namespace = match &*about.key.namespace {
        "" => "default",
        namespace => namespace,
    };
    // Two of the same moment differ in the nanoseconds that the clock does not have.
    let name = |n: i64| format!("{}.{:x}", about.key.name, at.0.saturating_mul(1000) + n);
    let taken = |it: &String| view.row(kind, &ObjectKey::new(namespace, it)).is_some();
    let name = (0..1000).map(name).find(|it| !taken(it)).unwrap_or_else(|| name(0));
    // `system:serviceaccount:kube-system:node-controller`, or a node that speaks for its kubelet.
    let (component, host) = match user.strip_prefix("system:node:") {
        Some(node) => ("kubelet", Some(node.to_owned())),
        None if reporter.is_empty() => (user.rsplit(':').next().unwrap_or(user), None),
        None => (*reporter, None),
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ApiEvent {
        metadata: ObjectMeta {
            name: Some(name),
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
    fn many_similar_things_are_told_as_one() {
        let mut similar = Similar::default();
        let at = Timestamp::from_seconds(1_000_000);
        let apart = (0..40).take_while(|n| !similar.is_one_too_many(&format!("m{n}"), at)).count();
        assert_eq!(apart, SIMILAR_MAX - 1);
        assert!(!similar.is_one_too_many("m1", at), "what was told apart stays so");
        let later = at.plus(SIMILAR_WITHIN + Duration::from_secs(1));
        assert!(!similar.is_one_too_many("m99", later));
    }

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
