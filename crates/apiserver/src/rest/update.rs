//! An object written over the one that is there.

use super::create::part;
use crate::{
    admit::Part,
    answer::{self, Answer},
    ask::Ask,
    body::{self, Strictness},
    commit::Draft,
    ownership::{Ownership, check_manager},
    show,
    view::View,
};
use api::{AnyObject, Failure};
use bytes::Bytes;
use http::StatusCode;

pub(crate) async fn update(ask: &Ask, body: Bytes) -> Result<Answer, Failure> {
    let (target, part) = (&ask.target, part(ask)?);
    check_manager(&ask.query, "UpdateOptions", false)?;
    let strictness = Strictness::of(&ask.query, "UpdateOptions")?;
    let dry_run = body::dry_run(&ask.query, "UpdateOptions")?;
    let (json, twice) = body::to_json_strictly(&ask.headers, body, strictness)?;
    let (object, warnings) =
        body::decode_knowing(&target.kind, &target.version, json, strictness, twice)?;
    ask.expect_name(&object)?;
    write(ask, dry_run, warnings, part, |_| Ok(object.clone())).await
}

/// Writes what `make` makes of the view, and answers with the object as it is then.
pub(crate) async fn write(
    ask: &Ask,
    dry_run: bool,
    mut warnings: Vec<String>,
    part: Part,
    mut make: impl FnMut(&View) -> Result<AnyObject, Failure>,
) -> Result<Answer, Failure> {
    let (target, key) = (&ask.target, ask.key());
    let settled = ask
        .server
        .write(dry_run, |view| {
            let object = make(view)?;
            if ask.target.is_face()
                && let Some(row) = view.row(&target.kind, &key)
            {
                let old = row.object().map_err(Failure::internal)?;
                ask.expect_face(&object, Some(&*old))?;
            }
            let draft: Draft = ask.server.draft_update_as(
                view,
                &target.kind,
                &ask.user,
                &key,
                part,
                object,
                Ownership::of(ask),
            )?;
            Ok(vec![draft])
        })
        .await?;
    let outcome = settled.outcomes.into_iter().next();
    let outcome = outcome.ok_or_else(|| Failure::internal("nothing was written"))?;
    let row = outcome.row.ok_or_else(|| Failure::internal("nothing was written"))?;
    warnings.extend(outcome.warnings);
    let mut answer = show::row(ask, StatusCode::OK, &row)?;
    answer::warn(&mut answer, &warnings);
    Ok(answer)
}
