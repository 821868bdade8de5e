//! What `kubectl get` prints: rows of cells made by the kind's own columns.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/response.go`, `apimachinery/pkg/apis/meta/v1` Table.

use crate::{body::invalid_options, show, target::Query};
use api::{AnyKind, Cell, Failure, Format, kind::Printing};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use stdx::Timestamp;
use world::Row;

/// How much of its object a row carries along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn of(query: &Query) -> Result<Include, Failure> {
        match query.one("includeObject") {
            "" | "Metadata" => Ok(Include::Metadata),
            "None" => Ok(Include::Nothing),
            "Object" => Ok(Include::Object),
            other => Err(invalid_options(
                "TableOptions",
                &format!(
                    "includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
                ),
            )),
        }
    }
}

/// A row and the bytes that the client sees of it.
pub(crate) struct Seen<'a> {
    pub(crate) row: &'a Arc<Row>,
    pub(crate) json: Bytes,
}

/// A table of rows; `heads` says whether columns are named (only in the first event of a watch).
pub(crate) fn table(
    kind: &AnyKind,
    now: Timestamp,
    rows: &[Seen<'_>],
    metadata: Value,
    include: Include,
    heads: bool,
) -> Result<Value, Failure> {
    let printing = Printing { now };
    let mut out = Vec::with_capacity(rows.len());
    for Seen { row, json } in rows {
        let object = row.object().map_err(Failure::internal)?;
        let cells: Vec<Value> = match kind.rules.cells(&*object, &printing) {
            cells if cells.is_empty() => {
                let created = row.meta.created.map(Timestamp::rfc3339);
                vec![row.meta.name.as_str().into(), created.into()]
            }
            cells => cells.into_iter().map(cell).collect(),
        };
        let mut line = json!({"cells": cells});
        match include {
            Include::Nothing => {}
            Include::Metadata => line["object"] = parsed(show::partial(json)?.as_bytes())?,
            Include::Object => line["object"] = parsed(json)?,
        }
        out.push(line);
    }
    let columns = if heads { columns(kind) } else { Vec::new() };
    Ok(json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": out,
    }))
}

fn parsed(json: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(json).map_err(Failure::internal)
}

fn cell(cell: Cell) -> Value {
    match cell {
        Cell::Text(text) => text.into(),
        Cell::Number(number) => number.into(),
        Cell::Truth(truth) => truth.into(),
    }
}

fn columns(kind: &AnyKind) -> Vec<Value> {
    let column = |name: &str, kind: &str, format: &str, description: &str, wide: bool| {
        json!({"name": name, "type": kind, "format": format, "description": description,
            "priority": i32::from(wide)})
    };
    let columns = kind.rules.columns();
    if columns.is_empty() {
        return vec![
            column("Name", "string", "name", "Name must be unique within a namespace.", false),
            column("Created At", "date", "", "When the object was created.", false),
        ];
    }
    let head = |it: &api::any::ColumnHead| {
        let (kind, format) = match it.format {
            Format::String => ("string", ""),
            Format::Integer => ("integer", ""),
            Format::Boolean => ("boolean", ""),
            Format::Date => ("date", ""),
            Format::Name => ("string", "name"),
        };
        column(&it.title, kind, format, &it.description, it.wide)
    };
    columns.iter().map(head).collect()
}
