//! What requests can say besides their body: the parameters of paths and queries, as data.
//!
//! Only what the door reads is here. kubectl looks for `fieldValidation` and `dryRun` before it relies
//! on them.

use serde_json::{Value, json};

/// One parameter: name, type, what it does.
type Parameter = (&'static str, &'static str, &'static str);

/// Of every path.
pub(crate) const PRETTY: &[Parameter] =
    &[("pretty", "string", "Whether the answer is indented: true or false.")];

const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "All: go all the way of the request, and keep nothing. No other value is known.",
);

/// Of writes that carry an object.
pub(crate) const WRITE: &[Parameter] = &[
    DRY_RUN,
    (
        "fieldValidation",
        "string",
        "What to do about fields that are unknown or given twice. Ignore: drop them. Warn (the \
         default): drop them and say so in the Warning header. Strict: refuse the request and name \
         them all.",
    ),
];

pub(crate) const DELETE: &[Parameter] = &[
    DRY_RUN,
    (
        "gracePeriodSeconds",
        "integer",
        "How many seconds the object has to end; 0 means at once. Left out: what the object says.",
    ),
    (
        "orphanDependents",
        "boolean",
        "Deprecated, use propagationPolicy: whether what the object owns stays.",
    ),
    (
        "propagationPolicy",
        "string",
        "What becomes of what the object owns. Orphan: it stays. Background: it goes after the object. \
         Foreground: it goes before the object. Left out: what the object's finalizers and kind say.",
    ),
];

/// Which objects of many.
pub(crate) const SELECT: &[Parameter] = &[
    (
        "continue",
        "string",
        "Where a list goes on: what the page before gave. It expires with the version that it belongs \
         to; then the answer is 410, and the list has to begin again.",
    ),
    (
        "fieldSelector",
        "string",
        "Takes only objects with these fields: metadata.name=web-0,status.phase!=Running.",
    ),
    ("labelSelector", "string", "Takes only objects with these labels: app=nginx,tier in (a,b)."),
    (
        "limit",
        "integer",
        "How many objects at most; when there are more, the answer's metadata.continue leads on.",
    ),
    (
        "resourceVersion",
        "string",
        "From which version on, or how new at least: see resourceVersionMatch. Left out: the latest. 0: \
         any.",
    ),
    (
        "resourceVersionMatch",
        "string",
        "How resourceVersion is meant. Exact: that version. NotOlderThan: that one or a newer one.",
    ),
];

/// Of lists, besides which objects.
pub(crate) const WATCH: &[Parameter] = &[
    (
        "allowWatchBookmarks",
        "boolean",
        "Whether the watch sends BOOKMARK events, which say how far it has come.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "Whether the watch begins with the objects that there are, then a bookmark.",
    ),
    ("timeoutSeconds", "integer", "How many seconds the watch lasts at most."),
    ("watch", "boolean", "Sends changes as they come instead of a list."),
];

pub(crate) const LOG: &[Parameter] = &[
    ("container", "string", "Whose log: the container's name. Needed when there are several."),
    ("follow", "boolean", "Whether to go on with what the container writes from now on."),
    ("limitBytes", "integer", "How many bytes at most."),
    ("previous", "boolean", "Whether to read what the container before this one wrote."),
    ("sinceSeconds", "integer", "Only lines of the last so many seconds."),
    ("sinceTime", "string", "Only lines since this moment (RFC 3339)."),
    ("tailLines", "integer", "Only so many lines from the end."),
    ("timestamps", "boolean", "Whether each line begins with its moment (RFC 3339)."),
];

const STREAMS: &[Parameter] = &[
    ("container", "string", "In which container: its name. Needed when there are several."),
    ("stderr", "boolean", "Whether to carry the process's standard error."),
    ("stdin", "boolean", "Whether to carry the process's standard input."),
    ("stdout", "boolean", "Whether to carry the process's standard output."),
    ("tty", "boolean", "Whether the process has a terminal."),
];

pub(crate) const ATTACH: &[Parameter] = STREAMS;

pub(crate) const COMMAND: &[Parameter] =
    &[("command", "string", "The program, then each of its arguments: one parameter each.")];

pub(crate) fn query(tables: &[&[Parameter]]) -> Vec<Value> {
    tables
        .iter()
        .flat_map(|it| it.iter())
        .map(|(name, kind, description)| {
            json!({
                "name": name, "in": "query", "description": description,
                "schema": {"type": kind, "uniqueItems": true},
            })
        })
        .collect()
}

pub(crate) fn path(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "uniqueItems": true},
    })
}
