//! The promises that every backend is run against. None of them knows whose store it tests.
//!
//! Each function takes a fresh, empty store and panics with the promise that was broken. Revisions are counted from the one
//! that the empty store has: etcd begins with 1.

use crate::{
    Batch, Change, CommitError, Expect, Key, KeyRange, LeaseError, OPERATIONS_MAX, ReadError,
    Record, Recorded, Revision, Store, VALUE_BYTES_MAX, Watch, Write,
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use stdx::BoxFuture;

type Promise = fn(Arc<dyn Store>) -> BoxFuture<'static, ()>;

/// Every promise, by name.
pub const PROMISES: &[(&str, Promise)] = &[
    ("a_batch_is_one_revision", |s| Box::pin(a_batch_is_one_revision(s))),
    ("a_conflict_writes_nothing", |s| Box::pin(a_conflict_writes_nothing(s))),
    ("a_deletion_forgets_and_a_return_starts_over", |s| {
        Box::pin(a_deletion_forgets_and_a_return_starts_over(s))
    }),
    ("a_watch_tells_everything_once_in_order", |s| {
        Box::pin(a_watch_tells_everything_once_in_order(s))
    }),
    ("an_empty_store_is_at_its_beginning", |s| Box::pin(an_empty_store_is_at_its_beginning(s))),
    ("checks_are_judged_and_not_written", |s| Box::pin(checks_are_judged_and_not_written(s))),
    ("compaction_forgets_the_past_and_keeps_the_present", |s| {
        Box::pin(compaction_forgets_the_past_and_keeps_the_present(s))
    }),
    ("leases_take_their_keys_with_them", |s| Box::pin(leases_take_their_keys_with_them(s))),
    ("limits_are_refused_by_name", |s| Box::pin(limits_are_refused_by_name(s))),
    ("pages_join_up", |s| Box::pin(pages_join_up(s))),
    ("racing_writers_lose_no_update", |s| Box::pin(racing_writers_lose_no_update(s))),
    ("the_past_stays_as_it_was", |s| Box::pin(the_past_stays_as_it_was(s))),
];

/// Runs every promise against a store of its own. Needs a runtime of several threads for the
/// races to be real.
pub async fn run(make: impl Fn() -> Arc<dyn Store>) {
    for (name, promise) in PROMISES {
        println!("promise: {name}");
        promise(make()).await;
    }
}

async fn an_empty_store_is_at_its_beginning(store: Arc<dyn Store>) {
    let base = store.latest().await.unwrap();
    assert!(base <= Revision(1), "an empty store is at {base}");
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.revision(), base);
    assert_eq!(snapshot.count(&KeyRange::all()).unwrap(), 0);
    assert!(snapshot.get(&Key::from("/a")).unwrap().is_none());
    let future = store.snapshot_at(base.next()).await.err();
    assert!(matches!(future, Some(ReadError::Future { latest }) if latest == base), "{future:?}");
    let future = store.watch(KeyRange::all(), base.next()).err();
    assert!(matches!(future, Some(ReadError::Future { .. })), "{future:?}");
}

async fn a_batch_is_one_revision(store: Arc<dyn Store>) {
    let base = store.latest().await.unwrap();
    let mut watch = store.watch(KeyRange::all(), base).unwrap();
    let both = Batch::new().put("/pv/a", Expect::Absent, "1").put("/pvc/a", Expect::Absent, "2");
    assert_eq!(store.commit(both).await.unwrap(), later(base, 1));
    let snapshot = store.snapshot().await.unwrap();
    for key in ["/pv/a", "/pvc/a"] {
        let entry = snapshot.get(&Key::from(key)).unwrap().expect("it was put");
        assert_eq!(
            (entry.created, entry.modified, entry.version),
            (later(base, 1), later(base, 1), 1)
        );
    }
    let records = watch.next().await.unwrap();
    assert_eq!(records.len(), 2, "all records of a revision come together");
    assert!(records.iter().all(|record| record.revision == later(base, 1)));
}

async fn a_conflict_writes_nothing(store: Arc<dyn Store>) {
    let base = store.latest().await.unwrap();
    let first = put(&store, "/a", "1").await;
    let mixed = Batch::new().put("/b", Expect::Absent, "1").put("/a", Expect::Absent, "2");
    match store.commit(mixed).await {
        Err(CommitError::Conflict { key, expected, actual }) => {
            assert_eq!((key.as_str(), expected, actual), ("/a", Expect::Absent, Some(first)));
        }
        other => panic!("expected a conflict: {other:?}"),
    }
    for expect in [Expect::At(later(base, 7)), Expect::Present] {
        let refused = store.commit(Batch::new().put("/b", expect, "1")).await;
        assert!(matches!(refused, Err(CommitError::Conflict { actual: None, .. })), "{refused:?}");
    }
    let second = store.commit(Batch::new().put("/a", Expect::At(first), "2")).await.unwrap();
    assert_eq!(second, later(base, 2), "refused batches take no revision");
    let stale = store.commit(Batch::new().delete("/a", Expect::At(first))).await;
    assert!(matches!(stale, Err(CommitError::Conflict { actual: Some(r), .. }) if r == second));
    let snapshot = store.snapshot().await.unwrap();
    assert!(snapshot.get(&Key::from("/b")).unwrap().is_none(), "half a batch was written");
}

async fn a_deletion_forgets_and_a_return_starts_over(store: Arc<dyn Store>) {
    let base = store.latest().await.unwrap();
    put(&store, "/a", "1").await;
    put(&store, "/a", "2").await;
    let entry = store.snapshot().await.unwrap().get(&Key::from("/a")).unwrap().unwrap();
    assert_eq!((entry.created, entry.modified, entry.version), (later(base, 1), later(base, 2), 2));
    store.commit(Batch::new().delete("/a", Expect::Present)).await.unwrap();
    assert!(store.snapshot().await.unwrap().get(&Key::from("/a")).unwrap().is_none());
    let nothing = store.commit(Batch::new().delete("/a", Expect::Whatever)).await.unwrap();
    assert_eq!(nothing, later(base, 3), "deleting nothing takes no revision");
    let back = store.commit(Batch::new().put("/a", Expect::Absent, "3")).await.unwrap();
    let entry = store.snapshot().await.unwrap().get(&Key::from("/a")).unwrap().unwrap();
    assert_eq!((entry.created, entry.modified, entry.version), (back, back, 1));
    assert_eq!(store.figures().live_keys, 1);
}

async fn checks_are_judged_and_not_written(store: Arc<dyn Store>) {
    let base = store.latest().await.unwrap();
    let epoch = put(&store, "/epoch", "leader-1").await;
    let led = Batch::new().check("/epoch", Expect::At(epoch)).put("/x", Expect::Whatever, "1");
    store.commit(led.clone()).await.unwrap();
    let entry = store.snapshot().await.unwrap().get(&Key::from("/epoch")).unwrap().unwrap();
    assert_eq!(entry.modified, epoch, "a check does not modify");
    put(&store, "/epoch", "leader-2").await;
    let late = store.commit(led).await;
    assert!(matches!(late, Err(CommitError::Conflict { .. })), "an old leader: {late:?}");
    let only = Batch::new().check("/x", Expect::Present).check("/y", Expect::Absent);
    assert_eq!(store.commit(only).await.unwrap(), later(base, 3), "checks alone take no revision");
}

async fn the_past_stays_as_it_was(store: Arc<dyn Store>) {
    let base = store.latest().await.unwrap();
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    let mut past = vec![model.clone()];
    for step in 0..40u32 {
        let key = format!("/k/{}", step * 7 % 5);
        let batch = if step % 4 == 3 && model.remove(&key).is_some() {
            Batch::new().delete(key, Expect::Present)
        } else {
            model.insert(key.clone(), step.to_string());
            Batch::new().put(key, Expect::Whatever, step.to_string())
        };
        store.commit(batch).await.unwrap();
        past.push(model.clone());
    }
    for (revision, model) in past.iter().enumerate() {
        let snapshot = store.snapshot_at(later(base, revision as u64)).await.unwrap();
        let page = snapshot.range(&KeyRange::all(), usize::MAX, None).unwrap();
        let found: BTreeMap<String, String> =
            page.entries.iter().map(|e| (e.key.to_string(), text(&e.value))).collect();
        assert_eq!(&found, model, "at revision {revision}");
        assert_eq!(snapshot.count(&KeyRange::all()).unwrap(), model.len() as u64);
    }
}

async fn pages_join_up(store: Arc<dyn Store>) {
    for number in 0..25 {
        put(&store, &format!("/pods/{number:02}"), "x").await;
    }
    put(&store, "/pod", "before").await;
    put(&store, "/pods0", "behind").await;
    let range = KeyRange::prefix("/pods/");
    let snapshot = store.snapshot().await.unwrap();
    store.commit(Batch::new().delete("/pods/11", Expect::Present)).await.unwrap();
    let (mut keys, mut after): (Vec<Key>, Option<Key>) = (Vec::new(), None);
    loop {
        let page = snapshot.range(&range, 10, after.as_ref()).unwrap();
        keys.extend(page.entries.iter().map(|entry| entry.key.clone()));
        after = keys.last().cloned();
        assert_eq!(page.more, keys.len() < 25, "after {} keys", keys.len());
        if !page.more {
            break;
        }
    }
    let expected: Vec<Key> = (0..25).map(|n| Key::from(format!("/pods/{n:02}"))).collect();
    assert_eq!(keys, expected, "later changes do not show in the pages");
    assert_eq!(snapshot.count(&range).unwrap(), 25);
    assert_eq!(store.snapshot().await.unwrap().count(&range).unwrap(), 24);
    assert!(snapshot.range(&KeyRange::new("/z", "/a"), 10, None).unwrap().entries.is_empty());
}

async fn a_watch_tells_everything_once_in_order(store: Arc<dyn Store>) {
    let base = store.latest().await.unwrap();
    let mut live = store.watch(KeyRange::prefix("/a/"), base).unwrap();
    let mut expected = Vec::new();
    for step in 0..30u32 {
        let key = format!("/{}/{}", if step % 3 == 0 { "b" } else { "a" }, step % 4);
        let revision = put(&store, &key, &step.to_string()).await;
        if key.starts_with("/a/") {
            expected.push((revision, key, Some(step.to_string())));
        }
    }
    let gone = store.commit(Batch::new().delete("/a/1", Expect::Present)).await.unwrap();
    expected.push((gone, "/a/1".to_owned(), None));
    assert_eq!(told(live.as_mut(), expected.len()).await, expected);

    for start in [0, 7, 30] {
        let rest: Vec<_> =
            expected.iter().filter(|(r, ..)| *r > later(base, start)).cloned().collect();
        let mut watch = store.watch(KeyRange::prefix("/a/"), later(base, start)).unwrap();
        assert_eq!(told(watch.as_mut(), rest.len()).await, rest, "resumed after {start}");
    }
    let latest = store.latest().await.unwrap();
    let mut watch = store.watch(KeyRange::all(), latest).unwrap();
    let next = tokio::spawn(async move { watch.next().await });
    let revision = put(&store, "/c", "woken").await;
    let records = next.await.unwrap().unwrap();
    assert_eq!(records[0].revision, revision, "a waiting watch wakes");
}

async fn compaction_forgets_the_past_and_keeps_the_present(store: Arc<dyn Store>) {
    let base = store.latest().await.unwrap();
    for step in 0..10u32 {
        put(&store, &format!("/k/{}", step % 2), &step.to_string()).await;
    }
    store.commit(Batch::new().delete("/k/0", Expect::Present)).await.unwrap();
    let held = store.snapshot_at(later(base, 3)).await.unwrap();
    let future = store.compact(later(base, 12)).await;
    assert!(
        matches!(future, Err(ReadError::Future { latest }) if latest == later(base, 11)),
        "{future:?}"
    );
    store.compact(later(base, 6)).await.unwrap();
    store.compact(later(base, 4)).await.unwrap();
    assert_eq!(store.figures().oldest, later(base, 6), "compacting less changes nothing");

    for refused in [
        store.snapshot_at(later(base, 5)).await.err(),
        held.get(&Key::from("/k/0")).err(),
        store.watch(KeyRange::all(), later(base, 4)).err(),
    ] {
        let at =
            matches!(refused, Some(ReadError::Compacted { oldest }) if oldest == later(base, 6));
        assert!(at, "{refused:?}");
    }
    let old = store.snapshot_at(later(base, 6)).await.unwrap();
    let values: Vec<String> = old
        .range(&KeyRange::all(), 9, None)
        .unwrap()
        .entries
        .iter()
        .map(|entry| text(&entry.value))
        .collect();
    assert_eq!(values, ["4", "5"]);
    let mut watch = store.watch(KeyRange::all(), later(base, 5)).unwrap();
    assert_eq!(told(watch.as_mut(), 6).await[0].2.as_deref(), Some("5"));

    store.compact(later(base, 11)).await.unwrap();
    let mut watch = store.watch(KeyRange::all(), later(base, 10)).unwrap();
    let last = told(watch.as_mut(), 1).await;
    assert_eq!(last, [(later(base, 11), "/k/0".to_owned(), None)], "the deletion is still told");
    let now = store.snapshot().await.unwrap();
    assert_eq!(now.count(&KeyRange::all()).unwrap(), 1);
    let entry = now.get(&Key::from("/k/1")).unwrap().unwrap();
    assert_eq!(
        (entry.created, entry.modified, entry.version),
        (later(base, 2), later(base, 10), 5)
    );
}

async fn leases_take_their_keys_with_them(store: Arc<dyn Store>) {
    let long = Duration::from_secs(3600);
    let (lease, other) = (store.grant(long).await.unwrap(), store.grant(long).await.unwrap());
    assert_ne!(lease, other);
    for key in ["/l/1", "/l/2", "/l/3"] {
        let change = Change::Put { value: Bytes::from("x"), lease: Some(lease) };
        let write = Write { key: Key::from(key), expect: Expect::Absent, change };
        store.commit(Batch { checks: vec![], writes: vec![write] }).await.unwrap();
    }
    put(&store, "/l/2", "kept: put without the lease").await;
    let before = store.latest().await.unwrap();
    store.keep_alive(lease).await.unwrap();
    store.revoke(lease).await.unwrap();
    let mut watch = store.watch(KeyRange::all(), before).unwrap();
    let expected =
        [(before.next(), "/l/1".to_owned(), None), (before.next().next(), "/l/3".to_owned(), None)];
    assert_eq!(told(watch.as_mut(), 2).await, expected, "each at its own revision");
    let left = store.snapshot().await.unwrap();
    assert_eq!(left.count(&KeyRange::all()).unwrap(), 1);

    assert!(matches!(store.keep_alive(lease).await, Err(LeaseError::Gone { .. })));
    assert!(matches!(store.revoke(lease).await, Err(LeaseError::Gone { .. })));
    let change = Change::Put { value: Bytes::from("x"), lease: Some(lease) };
    let write = Write { key: Key::from("/l/4"), expect: Expect::Absent, change };
    let refused = store.commit(Batch { checks: vec![], writes: vec![write] }).await;
    assert!(matches!(refused, Err(CommitError::NoLease { .. })), "{refused:?}");

    let short = store.grant(Duration::ZERO).await.unwrap();
    let mut watch = store.watch(KeyRange::all(), store.latest().await.unwrap()).unwrap();
    let change = Change::Put { value: Bytes::from("x"), lease: Some(short) };
    let write = Write { key: Key::from("/l/5"), expect: Expect::Absent, change };
    // The lease may end before the key comes, which is refused, or after, which deletes the key.
    if store.commit(Batch { checks: vec![], writes: vec![write] }).await.is_ok() {
        let both = told(watch.as_mut(), 2).await;
        assert_eq!(both[1].2, None, "it ends by itself");
    }
}

async fn limits_are_refused_by_name(store: Arc<dyn Store>) {
    let base = store.latest().await.unwrap();
    let mut many = Batch::new();
    for number in 0..=OPERATIONS_MAX {
        many = many.put(format!("/k/{number}"), Expect::Whatever, "x");
    }
    let refused = store.commit(many.clone()).await.expect_err("one too many").to_string();
    assert_eq!(refused, "operations in one batch: 129, at most 128");
    many.writes.pop();
    assert_eq!(store.commit(many).await.unwrap(), later(base, 1));

    let large = vec![7u8; VALUE_BYTES_MAX + 1];
    let refused = store.commit(Batch::new().put("/large", Expect::Whatever, large.clone())).await;
    assert!(matches!(refused, Err(CommitError::TooLarge { .. })), "{refused:?}");
    let largest = Bytes::from(large).slice(1..);
    let batch = (0..4).fold(Batch::new(), |batch, number| {
        batch.put(format!("/large/{number}"), Expect::Absent, largest.clone())
    });
    store.commit(batch).await.unwrap();
    let entry = store.snapshot().await.unwrap().get(&Key::from("/large/3")).unwrap().unwrap();
    assert_eq!(entry.value, largest);

    let twice = Batch::new().check("/k/1", Expect::Present).delete("/k/1", Expect::Present);
    for malformed in [
        twice,
        Batch::new().put("", Expect::Whatever, "x"),
        Batch::new().put("/a\0b", Expect::Whatever, "x"),
    ] {
        let refused = store.commit(malformed).await;
        assert!(matches!(refused, Err(CommitError::Malformed { .. })), "{refused:?}");
    }
    assert_eq!(store.latest().await.unwrap(), later(base, 2));
}

async fn racing_writers_lose_no_update(store: Arc<dyn Store>) {
    let base = store.latest().await.unwrap();
    const WRITERS: usize = 8;
    const INCREMENTS: u64 = 25;
    put(&store, "/counter", "0").await;
    let mut watch = store.watch(KeyRange::all(), later(base, 1)).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut done = 0;
                while done < INCREMENTS {
                    let snapshot = store.snapshot().await.unwrap();
                    let entry = snapshot.get(&Key::from("/counter")).unwrap().unwrap();
                    let next = text(&entry.value).parse::<u64>().unwrap() + 1;
                    let expect = Expect::At(entry.modified);
                    let batch = Batch::new().put("/counter", expect, next.to_string());
                    match store.commit(batch).await {
                        Ok(revision) => {
                            assert!(store.latest().await.unwrap() >= revision, "read your write");
                            done += 1;
                        }
                        Err(CommitError::Conflict { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let total = WRITERS as u64 * INCREMENTS;
    let entry = store.snapshot().await.unwrap().get(&Key::from("/counter")).unwrap().unwrap();
    assert_eq!(text(&entry.value), total.to_string());
    assert_eq!(entry.modified, later(base, total + 1));
    let told = told(watch.as_mut(), total as usize).await;
    for (index, (revision, _, value)) in told.iter().enumerate() {
        assert_eq!(*revision, later(base, index as u64 + 2), "no revision is skipped");
        assert_eq!(value.as_deref(), Some((index + 1).to_string().as_str()));
    }
}

/// The revision that comes so many commits after another.
fn later(base: Revision, commits: u64) -> Revision {
    Revision(base.0 + commits)
}

async fn put(store: &Arc<dyn Store>, key: &str, value: &str) -> Revision {
    let batch = Batch::new().put(key, Expect::Whatever, value.to_owned());
    store.commit(batch).await.expect("an unconditional put")
}

fn text(value: &Bytes) -> String {
    String::from_utf8(value.to_vec()).expect("these tests write text")
}

/// The next `count` records of a watch: revision, key, value unless deleted.
async fn told(watch: &mut dyn Watch, count: usize) -> Vec<(Revision, String, Option<String>)> {
    let mut told = Vec::new();
    while told.len() < count {
        let records = watch.next().await.expect("the watch goes on");
        assert!(!records.is_empty());
        told.extend(records.iter().map(|Record { revision, key, change }| {
            let value = match change {
                Recorded::Put { value, .. } => Some(text(value)),
                Recorded::Delete => None,
            };
            (*revision, key.to_string(), value)
        }));
    }
    told
}
