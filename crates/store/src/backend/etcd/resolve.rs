//! A commit whose answer was lost. Where it expects something that it changes itself, asking again does it once at
//! most; where that is refused, the history tells whether the first time was the reason. Otherwise it is unknown, and
//! that is what is said. docs/decisions/0009-etcd.md says what is left.

use super::{
    connection::{ANSWER, Connection},
    convert,
    failed::Failed,
    follow,
};
use crate::{Batch, Change, CommitError, Expect, Record, Recorded, Revision, Write};
use ::etcd::{TxnRequest, TxnResponse};
use std::time::{Duration, Instant};
use stdx::Backoff;

pub(super) enum Known {
    /// Of a second attempt, if the first one had no effect.
    Answer(TxnResponse),
    /// By the first attempt.
    Written(Revision),
}

/// `before`: a revision from before the first attempt.
pub(super) async fn what_came_of(
    connection: &Connection,
    request: TxnRequest,
    batch: &Batch,
    before: Revision,
    mut failed: Failed,
) -> Result<Result<Known, Failed>, CommitError> {
    let unknown = |failed: Failed| CommitError::Unknown(failed.of(connection.url()));
    if !batch.writes.iter().any(does_once) {
        return Err(unknown(failed));
    }
    let begun = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
    while begun.elapsed() < ANSWER {
        stdx::sleep(backoff.failed()).await;
        match connection.txn(request.clone()).await {
            Ok(answer) if answer.succeeded => return Ok(Ok(Known::Answer(answer))),
            Ok(answer) => {
                let now = convert::revision(answer.header.as_ref());
                return match trace(connection, batch, before, now).await {
                    Ok(Trace::Ours(revision)) => Ok(Ok(Known::Written(revision))),
                    Ok(Trace::None) => Ok(Ok(Known::Answer(answer))),
                    Ok(Trace::Anyones) => Err(unknown(failed)),
                    Err(other) => Err(unknown(other)),
                };
            }
            Err(again) if again.is_of_member() => failed = again,
            Err(other) => return Err(unknown(other)),
        }
    }
    Err(unknown(failed))
}

/// Whether the write makes its own expectation untrue.
fn does_once(write: &Write) -> bool {
    match (&write.change, write.expect) {
        (Change::Put { .. }, Expect::Absent | Expect::At(_)) => true,
        (Change::Delete, Expect::Present | Expect::At(_)) => true,
        (Change::Put { .. }, Expect::Present | Expect::Whatever) => false,
        (Change::Delete, Expect::Absent | Expect::Whatever) => false,
    }
}

enum Trace {
    Ours(Revision),
    /// Nothing like it was written.
    None,
    /// The keys were deleted, and a deletion does not say by whom.
    Anyones,
}

/// Looks for the batch in what was written since.
async fn trace(
    connection: &Connection,
    batch: &Batch,
    mut before: Revision,
    upto: Revision,
) -> Result<Trace, Failed> {
    while before < upto {
        let records = follow::catch_up(connection, before, upto).await?;
        for written in records.chunk_by(|one, other| one.revision == other.revision) {
            let (Some(first), Some(trace)) = (written.first(), compare(batch, written)) else {
                continue;
            };
            return Ok(match trace {
                true => Trace::Ours(first.revision),
                false => Trace::Anyones,
            });
        }
        before = records.last().map_or(upto, |it| it.revision);
    }
    Ok(Trace::None)
}

/// `None`: another batch wrote this. Whether values of ours tell that it was this one: they carry uids and times, so
/// nobody else writes the same.
fn compare(batch: &Batch, written: &[Record]) -> Option<bool> {
    let mut tells = false;
    for write in batch.writes.iter().filter(|it| does_once(it)) {
        let record = written.iter().find(|it| it.key == write.key)?;
        match (&write.change, &record.change) {
            (Change::Put { value, .. }, Recorded::Put { value: there, .. }) if value == there => {
                tells = true;
            }
            (Change::Delete, Recorded::Delete) => {}
            _ => return None,
        }
    }
    Some(tells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn record(key: &str, value: Option<&str>) -> Record {
        let change = match value {
            Some(value) => Recorded::Put { value: value.to_owned().into(), created: Revision(1) },
            None => Recorded::Delete,
        };
        Record { revision: Revision(7), key: Key::from(key), change }
    }

    #[test]
    fn a_batch_is_known_by_its_values_and_a_deletion_by_nothing() {
        let put = Batch::new().put("/a", Expect::Absent, "1").delete("/b", Expect::At(Revision(3)));
        let both = [record("/a", Some("1")), record("/b", None)];
        assert_eq!(compare(&put, &both), Some(true));
        assert_eq!(compare(&put, &both[..1]), None, "half of it is another one's");
        assert_eq!(compare(&put, &[record("/a", Some("2")), record("/b", None)]), None);
        let gone = Batch::new().delete("/b", Expect::Present);
        assert_eq!(compare(&gone, &[record("/b", None)]), Some(false));
    }

    #[test]
    fn only_what_changes_its_own_expectation_is_asked_again() {
        let once = |batch: Batch| batch.writes.iter().any(does_once);
        assert!(once(Batch::new().put("/a", Expect::Absent, "1")));
        assert!(once(Batch::new().delete("/a", Expect::Present)));
        assert!(!once(Batch::new().put("/a", Expect::Present, "1")));
        assert!(!once(Batch::new().put("/a", Expect::Whatever, "1")));
        assert!(!once(Batch::new().delete("/a", Expect::Whatever)));
    }
}
