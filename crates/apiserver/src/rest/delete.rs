//! An object taken away, or marked to go; and all objects of a selection.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/delete.go`.

use super::list;
use crate::{
    admit::Deleting,
    answer::{self, Answer},
    ask::Ask,
    body::{self, invalid_options},
    commit::Outcome,
    selection::Selection,
    show,
};
use api::{AnyKind, Failure, deletion::Propagation};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use world::{ObjectKey, Row};

/// Kinds whose deletion answers with a `Status`; the others answer with the object.
const ANSWER_WITH_STATUS: &[&str] = &[
    "configmaps",
    "controllerrevisions",
    "endpoints",
    "endpointslices",
    "events",
    "leases",
    "nodes",
    "secrets",
    "statefulsets",
];

pub(crate) async fn delete(ask: &Ask, body: Bytes) -> Result<Answer, Failure> {
    let kind = &ask.target.kind;
    let options = Options::read(ask, body)?;
    let outcome = remove(ask, &ask.key(), &options).await?;
    let row = outcome.row.ok_or_else(|| Failure::internal("nothing was deleted"))?;
    let waits = !outcome.removed && options.waits_for_dependents;
    let status = if waits { StatusCode::ACCEPTED } else { StatusCode::OK };
    if outcome.removed && ANSWER_WITH_STATUS.contains(&kind.plural.as_str()) {
        return Ok(answer::json(status, &success(kind, &row.meta.name, &row.meta.uid)));
    }
    show::row(ask, status, &row)
}

/// Each object of the selection on its own; those that somebody else deleted meanwhile do not count.
pub(crate) async fn delete_all(ask: &Ask, body: Bytes) -> Result<Answer, Failure> {
    let options = Options::read(ask, body)?;
    let selection = Selection::of(&ask.target, &ask.query)?;
    let listed = list::select(ask, &selection).await?;
    for row in &listed.rows {
        match remove(ask, &row.key(), &options).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
    }
    list::answer(ask, &listed)
}

async fn remove(ask: &Ask, key: &ObjectKey, options: &Options) -> Result<Outcome, Failure> {
    let (server, kind) = (&ask.server, &ask.target.kind);
    let settled = server
        .write(options.dry_run, |view| {
            Ok(vec![server.draft_delete(view, kind, &ask.user, key, &options.asked)?])
        })
        .await?;
    let outcome = settled.outcomes.into_iter().next();
    let mut outcome = outcome.ok_or_else(|| Failure::internal("nothing was deleted"))?;
    if let Some(row) = outcome.row.as_mut().filter(|_| outcome.removed && !options.dry_run) {
        // What is gone carries the revision of its going.
        let gone = Row::new(kind, row.bytes.clone(), settled.revision);
        *row = Arc::new(gone.map_err(Failure::internal)?);
    }
    Ok(outcome)
}

/// `DeleteOptions`, from the body or the query.
struct Options {
    asked: Deleting,
    dry_run: bool,
    /// Asked to wait until dependents are gone, in one of two ways.
    waits_for_dependents: bool,
}

impl Options {
    fn read(ask: &Ask, body: Bytes) -> Result<Options, Failure> {
        let wrong = |why: String| Failure::bad_request(why);
        if body.is_empty() {
            let grace = match ask.query.one("gracePeriodSeconds") {
                "" => None,
                text => Some(
                    text.parse()
                        .map_err(|_| wrong(format!("invalid gracePeriodSeconds {text:?}")))?,
                ),
            };
            let orphan = match ask.query.one("orphanDependents") {
                "" => None,
                _ => Some(ask.query.is("orphanDependents")),
            };
            let dry_run = body::dry_run(&ask.query, "DeleteOptions")?;
            let propagation = propagation(ask.query.one("propagationPolicy"), orphan)?;
            let asked = Deleting { grace_seconds: grace, propagation, ..Deleting::default() };
            return Ok(Options { asked, dry_run, waits_for_dependents: orphan == Some(false) });
        }
        let json = body::to_json(&ask.headers, body)?;
        let options: Value =
            serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))?;
        match options["kind"].as_str().unwrap_or_default() {
            "" | "DeleteOptions" => {}
            other => {
                return Err(wrong(format!(
                    "decoded object cannot be converted to DeleteOptions: {other}"
                )));
            }
        }
        expect_types(&options)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let orphan = options["orphanDependents"].as_bool();
        let dry_run = match options["dryRun"].as_array() {
            Some(list) if list.iter().any(|it| it != "All") => {
                return Err(invalid_options(
                    "DeleteOptions",
                    &format!("dryRun: Unsupported value: {}: supported values: \"All\"", list[0]),
                ));
            }
            Some(list) => !list.is_empty(),
            None => body::dry_run(&ask.query, "DeleteOptions")?,
        };
        let policy = options["propagationPolicy"].as_str().unwrap_or_default();
        let asked = Deleting {
            grace_seconds: options["gracePeriodSeconds"].as_i64(),
            propagation: propagation(policy, orphan)?,
            uid: text(&options["preconditions"]["uid"]),
            revision: text(&options["preconditions"]["resourceVersion"]),
        };
        Ok(Options { asked, dry_run, waits_for_dependents: orphan == Some(false) })
    }
}

/// A field of the wrong type is no field that is not there.
pub(crate) fn expect_types(options: &Value) -> Result<(), Failure> {
    let is_of = |name: &str, value: &Value| match name {
        "gracePeriodSeconds" => value.is_i64(),
        "orphanDependents" => value.is_boolean(),
        "propagationPolicy" => value.is_string(),
        "dryRun" => value.as_array().is_some_and(|it| it.iter().all(Value::is_string)),
        "preconditions" => value
            .as_object()
            .is_some_and(|it| it.values().all(|value| value.is_string() || value.is_null())),
        _ => true,
    };
    let Some(fields) = options.as_object() else {
        return Err(Failure::bad_request("DeleteOptions: the body is not an object"));
    };
    match fields.iter().find(|(name, value)| !value.is_null() && !is_of(name, value)) {
        None => Ok(()),
        Some((name, value)) => Err(Failure::bad_request(format!(
            "DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {name}: {value} is not of its type"
        ))),
    }
}

fn propagation(policy: &str, orphan: Option<bool>) -> Result<Option<Propagation>, Failure> {
    match (policy, orphan) {
        ("", None) => Ok(None),
        ("", Some(true)) => Ok(Some(Propagation::Orphan)),
        ("", Some(false)) => Ok(Some(Propagation::Background)),
        ("Background", None) => Ok(Some(Propagation::Background)),
        ("Foreground", None) => Ok(Some(Propagation::Foreground)),
        ("Orphan", None) => Ok(Some(Propagation::Orphan)),
        (_, Some(_)) => Err(invalid_options(
            "DeleteOptions",
            "propagationPolicy: Invalid value: orphanDependents and deletionPropagation cannot be both set",
        )),
        (other, None) => Err(invalid_options(
            "DeleteOptions",
            &format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\", \"nil\""
            ),
        )),
    }
}

fn success(kind: &AnyKind, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": kind.plural, "uid": uid});
    if !kind.group.is_empty() {
        details["group"] = kind.group.as_str().into();
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    })
}
