//! A change to the object that is there, whatever it is by then: judged again when another write
//! comes first.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/patch.go`.

use super::{create::part, update};
use crate::{
    admit::existing,
    answer::Answer,
    ask::Ask,
    body::{self, Strictness},
    merge::{self, Patch},
    ownership::check_manager,
    scan, show,
    view::View,
};
use api::{AnyObject, Failure};
use bytes::Bytes;
use serde_json::Value;

pub(crate) async fn patch(ask: &Ask, body: Bytes) -> Result<Answer, Failure> {
    if merge::is_apply(&ask.headers) {
        return super::apply::apply(ask, body).await;
    }
    let part = part(ask)?;
    check_manager(&ask.query, "PatchOptions", false)?;
    let strictness = Strictness::of(&ask.query, "PatchOptions")?;
    let dry_run = body::dry_run(&ask.query, "PatchOptions")?;
    let patch = Patch::read(&ask.headers, &body)?;
    let mut warnings = Vec::new();
    if strictness != Strictness::Ignore {
        let mut odd = body::strict_errors(&scan::duplicates(&body), &patch.unknown(&body));
        if let Patch::Json(_) = patch {
            odd = odd.into_iter().map(|it| format!("json patch {it}")).collect();
        }
        if strictness == Strictness::Strict && !odd.is_empty() {
            return Err(refused(&body, &format!("strict decoding error: {}", odd.join(", "))));
        }
        warnings.extend(odd);
    }
    let mut odd = Vec::new();
    let make = |view: &View| {
        let (object, unknown) = patched(ask, view, &patch, &body, strictness)?;
        odd = unknown;
        Ok(object)
    };
    let mut answer = update::write(ask, dry_run, warnings, part, make).await?;
    crate::answer::warn(&mut answer, &odd);
    Ok(answer)
}

fn patched(
    ask: &Ask,
    view: &View,
    patch: &Patch,
    body: &[u8],
    strictness: Strictness,
) -> Result<(AnyObject, Vec<String>), Failure> {
    let (kind, version) = (&ask.target.kind, &*ask.target.version);
    let row = existing(view, kind, &ask.key())?;
    let json = match patch.is_about_owners() {
        true => row.json(),
        false => row.json_plain(),
    };
    let json = show::versioned(kind, version, json);
    let mut document: Value = serde_json::from_slice(&json).map_err(Failure::internal)?;
    patch.apply(&ask.server.shapes.of(kind), &mut document)?;
    let json = Bytes::from(document.to_string());
    let (object, odd) = body::decode(kind, version, json, Strictness::Warn)
        .map_err(|failure| refused(body, &failure.message))?;
    if strictness == Strictness::Strict && !odd.is_empty() {
        return Err(refused(body, &format!("strict decoding error: {}", odd.join(", "))));
    }
    ask.expect_name(&object)?;
    // What was patched names its version: a patch that names another one is held to that.
    let odd = if strictness == Strictness::Ignore { Vec::new() } else { odd };
    Ok((object, odd))
}

fn refused(patch: &[u8], why: &str) -> Failure {
    let patch = String::from_utf8_lossy(patch);
    let message = format!(" \"\" is invalid: patch: Invalid value: {patch:?}: {why}");
    Failure::new(422, "Invalid", message)
}
