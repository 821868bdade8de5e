//! Server-side apply: a configuration laid over the object that is there, or made into one.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/patch.go`, applyPatcher.

use super::create::part;
use crate::{
    admit::Part,
    answer::{self, Answer},
    ask::Ask,
    authz::Wish,
    body::{self, Strictness},
    commit::Draft,
    fields::{
        apply::{Applied, apply as lay},
        update::Stored,
    },
    ownership::{Ownership, author, check_manager},
    show,
    view::View,
    yaml,
};
use api::{AnyObject, Failure};
use bytes::Bytes;
use http::StatusCode;
use std::sync::Arc;
use world::Row;

pub(crate) async fn apply(ask: &Ask, body: Bytes) -> Result<Answer, Failure> {
    let part = part(ask)?;
    check_manager(&ask.query, "PatchOptions", true)?;
    let dry_run = body::dry_run(&ask.query, "PatchOptions")?;
    let strictness = Strictness::of(&ask.query, "PatchOptions")?;
    let (config, twice) = read(&body)?;
    let twice = twice.map(|it| format!("error converting YAML to JSON: {it}"));
    let twice = twice.filter(|_| strictness != Strictness::Ignore);
    if let (Strictness::Strict, Some(twice)) = (strictness, &twice) {
        return Err(Failure::bad_request(format!("error strict decoding YAML: {twice}")));
    }
    let mut created = false;
    let settled = ask
        .server
        .write(dry_run, |view| {
            let row = view.row(&ask.target.kind, &ask.key());
            created = row.is_none();
            Ok(vec![draft(ask, view, row, part, &config)?])
        })
        .await?;
    let outcome = settled.outcomes.into_iter().next();
    let outcome = outcome.ok_or_else(|| Failure::internal("nothing was applied"))?;
    let row = outcome.row.ok_or_else(|| Failure::internal("nothing was applied"))?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut answer = show::row(ask, status, &row)?;
    let warnings: Vec<String> = twice.into_iter().chain(outcome.warnings).collect();
    answer::warn(&mut answer, &warnings);
    Ok(answer)
}

/// The configuration as JSON, an object; and what the strict reader says of keys that it has twice.
pub(crate) fn read(body: &[u8]) -> Result<(String, Option<String>), Failure> {
    let wrong = |why: &str| Failure::bad_request(format!("error decoding YAML: {why}"));
    let yaml = yaml::read(body).map_err(|why| wrong(&why))?;
    match yaml.value.is_object() {
        true => Ok((yaml.value.to_string(), yaml.twice)),
        false => Err(wrong("the configuration is not an object")),
    }
}

fn draft(
    ask: &Ask,
    view: &View,
    row: Option<&Arc<Row>>,
    part: Part,
    config: &str,
) -> Result<Draft, Failure> {
    let (kind, key) = (&ask.target.kind, ask.key());
    if row.is_none() && part != Part::Own {
        return Err(Failure::not_found(kind, &key.name));
    }
    let (mut object, managed) = applied(ask, row, config)?;
    ask.expect_name(&object)?;
    let ownership = Ownership::Settled(managed);
    let server = &ask.server;
    let Some(row) = row else {
        // What is not there yet takes leave to be made.
        server.permit(view, &ask.user, &Wish::of("create", &ask.target))?;
        if let Some(uid) = object.metadata().uid.as_deref().filter(|it| !it.is_empty()) {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(Failure::conflict(kind, &key.name, &why));
        }
        ask.place(&mut object)?;
        return server.draft_create_as(view, kind, &ask.user, part, object, ownership);
    };
    let version = &mut object.metadata_mut().resource_version;
    // Who does not name a version applies to what is there.
    version.get_or_insert_with(|| row.revision.to_string());
    server.draft_update_as(view, kind, &ask.user, &key, part, object, ownership)
}

fn applied(
    ask: &Ask,
    row: Option<&Arc<Row>>,
    config: &str,
) -> Result<(AnyObject, Option<String>), Failure> {
    let (kind, version) = (&ask.target.kind, &*ask.target.version);
    let author = author(ask, &ask.target.subresource);
    let force = ask.query.is("force");
    let shapes = ask.server.shapes.of(kind);
    let plain = row.map(|row| show::versioned(kind, version, row.plain().into_owned().into()));
    let json = plain.as_ref().map(|it| std::str::from_utf8(it)).transpose();
    let json = json.map_err(Failure::internal)?;
    let live = json.map(|json| Stored { json, managed: row.and_then(|it| it.managed()) });
    let Applied { json, managed } = lay(kind, &shapes, live, config, &author, force)?;
    let (object, _) = body::decode(kind, version, Bytes::from(json), Strictness::Ignore)?;
    Ok((object, managed))
}
