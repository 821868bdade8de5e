//! Changes of a kind as they happen, one JSON line each, from any revision that is still known.
//!
//! A watcher is a position in the history. One that is slow only falls behind; when what it needs is
//! forgotten it hears 410 and lists again.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/watch.go`, `apiserver/pkg/storage/cacher`.

use super::version;
use crate::{
    accept::Shape,
    answer::{self, Answer, Body},
    ask::Ask,
    body::invalid_options,
    history::{Forgotten, Moment, Seen, frame},
    protobuf,
    selection::Selection,
    show, table,
    view::View,
};
use api::Failure;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use stdx::{ShutdownSignal, Timestamp};
use tokio::sync::watch as channel;
use world::Row;

/// How often a quiet watch says how far it is; upstream's cacher does it as often.
const BOOKMARK: Duration = Duration::from_secs(60);

/// Upstream's `--min-request-timeout`: a watch without a limit of its own ends after this, up to
/// twice that, so that not all come back at once.
const LENGTH_MIN: u64 = 1800;

/// Changes sent as one piece: bounds what a slow client keeps alive.
const PIECE: usize = 256;

/// What goes first for a client that asked for it.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(crate) async fn watch(ask: Arc<Ask>, shutdown: ShutdownSignal) -> Result<Answer, Failure> {
    let query = &ask.query;
    let kind = &ask.target.kind;
    let selection = Selection::of(&ask.target, query)?.named(&ask.target.name);
    let asked = version::parse(query.one("resourceVersion"))?;
    let initial = match (query.has("sendInitialEvents"), query.one("resourceVersionMatch")) {
        (true, "NotOlderThan") => query.is("sendInitialEvents"),
        (true, _) => {
            return Err(invalid_options(
                "ListOptions",
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        (false, "") => matches!(asked, None | Some(0)),
        (false, _) => {
            return Err(invalid_options(
                "ListOptions",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
    };
    let length = match query.one("timeoutSeconds") {
        "" | "0" => LENGTH_MIN + ask.server.config.entropy.below(LENGTH_MIN),
        text => text
            .parse()
            .map_err(|_| Failure::bad_request(format!("invalid timeoutSeconds {text:?}")))?,
    };
    // A watch from the future would tell nothing until then: its client knows another ledger.
    let view = match initial || asked.is_some() {
        true => ask.server.fresh(asked).await?,
        false => ask.server.ledger.view(),
    };
    // From now on nothing is missed: what comes after the view wakes this.
    let changed = ask.server.ledger.history.follow(kind);
    let now = ask.server.now();
    let mut watcher = Watcher {
        selection,
        include: table::Include::of(query)?,
        bookmarks: query.is("allowWatchBookmarks"),
        after: asked.unwrap_or(0),
        changed,
        waiting: VecDeque::new(),
        heads: true,
        over: false,
        ends: now.plus(Duration::from_secs(length)),
        bookmark_due: now.plus(BOOKMARK),
        shutdown,
        ask: ask.clone(),
    };
    if initial {
        watcher.begin(&view, query.is("sendInitialEvents"))?;
    } else if asked.is_none() {
        watcher.after = view.revision;
    }
    // A past that is forgotten is told as an event, as upstream does: the watch itself was in order.
    let pieces = stream::unfold(watcher, |mut watcher| async move {
        watcher.next().await.map(|piece| (piece, watcher))
    });
    let mut answer = Answer::new(Body::Pieces(Box::pin(pieces)));
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    let content_type = match ask.form.protobuf {
        true => "application/vnd.kubernetes.protobuf;stream=watch",
        false => answer::JSON,
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(answer)
}

struct Watcher {
    ask: Arc<Ask>,
    selection: Selection,
    include: table::Include,
    bookmarks: bool,
    /// Everything up to this revision was sent.
    after: u64,
    changed: channel::Receiver<u64>,
    waiting: VecDeque<Bytes>,
    /// Columns are named in the first table only.
    heads: bool,
    over: bool,
    ends: Timestamp,
    bookmark_due: Timestamp,
    shutdown: ShutdownSignal,
}

impl Watcher {
    /// What is there, as if it had just come.
    fn begin(&mut self, view: &View, and_say_so: bool) -> Result<(), Failure> {
        let kind = self.ask.target.kind.clone();
        let namespace = self.selection.namespace.clone();
        let rows = view.table(&kind).map(|it| it.rows(namespace.as_deref()));
        for row in rows.into_iter().flatten() {
            if self.selection.wants(row) {
                let line = self.line(Seen::Added, row, row.json())?;
                self.waiting.push_back(line);
            }
        }
        self.after = view.revision;
        if and_say_so && self.bookmarks {
            let line = self.bookmark(true)?;
            self.waiting.push_back(line);
        }
        Ok(())
    }

    /// The next piece; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.waiting.is_empty() {
                return Some(self.piece());
            }
            if self.over {
                return None;
            }
            if let Err(failure) = self.fetch() {
                return self.broken(&failure);
            }
            if !self.waiting.is_empty() {
                continue;
            }
            let now = self.ask.server.now();
            if self.shutdown.begun() || now >= self.ends {
                return None;
            }
            if self.bookmarks && now >= self.bookmark_due {
                self.bookmark_due = now.plus(BOOKMARK);
                return match self.bookmark(false) {
                    Ok(bookmark) => Some(bookmark),
                    Err(failure) => self.broken(&failure),
                };
            }
            let due = match self.bookmarks {
                true => self.ends.min(self.bookmark_due),
                false => self.ends,
            };
            let woken = async {
                tokio::select! {
                    changed = self.changed.changed() => changed.is_ok(),
                    () = self.shutdown.wait() => false,
                }
            };
            if stdx::timeout(due.since(now), woken).await == Some(false) {
                return None;
            }
        }
    }

    /// The last piece: why there are no more.
    fn broken(&mut self, failure: &Failure) -> Option<Bytes> {
        self.over = true;
        self.frame("ERROR", failure.to_json().to_string().as_bytes()).ok()
    }

    /// Takes what has happened since.
    fn fetch(&mut self) -> Result<(), Failure> {
        self.changed.mark_unchanged();
        let (ask, history) = (self.ask.clone(), &self.ask.server.ledger.history);
        // Read before the history: everything up to it is in there.
        let seen = ask.server.ledger.view().revision;
        let moments = history
            .after(&ask.target.kind, self.after, PIECE)
            .map_err(|Forgotten { oldest }| too_old(self.after, oldest))?;
        match moments.last() {
            Some(last) => self.after = last.revision,
            None => self.after = self.after.max(seen),
        }
        if moments.len() == PIECE {
            // There may be more: do not wait for the next change.
            self.changed.mark_changed();
        }
        for moment in &moments {
            if let Some(seen) = moment.seen(|row| self.selection.wants(row)) {
                let line = self.told(moment, seen)?;
                self.waiting.push_back(line);
            }
        }
        Ok(())
    }

    fn told(&mut self, moment: &Moment, seen: Seen) -> Result<Bytes, Failure> {
        let target = &self.ask.target;
        if self.ask.form.shape == Shape::Object && target.version == target.kind.version {
            return Ok(match self.ask.form.protobuf {
                true => match moment.packed(seen) {
                    // The watch ends, and the client lists again: nothing is passed over.
                    it if it.is_empty() => return Err(unpackable(&"it has no such form")),
                    it => it,
                },
                false => moment.line(seen),
            });
        }
        let Some(row) = moment.row(seen).cloned() else { return Ok(Bytes::new()) };
        self.line(seen, &row, moment.object(seen))
    }

    fn line(&mut self, seen: Seen, row: &Arc<Row>, json: Bytes) -> Result<Bytes, Failure> {
        let (kind, version) = (&self.ask.target.kind, &*self.ask.target.version);
        let object: Bytes = match self.ask.form.shape {
            Shape::Object => show::versioned(kind, version, json),
            Shape::Partial | Shape::PartialList => show::partial(&json)?.into(),
            Shape::Table => {
                let now = self.ask.server.now();
                let revision = json!({"resourceVersion": row.revision.to_string()});
                let rows = [table::Seen { row, json: show::versioned(kind, version, json) }];
                let heads = std::mem::take(&mut self.heads);
                table::table(kind, now, &rows, revision, self.include, heads)?.to_string().into()
            }
        };
        self.frame(seen.name(), &object)
    }

    /// One event in the form that was asked for.
    fn frame(&self, what: &str, object: &[u8]) -> Result<Bytes, Failure> {
        match self.ask.form.protobuf {
            true => protobuf::frame(what, object).map_err(|error| unpackable(&error)),
            false => Ok(frame(what, object)),
        }
    }

    fn bookmark(&self, initial_end: bool) -> Result<Bytes, Failure> {
        let target = &self.ask.target;
        let mut metadata =
            json!({"resourceVersion": self.after.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object: Value = match self.ask.form.shape {
            Shape::Object => json!({
                "kind": target.kind.kind, "apiVersion": target.kind.api_version_as(&target.version),
                "metadata": metadata,
            }),
            Shape::Partial | Shape::PartialList => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            }),
            Shape::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": self.after.to_string()},
                "columnDefinitions": [],
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                }}],
            }),
        };
        self.frame("BOOKMARK", object.to_string().as_bytes())
    }

    /// One line as it is, several as one piece.
    fn piece(&mut self) -> Bytes {
        if self.waiting.len() == 1 {
            return self.waiting.pop_front().unwrap_or_default();
        }
        let lines = self.waiting.drain(..self.waiting.len().min(PIECE));
        let mut piece = BytesMut::new();
        for line in lines {
            piece.put_slice(&line);
        }
        piece.freeze()
    }
}

fn unpackable(why: &dyn std::fmt::Display) -> Failure {
    Failure::internal(format!("say an event of a watch in protobuf: {why}"))
}

fn too_old(asked: u64, oldest: u64) -> Failure {
    Failure::expired(format!("too old resource version: {asked} ({oldest})"))
}
