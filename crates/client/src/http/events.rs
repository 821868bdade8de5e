//! What a node tells users, written as Events and counted up when they repeat.
//!
//! Upstream: `client-go/tools/record/event.go`, `events_cache.go`.

use super::{address, connection::Connection};
use api::Failure;
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};
use stdx::Timestamp;
use tokio::sync::mpsc;
use world::{Event, Note, ObjectKey};

/// Events that wait to be written; more than that are dropped.
const QUEUE: usize = 1024;
/// Series that are remembered to be counted up; upstream remembers as many.
const SERIES_MAX: usize = 4096;
/// How often one thing may be told of one object without a pause; afterwards every tenth time is written.
const BURST: u64 = 25;

pub(super) struct Queue(mpsc::Sender<(Event, Timestamp)>);

pub(super) struct Backlog {
    waiting: mpsc::Receiver<(Event, Timestamp)>,
    node: String,
    series: HashMap<String, Series>,
}

/// One event that was told before.
struct Series {
    key: ObjectKey,
    count: u64,
}

impl Queue {
    pub(super) fn new(node: &str) -> (Queue, Backlog) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Queue(queue), Backlog { waiting, node: node.to_owned(), series: HashMap::new() })
    }

    pub(super) fn record(&self, event: Event, at: Timestamp) {
        if self.0.try_send((event, at)).is_err() {
            tracing::debug!("an event was dropped");
        }
    }
}

impl Backlog {
    pub(super) async fn write(mut self, connection: Arc<Connection>) {
        while let Some((event, at)) = self.waiting.recv().await {
            if let Err(failure) = self.tell(&connection, &event, at).await {
                tracing::debug!("writing an event: {failure}");
            }
        }
    }

    async fn tell(
        &mut self,
        connection: &Connection,
        event: &Event,
        at: Timestamp,
    ) -> Result<(), Failure> {
        let kind = api::kind_of::<api::core::v1::Event>();
        let Event { about, note, reason, message, .. } = event;
        let (uid, path) = (&about.uid, &about.field_path);
        let same = format!(
            "{:?}\0{}\0{uid}\0{path}\0{note:?}\0{reason}\0{message}",
            about.kind, about.key
        );
        if let Some(series) = self.series.get_mut(&same) {
            series.count += 1;
            if series.count > BURST && !series.count.is_multiple_of(10) {
                return Ok(());
            }
            let patch = json!({"count": series.count, "lastTimestamp": at.rfc3339()});
            let path = address::of(kind, &series.key);
            let merge = "application/merge-patch+json";
            let written =
                connection.call_as("PATCH", &path, merge, Some(patch.to_string().into())).await;
            match written {
                // It is forgotten after an hour: told anew.
                Err(failure) if failure.is_not_found() => drop(self.series.remove(&same)),
                written => return written.map(drop),
            }
        }
        if self.series.len() >= SERIES_MAX {
            self.series.clear();
        }
        let object = first(&self.node, event, at, self.series.len());
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let key =
            ObjectKey::new(object["metadata"]["namespace"].as_str().unwrap_or_default(), name);
        let path = address::collection(kind, &key.namespace);
        connection.call("POST", &path, Some(object.to_string().into())).await?;
        self.series.insert(same, Series { key, count: 1 });
        Ok(())
    }
}

fn first(node: &str, event: &Event, at: Timestamp, nth: usize) -> Value {
    let Event { about, note, reason, message, .. } = event;
    let namespace = match &*about.key.namespace {
        "" => "default",
        namespace => namespace,
    };
    // Two of the same moment differ in the nanoseconds that the clock does not have.
    let n = i64::try_from(nth % 1000).unwrap_or(0);
    let mut object = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {
            "name": format!("{}.{:x}", about.key.name, at.0.saturating_mul(1000) + n),
            "namespace": namespace,
        },
        "involvedObject": {
            "apiVersion": about.kind.api_version(), "kind": about.kind.kind,
            "name": &*about.key.name, "uid": about.uid,
        },
        "reason": reason, "message": message,
        "source": {"component": "kubelet", "host": node},
        "firstTimestamp": at.rfc3339(), "lastTimestamp": at.rfc3339(), "count": 1,
        "type": match note { Note::Normal => "Normal", Note::Warning => "Warning" },
        "reportingComponent": "kubelet", "reportingInstance": node,
    });
    let involved = &mut object["involvedObject"];
    if !about.key.namespace.is_empty() {
        involved["namespace"] = (*about.key.namespace).into();
    }
    if about.revision > 0 {
        involved["resourceVersion"] = about.revision.to_string().into();
    }
    if !about.field_path.is_empty() {
        involved["fieldPath"] = about.field_path.as_str().into();
    }
    object
}
