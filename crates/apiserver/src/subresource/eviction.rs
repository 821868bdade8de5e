//! A pod is asked to leave. Nothing holds it yet: disruption budgets come with their kind.
//!
//! Upstream: `pkg/registry/core/pod/storage/eviction.go`.

use crate::{
    admit::Deleting,
    answer::{self, Answer},
    ask::Ask,
    body,
};
use api::Failure;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

pub(crate) async fn create(ask: &Ask, bytes: Bytes) -> Result<Answer, Failure> {
    let json = body::to_json(&ask.headers, bytes)?;
    let eviction: Value =
        serde_json::from_slice(&json).map_err(|error| Failure::bad_request(error.to_string()))?;
    let (kind, name) = (&ask.target.kind, &ask.target.name);
    if eviction["metadata"]["name"].as_str().is_some_and(|it| it != name) {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = &eviction["deleteOptions"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let asked = Deleting {
        grace_seconds: options["gracePeriodSeconds"].as_i64(),
        propagation: None,
        uid: text(&options["preconditions"]["uid"]),
        revision: text(&options["preconditions"]["resourceVersion"]),
    };
    let named = options["dryRun"].as_array().is_some_and(|it| !it.is_empty());
    let dry_run = named || body::dry_run(&ask.query, "CreateOptions")?;
    ask.server
        .write(dry_run, |view| {
            Ok(vec![ask.server.draft_delete(view, kind, &ask.user, &ask.key(), &asked)?])
        })
        .await?;
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
    });
    Ok(answer::json(StatusCode::CREATED, &status))
}
