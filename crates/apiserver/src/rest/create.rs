//! A new object.

use crate::{
    admit::Part,
    answer::{self, Answer},
    ask::Ask,
    body::{self, Strictness},
    ownership::{Ownership, check_manager},
    show,
};
use api::{Failure, Subresource};
use bytes::Bytes;
use http::StatusCode;

pub(crate) async fn create(ask: &Ask, body: Bytes) -> Result<Answer, Failure> {
    let target = &ask.target;
    check_manager(&ask.query, "CreateOptions", false)?;
    let strictness = Strictness::of(&ask.query, "CreateOptions")?;
    let dry_run = body::dry_run(&ask.query, "CreateOptions")?;
    let json = body::to_json(&ask.headers, body)?;
    let (mut object, mut warnings) = body::decode(&target.kind, &target.version, json, strictness)?;
    ask.place(&mut object)?;
    ask.expect_face(&object, None)?;
    let settled = ask
        .server
        .write(dry_run, |view| {
            let draft = ask.server.draft_create_as(
                view,
                &target.kind,
                &ask.user,
                Part::Own,
                object.clone(),
                Ownership::of(ask),
            )?;
            Ok(vec![draft])
        })
        .await?;
    let outcome = settled.outcomes.into_iter().next();
    let outcome = outcome.ok_or_else(|| Failure::internal("nothing was created"))?;
    let row = outcome.row.ok_or_else(|| Failure::internal("nothing was created"))?;
    warnings.extend(outcome.warnings);
    let mut answer = show::row(ask, StatusCode::CREATED, &row)?;
    answer::warn(&mut answer, &warnings);
    Ok(answer)
}

/// Whether a write goes to a part of the object.
pub(crate) fn part(ask: &Ask) -> Result<Part, Failure> {
    let kind = &ask.target.kind;
    match ask.target.subresource.as_str() {
        "" => Ok(Part::Own),
        "status" if kind.has(Subresource::Status) => Ok(Part::Status),
        "finalize" if kind.has(Subresource::Finalize) => Ok(Part::Finalize),
        "ephemeralcontainers" if kind.has(Subresource::EphemeralContainers) => {
            Ok(Part::Of(Subresource::EphemeralContainers))
        }
        "resize" if kind.has(Subresource::Resize) => Ok(Part::Of(Subresource::Resize)),
        _ => Err(Failure::new(404, "NotFound", "the server could not find the requested resource")),
    }
}
