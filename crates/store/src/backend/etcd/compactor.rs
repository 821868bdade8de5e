//! Forgets history as old as upstream's kube-apiserver does, and together with it: whoever moves the key
//! `compact_rev_key` on compacts to what it saw five minutes before, and nobody else does in that time.
//!
//! Upstream: `apiserver/pkg/storage/etcd3/compact.go`.

use super::{Shared, convert, failed::Failed};
use crate::Revision;
use ::etcd::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    response_op::Response,
};
use std::{sync::Weak, time::Duration};

pub(super) const KEY: &str = "compact_rev_key";

pub(super) async fn compact(shared: Weak<Shared>, age: Duration) {
    // How often the key was written, and the revision of then.
    let (mut times, mut seen) = (0, Revision::ZERO);
    loop {
        stdx::sleep(age).await;
        let Some(shared) = shared.upgrade() else { return };
        match turn(&shared, times, seen).await {
            Ok(next) => (times, seen) = next,
            Err(error) => {
                tracing::warn!("forgetting old history: {}", stdx::one_line(&error));
            }
        }
    }
}

async fn turn(
    shared: &Shared,
    times: i64,
    seen: Revision,
) -> Result<(i64, Revision), crate::ReadError> {
    let moved = shared.connection.txn(request(times, seen)).await;
    let moved = moved.map_err(|failed: Failed| shared.store_error(failed))?;
    let now = convert::revision(moved.header.as_ref());
    if !moved.succeeded {
        let there = moved.responses.first().and_then(|it| it.response.as_ref());
        let times = match there {
            Some(Response::ResponseRange(range)) => range.kvs.first().map_or(0, |it| it.version),
            _ => 0,
        };
        return Ok((times, now));
    }
    if seen > Revision::ZERO {
        shared.compact(seen).await?;
    }
    Ok((times + 1, now))
}

fn request(times: i64, seen: Revision) -> TxnRequest {
    let key = KEY.as_bytes().to_vec();
    let put = PutRequest { key: key.clone(), value: seen.to_string().into_bytes(), lease: 0 };
    let get = RangeRequest { key: key.clone(), ..Default::default() };
    let operation = |request| vec![RequestOp { request: Some(request) }];
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key,
            target_union: Some(TargetUnion::Version(times)),
        }],
        success: operation(Request::RequestPut(put)),
        failure: operation(Request::RequestRange(get)),
    }
}
