//! How many, of anything that can be many: `autoscaling/v1` Scale.
//!
//! Upstream: `pkg/registry/apps/statefulset/storage/storage.go`, ScaleREST.

use crate::{
    admit::{Part, existing},
    answer::Answer,
    ask::Ask,
    body, fields,
    merge::{self, Patch},
    ownership::{Ownership, author, check_manager},
    rest, show,
    view::View,
};
use api::{AnyKind, AnyObject, Errors, Failure};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use world::Row;

pub(crate) async fn get(ask: &Ask) -> Result<Answer, Failure> {
    let view = ask.server.fresh(None).await?;
    let row = existing(&view, &ask.target.kind, &ask.key())?;
    answer(ask, row)
}

pub(crate) async fn update(ask: &Ask, bytes: Bytes) -> Result<Answer, Failure> {
    let json = body::to_json(&ask.headers, bytes)?;
    let scale: Value = serde_json::from_slice(&json).map_err(|error| {
        Failure::bad_request(format!(
            "Scale in version \"v1\" cannot be handled as a Scale: {error}"
        ))
    })?;
    check_manager(&ask.query, "UpdateOptions", false)?;
    write(ask, "UpdateOptions", false, |_, _| Ok(scale.clone())).await
}

pub(crate) async fn patch(ask: &Ask, bytes: Bytes) -> Result<Answer, Failure> {
    let kind = &ask.target.kind;
    if merge::is_apply(&ask.headers) {
        check_manager(&ask.query, "PatchOptions", true)?;
        let config: Value =
            serde_json::from_str(&rest::apply::read(&bytes)?.0).map_err(Failure::internal)?;
        expect_scale(&config)?;
        return write(ask, "PatchOptions", true, |_, row| {
            let mut scale = scale(kind, row)?;
            json_patch::merge(&mut scale, &config);
            Ok(scale)
        })
        .await;
    }
    let patch = Patch::read(&ask.headers, &bytes)?;
    check_manager(&ask.query, "PatchOptions", false)?;
    write(ask, "PatchOptions", false, |_, row| {
        let mut scale = scale(kind, row)?;
        patch.apply(&ask.server.shapes.of(kind), &mut scale)?;
        Ok(scale)
    })
    .await
}

async fn write(
    ask: &Ask,
    options: &str,
    apply: bool,
    make: impl Fn(&View, &Arc<Row>) -> Result<Value, Failure>,
) -> Result<Answer, Failure> {
    let dry_run = body::dry_run(&ask.query, options)?;
    let (kind, key) = (&ask.target.kind, ask.key());
    let settled = ask
        .server
        .write(dry_run, |view| {
            let row = existing(view, kind, &key)?;
            let scale = make(view, row)?;
            let object = scaled(ask, row, &scale)?;
            let ownership = Ownership::Settled(owners(ask, row, &scale, apply)?);
            let (server, user) = (&ask.server, &ask.user);
            let draft =
                server.draft_update_as(view, kind, user, &key, Part::Own, object, ownership)?;
            Ok(vec![draft])
        })
        .await?;
    let row = settled.outcomes.into_iter().next().and_then(|it| it.row);
    answer(ask, &row.ok_or_else(|| Failure::internal("nothing was written"))?)
}

/// Who owns the number once it is what the scale says.
fn owners(ask: &Ask, row: &Row, scale: &Value, apply: bool) -> Result<Option<String>, Failure> {
    let object = row.object().map_err(Failure::internal)?;
    let before = ask.target.kind.rules.scale(&*object).map(|it| i64::from(it.replicas));
    let changed = before != Some(scale["spec"]["replicas"].as_i64().unwrap_or(0));
    let author = author(ask, "scale");
    match (apply, changed) {
        (true, _) => fields::scale::applied(row.managed(), changed, &author, ask.query.is("force")),
        (false, true) => Ok(fields::scale::updated(row.managed(), &author)),
        (false, false) => Ok(row.managed().map(str::to_owned)),
    }
}

fn expect_scale(config: &Value) -> Result<(), Failure> {
    let text = |name: &str| config[name].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if (version, kind) == ("autoscaling/v1", "Scale") {
        return Ok(());
    }
    Err(Failure::bad_request(format!("invalid object type: {version}, Kind={kind}")))
}

/// The object with the replicas that the scale asks for.
fn scaled(ask: &Ask, row: &Arc<Row>, scale: &Value) -> Result<AnyObject, Failure> {
    let kind = &ask.target.kind;
    let meta = &scale["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    if !name.is_empty() && name != ask.target.name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            ask.target.name
        )));
    }
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    let replicas = i32::try_from(replicas).ok().filter(|it| *it >= 0).ok_or_else(|| {
        let mut errors = Errors::default();
        let why = "must be greater than or equal to 0";
        errors.invalid("spec.replicas", replicas, why);
        let message =
            format!("Scale.autoscaling {:?} is invalid: {}", ask.target.name, errors.message());
        Failure::new(422, "Invalid", message).about(kind, &ask.target.name)
    })?;
    let mut object = row.copy().map_err(Failure::internal)?;
    kind.rules.set_replicas(&mut object, replicas);
    let text = |value: &Value| value.as_str().filter(|it| !it.is_empty()).map(str::to_owned);
    let own = object.metadata_mut();
    own.resource_version = text(&meta["resourceVersion"]);
    if let Some(uid) = text(&meta["uid"]) {
        own.uid = Some(uid);
    }
    Ok(object)
}

fn scale(kind: &AnyKind, row: &Row) -> Result<Value, Failure> {
    let object = row.object().map_err(Failure::internal)?;
    let scaling = kind.rules.scale(&*object);
    let scaling = scaling.ok_or_else(crate::http::no_such_path)?;
    let mut metadata = json!({
        "name": row.meta.name, "namespace": row.meta.namespace, "uid": row.meta.uid,
        "resourceVersion": row.revision.to_string(),
    });
    if let Some(created) = row.meta.created {
        metadata["creationTimestamp"] = created.rfc3339().into();
    }
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": scaling.replicas},
        "status": {"replicas": scaling.status_replicas, "selector": scaling.selector},
    }))
}

fn answer(ask: &Ask, row: &Arc<Row>) -> Result<Answer, Failure> {
    let json = Bytes::from(scale(&ask.target.kind, row)?.to_string());
    show::bytes(ask.form, ask.is_pretty(), StatusCode::OK, json)
}
