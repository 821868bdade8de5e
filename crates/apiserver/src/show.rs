//! Rows as clients see them: spliced bytes where those are what was asked for, and the few other
//! shapes where not.

use crate::{
    accept::{Form, Shape},
    answer::{self, Answer},
    ask::Ask,
    table,
};
use api::{AnyKind, Failure};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json, value::RawValue};
use std::{collections::BTreeMap, sync::Arc};
use world::Row;

/// Bytes of one object in the version asked for.
pub(crate) fn versioned(kind: &AnyKind, version: &str, json: Bytes) -> Bytes {
    if version == kind.version {
        return json;
    }
    if version.contains('/') {
        let core = serde_json::from_slice(&json).unwrap_or_default();
        return api::events::event::from_core(core).to_string().into();
    }
    // Encoding always begins with the version.
    let stored = format!("{{\"apiVersion\":\"{}\"", kind.api_version());
    let Some(rest) = json.strip_prefix(stored.as_bytes()) else { return json };
    let mut out = format!("{{\"apiVersion\":\"{}\"", kind.api_version_as(version)).into_bytes();
    out.extend_from_slice(rest);
    out.into()
}

/// Everything but metadata left out.
pub(crate) fn partial(json: &[u8]) -> Result<String, Failure> {
    let fields: BTreeMap<&str, &RawValue> =
        serde_json::from_slice(json).map_err(Failure::internal)?;
    let metadata = fields.get("metadata").map_or("{}", |it| it.get());
    Ok(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata}}}"
    ))
}

/// One object in the form that was asked for.
pub(crate) fn row(ask: &Ask, status: StatusCode, row: &Arc<Row>) -> Result<Answer, Failure> {
    let (kind, version) = (&ask.target.kind, &*ask.target.version);
    // What a dry run would have made has no version.
    let json = if row.revision == 0 { row.bytes.clone() } else { row.json() };
    let json = match ask.form.shape {
        Shape::Object => versioned(kind, version, json),
        Shape::Partial => partial(&json)?.into(),
        Shape::Table => {
            let include = table::Include::of(&ask.query)?;
            let rows = [table::Seen { row, json: versioned(kind, version, json) }];
            let list = json!({"resourceVersion": row.revision.to_string()});
            table::table(kind, ask.server.now(), &rows, list, include, true)?.to_string().into()
        }
        Shape::PartialList => return Err(not_acceptable()),
    };
    bytes(ask.form, ask.is_pretty(), status, json)
}

/// JSON bytes in the format that was asked for.
pub(crate) fn bytes(
    form: Form,
    pretty: bool,
    status: StatusCode,
    json: Bytes,
) -> Result<Answer, Failure> {
    if form.protobuf || !form.yaml && !pretty {
        return Ok(answer::whole(status, answer::JSON, json));
    }
    let value: Value = serde_json::from_slice(&json).map_err(Failure::internal)?;
    if form.yaml {
        let yaml = serde_saphyr::to_string(&value).map_err(Failure::internal)?;
        return Ok(answer::whole(status, answer::YAML, yaml));
    }
    let mut text = serde_json::to_string_pretty(&value).map_err(Failure::internal)?;
    text.push('\n');
    Ok(answer::whole(status, answer::JSON, text))
}

pub(crate) fn not_acceptable() -> Failure {
    Failure::new(406, "NotAcceptable", crate::accept::ACCEPTED)
}
