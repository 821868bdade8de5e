//! Our words and etcd's for the same things.

use super::failed::Failed;
use crate::{
    Batch, Change, CommitError, Entry, Expect, Key, KeyRange, LeaseId, Record, Recorded, Revision,
};
use ::etcd::{
    Compare, DeleteRangeRequest, Event, KeyValue, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    event::EventType,
    request_op::Request,
    response_op::Response,
};
use bytes::Bytes;

pub(super) fn number(number: u64) -> i64 {
    number.cast_signed()
}

pub(super) fn revision(header: Option<&ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |it| it.revision.cast_unsigned()))
}

fn bytes(key: &Key) -> Vec<u8> {
    key.as_str().as_bytes().to_vec()
}

/// A transaction, and the keys with expectations in the order in which a refusal answers them.
pub(super) fn transaction(batch: &Batch) -> (TxnRequest, Vec<(Key, Expect)>) {
    let checks = batch.checks.iter().map(|it| (&it.key, it.expect));
    let writes = batch.writes.iter().map(|it| (&it.key, it.expect));
    let expectations: Vec<(Key, Expect)> = checks
        .chain(writes)
        .filter(|(_, expect)| *expect != Expect::Whatever)
        .map(|(key, expect)| (key.clone(), expect))
        .collect();
    let compare = expectations.iter().filter_map(|(key, expect)| compare(key, *expect)).collect();
    let success = batch.writes.iter().map(|write| {
        let key = bytes(&write.key);
        RequestOp {
            request: Some(match &write.change {
                Change::Put { value, lease } => Request::RequestPut(PutRequest {
                    key,
                    value: value.to_vec(),
                    lease: lease.map_or(0, |it| number(it.0)),
                }),
                Change::Delete => {
                    Request::RequestDeleteRange(DeleteRangeRequest { key, ..Default::default() })
                }
            }),
        }
    });
    let look = |key: &Key| RequestOp {
        request: Some(Request::RequestRange(RangeRequest {
            key: bytes(key),
            keys_only: true,
            ..Default::default()
        })),
    };
    let failure = expectations.iter().map(|(key, _)| look(key)).collect();
    (TxnRequest { compare, success: success.collect(), failure }, expectations)
}

fn compare(key: &Key, expect: Expect) -> Option<Compare> {
    let (result, target, value) = match expect {
        Expect::Absent => {
            (CompareResult::Equal, CompareTarget::Create, TargetUnion::CreateRevision(0))
        }
        Expect::Present => {
            (CompareResult::Greater, CompareTarget::Create, TargetUnion::CreateRevision(0))
        }
        Expect::At(at) => {
            let at = TargetUnion::ModRevision(number(at.0));
            (CompareResult::Equal, CompareTarget::Mod, at)
        }
        Expect::Whatever => return None,
    };
    Some(Compare {
        result: result.into(),
        target: target.into(),
        key: bytes(key),
        target_union: Some(value),
    })
}

/// The first expectation that did not hold.
pub(super) fn conflict(expectations: &[(Key, Expect)], answer: &TxnResponse) -> CommitError {
    let mut last = None;
    for ((key, expected), looked) in expectations.iter().zip(&answer.responses) {
        let actual = match &looked.response {
            Some(Response::ResponseRange(range)) => range.kvs.first(),
            _ => None,
        };
        let actual = actual.map(|it| Revision(it.mod_revision.cast_unsigned()));
        let holds = match expected {
            Expect::Absent => actual.is_none(),
            Expect::Present => actual.is_some(),
            Expect::At(at) => actual == Some(*at),
            Expect::Whatever => true,
        };
        let conflict = CommitError::Conflict { key: key.clone(), expected: *expected, actual };
        if !holds {
            return conflict;
        }
        last = Some(conflict);
    }
    last.expect("a transaction without comparisons succeeds")
}

/// `None`: nothing lies in it.
pub(super) fn range(range: &KeyRange, after: Option<&Key>) -> Option<RangeRequest> {
    let mut from = bytes(&range.from);
    if let Some(after) = after {
        let behind = [&bytes(after)[..], &[0]].concat();
        from = from.max(behind);
    }
    if from.is_empty() {
        // No key is empty: the first possible one.
        from = vec![0];
    }
    let to = bytes(&range.to);
    (from < to).then(|| RangeRequest { key: from, range_end: to, ..Default::default() })
}

fn key(key: Vec<u8>) -> Result<Key, Failed> {
    let text = String::from_utf8(key);
    text.map(Key::from).map_err(|it| Failed::Strange(format!("a key is no text: {it}")))
}

pub(super) fn entry(pair: KeyValue) -> Result<Entry, Failed> {
    Ok(Entry {
        key: key(pair.key)?,
        value: Bytes::from(pair.value),
        created: Revision(pair.create_revision.cast_unsigned()),
        modified: Revision(pair.mod_revision.cast_unsigned()),
        version: pair.version.cast_unsigned(),
        lease: Some(LeaseId(pair.lease.cast_unsigned())).filter(|it| it.0 != 0),
    })
}

pub(super) fn record(event: Event) -> Result<Record, Failed> {
    let deletes = event.r#type() == EventType::Delete;
    let pair = event.kv.ok_or_else(|| Failed::Strange("an event has no key".to_owned()))?;
    let revision = Revision(pair.mod_revision.cast_unsigned());
    let created = Revision(pair.create_revision.cast_unsigned());
    let change = match deletes {
        true => Recorded::Delete,
        false => Recorded::Put { value: Bytes::from(pair.value), created },
    };
    // Somebody else's key may be anything, and what follows it must be told all the same: none of ours is like it.
    let key = Key::from(&*String::from_utf8_lossy(&pair.key));
    Ok(Record { revision, key, change })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_no_text_does_not_stop_a_watch() {
        let pair = KeyValue { key: b"other/\xff".to_vec(), mod_revision: 7, ..Default::default() };
        let event = Event { kv: Some(pair), ..Default::default() };
        let told = record(event).unwrap();
        assert_eq!((told.revision, told.key.as_str()), (Revision(7), "other/\u{fffd}"));
    }
}
