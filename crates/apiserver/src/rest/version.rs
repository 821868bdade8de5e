//! How fresh an answer has to be: `resourceVersion` and `resourceVersionMatch`.
//!
//! Upstream: `apiserver/pkg/storage/cacher/cacher.go`,
//! `apimachinery/pkg/apis/meta/internalversion/validation/validation.go`.

use crate::{commit::store_failure, server::Server, view::View};
use api::{
    Failure,
    failure::{Cause, Details},
};
use std::sync::Arc;

pub(crate) fn parse(text: &str) -> Result<Option<u64>, Failure> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Failure::bad_request(format!(
                "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        }),
    }
}

impl Server {
    /// A view that is new enough: the newest there is when nothing was asked, any for `0`.
    pub(crate) async fn fresh(&self, asked: Option<u64>) -> Result<Arc<View>, Failure> {
        let wanted = match asked {
            Some(0) => return Ok(self.ledger.view()),
            Some(revision) if revision > self.ledger.view().revision => {
                // What the ledger itself has not reached yet is not worth waiting for.
                let latest = self.store.latest().await.map_err(store_failure)?.0;
                if revision > latest {
                    return Err(too_large(revision, latest));
                }
                revision
            }
            Some(revision) => revision,
            None => self.store.latest().await.map_err(store_failure)?.0,
        };
        match self.ledger.reached_soon(wanted).await {
            Some(view) => Ok(view),
            None => Err(too_large(wanted, self.ledger.view().revision)),
        }
    }
}

pub(crate) fn too_large(wanted: u64, current: u64) -> Failure {
    let message = format!("Too large resource version: {wanted}, current: {current}");
    let cause = Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    };
    let details = Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() };
    Failure {
        details: Some(Box::new(details)),
        ..Failure::new(504, "Timeout", format!("Timeout: {message}"))
    }
}
