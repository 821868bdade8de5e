//! One change as one request.

use super::{address, connection::Connection};
use api::{AnyObject, Failure, KindRef, codec, deletion::Propagation};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use world::{Change, Expected, Row, Verb};

/// What a write left.
pub(super) enum Sent {
    Now(Arc<Row>),
    Gone,
}

pub(super) async fn send(connection: &Connection, change: &Change) -> Result<Sent, Failure> {
    let (kind, own) = (&change.kind, address::of(&change.kind, &change.key));
    let (method, path, body) = match change.verb {
        Verb::Create => ("POST", address::collection(kind, &change.key.namespace), object(change)?),
        Verb::Update => ("PUT", own, object(change)?),
        Verb::Status => ("PUT", format!("{own}/status"), object(change)?),
        Verb::Delete { grace_seconds, propagation } => {
            ("DELETE", own, deletion(change, grace_seconds, propagation))
        }
        Verb::CreateWithStatus | Verb::Both | Verb::Check => {
            let why = "only loops of the server itself may";
            return Err(Failure::forbidden(kind, &change.key.name, why));
        }
    };
    let answer = connection.call(method, &path, Some(body)).await?;
    if !matches!(change.verb, Verb::Delete { .. }) {
        return Ok(Sent::Now(row(kind, &answer)?));
    }
    // What is only marked comes back; what is gone is told by a Status, or as it was last.
    let said: Value = serde_json::from_slice(&answer).map_err(Failure::internal)?;
    let is_marked = said["kind"] == kind.kind.as_str()
        && !matches!(change.verb, Verb::Delete { grace_seconds: Some(0), .. })
        && said["metadata"]["deletionTimestamp"].is_string();
    match is_marked {
        true => Ok(Sent::Now(row(kind, &answer)?)),
        false => Ok(Sent::Gone),
    }
}

/// An object as the server shows it.
pub(super) fn row(kind: &KindRef, json: &[u8]) -> Result<Arc<Row>, Failure> {
    let unread = |why: String| Failure::internal(format!("read a {}: {why}", kind.kind));
    let (mut object, _unknown) = kind.rules.decode(json).map_err(|it| unread(it.0))?;
    let meta = object.metadata_mut();
    // Only the door asks for it.
    meta.managed_fields = None;
    let revision = meta.resource_version.take().and_then(|it| it.parse().ok());
    let revision = revision.ok_or_else(|| unread("it has no resourceVersion".to_owned()))?;
    let bytes = Bytes::from(object.encode());
    let row = Row::with_object(kind, bytes, revision, object).map_err(|it| unread(it.0))?;
    Ok(Arc::new(row))
}

fn object(change: &Change) -> Result<Bytes, Failure> {
    let object: &AnyObject = change
        .object
        .as_deref()
        .ok_or_else(|| Failure::internal(format!("{change} carries no object")))?;
    let bytes = object.encode();
    match change.expected {
        Expected::Revision(revision) => {
            let head = codec::head(&bytes).map_err(|it| Failure::internal(it.0))?;
            Ok(codec::spliced(&bytes, head.splice_at, revision))
        }
        Expected::Absent | Expected::Uid(_) | Expected::Anything => Ok(bytes.into()),
    }
}

fn deletion(
    change: &Change,
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
) -> Bytes {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some(seconds) = grace_seconds {
        options["gracePeriodSeconds"] = seconds.into();
    }
    match propagation {
        Some(Propagation::Foreground) => options["propagationPolicy"] = "Foreground".into(),
        Some(Propagation::Background) => options["propagationPolicy"] = "Background".into(),
        Some(Propagation::Orphan) => options["propagationPolicy"] = "Orphan".into(),
        None => {}
    }
    match &change.expected {
        Expected::Uid(uid) => options["preconditions"]["uid"] = uid.as_str().into(),
        Expected::Revision(revision) => {
            options["preconditions"]["resourceVersion"] = revision.to_string().into();
        }
        Expected::Absent | Expected::Anything => {}
    }
    options.to_string().into()
}
