//! A new object.

use crate::{
    admission::service_account::DEFAULT,
    admit::Part,
    answer::{self, Answer},
    ask::Ask,
    body::{self, Strictness},
    ownership::{Ownership, check_manager},
    show,
};
use api::{
    AnyObject, Failure, Subresource,
    core::v1::{Namespace, Pod, ServiceAccount},
};
use bytes::Bytes;
use http::StatusCode;
use std::time::Duration;
use world::{ObjectKey, World};

pub(crate) async fn create(ask: &Ask, body: Bytes) -> Result<Answer, Failure> {
    let target = &ask.target;
    check_manager(&ask.query, "CreateOptions", false)?;
    let strictness = Strictness::of(&ask.query, "CreateOptions")?;
    let dry_run = body::dry_run(&ask.query, "CreateOptions")?;
    let (json, twice) = body::to_json_strictly(&ask.headers, body, strictness)?;
    let (mut object, mut warnings) =
        body::decode_knowing(&target.kind, &target.version, json, strictness, twice)?;
    ask.place(&mut object)?;
    ask.expect_face(&object, None)?;
    wait_for_account(ask, &object).await;
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

/// Upstream looks ten times for an account that a controller is about to make.
const ACCOUNT_WAIT: Duration = Duration::from_secs(1);

/// The first pod of a new namespace waits for the namespace's account.
async fn wait_for_account(ask: &Ask, object: &AnyObject) {
    let Some(pod) = (**object).as_any().downcast_ref::<Pod>() else { return };
    let named = pod.spec.as_ref().and_then(|it| it.service_account_name.as_deref());
    if !matches!(named, None | Some("" | DEFAULT)) {
        return;
    }
    let key = ObjectKey::new(&ask.target.namespace, DEFAULT);
    let namespace = ObjectKey::cluster(&ask.target.namespace);
    // No namespace, no account: the refusal is at hand.
    let found = |world: &World| {
        let settled = world.row_of::<ServiceAccount>(&key).is_some()
            || world.row_of::<Namespace>(&namespace).is_none();
        settled.then_some(())
    };
    if found(&ask.server.ledger.view().world).is_none() {
        let mut follower = ask.server.ledger.feed.follow();
        let _late = stdx::timeout(ACCOUNT_WAIT, follower.until(found)).await;
    }
}

/// Whether a write goes to a part of the object.
pub(crate) fn part(ask: &Ask) -> Result<Part, Failure> {
    let kind = &ask.target.kind;
    match ask.target.subresource.as_str() {
        "" => Ok(Part::Own),
        "status" if kind.has(Subresource::Status) => Ok(Part::Status),
        "approval" if kind.has(Subresource::Approval) => Ok(Part::Approval),
        "finalize" if kind.has(Subresource::Finalize) => Ok(Part::Finalize),
        "ephemeralcontainers" if kind.has(Subresource::EphemeralContainers) => {
            Ok(Part::Of(Subresource::EphemeralContainers))
        }
        "resize" if kind.has(Subresource::Resize) => Ok(Part::Of(Subresource::Resize)),
        _ => Err(Failure::new(404, "NotFound", "the server could not find the requested resource")),
    }
}
