//! Random histories against a map: whatever is asked in whatever order, both backends answer as
//! the model does, now and for every revision that is still readable.

use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, sync::Arc};
use stdx::SystemClock;
use store::{
    Batch, CommitError, Expect, Key, KeyRange, ReadError, Recorded, Revision, Store,
    backend::{self, Memory},
};

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, Operation, Wish)>),
    Compact { back: u64 },
    Reopen,
}

#[derive(Clone, Debug)]
enum Operation {
    Put(u8),
    Delete,
    Check,
}

/// An expectation in terms of the model: mostly one that holds.
#[derive(Clone, Debug)]
enum Wish {
    True,
    Whatever,
    Absent,
    Present,
    At(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let operation = prop_oneof![
        4 => any::<u8>().prop_map(Operation::Put),
        2 => Just(Operation::Delete),
        1 => Just(Operation::Check),
    ];
    let wish = prop_oneof![
        5 => Just(Wish::True),
        3 => Just(Wish::Whatever),
        1 => Just(Wish::Absent),
        1 => Just(Wish::Present),
        1 => (0u64..30).prop_map(Wish::At),
    ];
    let commit = vec((0u8..6, operation, wish), 1..4).prop_map(Step::Commit);
    let step = prop_oneof![
        20 => commit,
        1 => (0u64..6).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Reopen),
    ];
    vec(step, 1..50)
}

/// Value, created, modified, version.
type Row = (u8, u64, u64, u64);
type Told = (u64, String, Option<(u8, u64)>);

#[derive(Clone, Default)]
struct Model {
    past: Vec<BTreeMap<String, Row>>,
    records: Vec<Told>,
    oldest: u64,
}

impl Model {
    fn new() -> Model {
        Model { past: vec![BTreeMap::new()], ..Model::default() }
    }

    fn latest(&self) -> u64 {
        self.past.len() as u64 - 1
    }

    /// The batch in the store's words, and what the model answers: `None` for a conflict.
    fn commit(&mut self, operations: &[(u8, Operation, Wish)]) -> (Batch, Option<u64>) {
        let now = self.past.last().unwrap().clone();
        let (mut next, mut records, mut holds) = (now.clone(), Vec::new(), true);
        let revision = self.latest() + 1;
        let mut batch = Batch::new();
        let mut named = Vec::new();
        for (key, operation, wish) in operations {
            if named.contains(key) {
                continue;
            }
            named.push(*key);
            let key = format!("/{}/{}", key % 2, key);
            let row = now.get(&key).copied();
            let expect = match wish {
                Wish::True => row.map_or(Expect::Absent, |row| Expect::At(Revision(row.2))),
                Wish::Whatever => Expect::Whatever,
                Wish::Absent => Expect::Absent,
                Wish::Present => Expect::Present,
                Wish::At(revision) => Expect::At(Revision(*revision)),
            };
            holds &= match expect {
                Expect::Absent => row.is_none(),
                Expect::Present => row.is_some(),
                Expect::At(revision) => row.is_some_and(|row| row.2 == revision.0),
                Expect::Whatever => true,
            };
            batch = match operation {
                Operation::Put(value) => {
                    let (created, version) = row.map_or((revision, 1), |row| (row.1, row.3 + 1));
                    next.insert(key.clone(), (*value, created, revision, version));
                    records.push((revision, key.clone(), Some((*value, created))));
                    batch.put(key, expect, vec![*value; usize::from(*value)])
                }
                Operation::Delete => {
                    if next.remove(&key).is_some() {
                        records.push((revision, key.clone(), None));
                    }
                    batch.delete(key, expect)
                }
                Operation::Check => batch.check(key, expect),
            };
        }
        if !holds {
            return (batch, None);
        }
        if !records.is_empty() {
            self.past.push(next);
            self.records.extend(records);
        }
        (batch, Some(self.latest()))
    }
}

async fn agree(
    steps: Vec<Step>,
    mut store: Arc<dyn Store>,
    reopen: Option<&dyn Fn() -> Arc<dyn Store>>,
) {
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Commit(operations) => {
                let (batch, expected) = model.commit(&operations);
                match (store.commit(batch).await, expected) {
                    (Ok(revision), Some(expected)) => assert_eq!(revision.0, expected),
                    (Err(CommitError::Conflict { .. }), None) => {}
                    (answer, expected) => panic!("{answer:?}, expected {expected:?}"),
                }
            }
            Step::Compact { back } => {
                let before = model.latest().saturating_sub(back);
                store.compact(Revision(before)).await.unwrap();
                model.oldest = model.oldest.max(before);
            }
            Step::Reopen => {
                if let Some(reopen) = reopen {
                    drop(store);
                    store = reopen();
                }
            }
        }
    }
    assert_eq!(store.latest().await.unwrap().0, model.latest());
    past_agrees(&model, &*store).await;
    watches_agree(&model, &*store).await;
}

async fn past_agrees(model: &Model, store: &dyn Store) {
    for (at, expected) in model.past.iter().enumerate() {
        let at = at as u64;
        let snapshot = match store.snapshot_at(Revision(at)).await {
            Err(ReadError::Compacted { oldest }) => {
                assert!(at < model.oldest && oldest.0 == model.oldest, "{at}, oldest {oldest}");
                continue;
            }
            snapshot => snapshot.unwrap(),
        };
        assert!(at >= model.oldest);
        let mut found: BTreeMap<String, Row> = BTreeMap::new();
        let mut after: Option<Key> = None;
        loop {
            let page = snapshot.range(&KeyRange::all(), 2, after.as_ref()).unwrap();
            for entry in page.entries {
                let value = entry.value.first().copied().unwrap_or_default();
                assert_eq!(entry.value.len(), usize::from(value));
                let row = (value, entry.created.0, entry.modified.0, entry.version);
                let one = snapshot.get(&entry.key).unwrap().expect("get agrees with range");
                assert_eq!((one.modified, one.version), (entry.modified, entry.version));
                after = Some(entry.key.clone());
                found.insert(entry.key.to_string(), row);
            }
            if !page.more {
                break;
            }
        }
        assert_eq!(&found, expected, "at revision {at}");
        let some = expected.keys().filter(|key| key.starts_with("/1/")).count() as u64;
        assert_eq!(snapshot.count(&KeyRange::prefix("/1/")).unwrap(), some);
    }
}

async fn watches_agree(model: &Model, store: &dyn Store) {
    for (range, prefix) in [(KeyRange::all(), "/"), (KeyRange::prefix("/1/"), "/1/")] {
        for after in model.oldest.saturating_sub(1)..=model.latest() {
            let expected = model.records.iter();
            let expected = expected.filter(|(at, key, _)| *at > after && key.starts_with(prefix));
            let mut expected: Vec<Told> = expected.cloned().collect();
            let mut watch = store.watch(range.clone(), Revision(after)).unwrap();
            let mut told: Vec<Told> = Vec::new();
            while told.len() < expected.len() {
                let records = watch.next().await.unwrap();
                told.extend(records.iter().map(|record| {
                    let value = match &record.change {
                        Recorded::Put { value, created } => {
                            Some((value.first().copied().unwrap_or_default(), created.0))
                        }
                        Recorded::Delete => None,
                    };
                    (record.revision.0, record.key.to_string(), value)
                }));
            }
            // Within one revision the order is the batch's own.
            told.sort();
            expected.sort();
            assert_eq!(told, expected, "after {after}");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_answers_as_the_model(steps in steps()) {
        runtime().block_on(agree(steps, Arc::new(Memory::new(Arc::new(SystemClock))), None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn embedded_answers_as_the_model(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let open = || backend::open("embedded", &backend::EtcdTls::default(), dir.path(), Arc::new(SystemClock)).unwrap();
        runtime().block_on(agree(steps, open(), Some(&open)));
    }
}
