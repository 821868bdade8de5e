//! What only the embedded store promises, in real directories: who may open it, what it takes on
//! the disk, and what a restart keeps.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use stdx::{Clock, SystemClock, Timestamp};
use store::{
    Batch, Change, Expect, HISTORY_AGE, Key, KeyRange, LeaseError, ReadError, Record, Recorded,
    Revision, Store, StoreError, Write, backend, conformance,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_keeps_every_promise() {
    let directories = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    conformance::run(|| {
        count.set(count.get() + 1);
        open(&directories.path().join(count.get().to_string())).unwrap()
    })
    .await;
}

fn open(dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
    backend::open("embedded", &backend::EtcdTls::default(), dir, Arc::new(SystemClock))
}

async fn put(store: &Arc<dyn Store>, key: &str, value: impl Into<Vec<u8>>) -> Revision {
    store.commit(Batch::new().put(key, Expect::Whatever, value.into())).await.unwrap()
}

/// A clock that stands still until it is moved.
#[derive(Default)]
struct Hands(AtomicI64);

impl Hands {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[test]
fn an_unknown_store_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let refused =
        backend::open("consul://127.0.0.1:8500", &backend::EtcdTls::default(), dir.path(), clock)
            .err()
            .unwrap();
    let why = "embedded, etcd://HOST:PORT or etcds://HOST:PORT";
    assert_eq!(refused.to_string(), format!("store \"consul://127.0.0.1:8500\": {why}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_opener_fails_at_once_and_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let refused = open(dir.path()).err().unwrap();
    let text = refused.to_string();
    assert!(text.ends_with(&format!("is in use by process {}", std::process::id())), "{text}");
    drop(first);
    open(dir.path()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_history_and_leases_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hands::default());
    let open = || {
        let clock: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        backend::open("embedded", &backend::EtcdTls::default(), dir.path(), clock).unwrap()
    };
    let store = open();
    put(&store, "/a", "1").await;
    put(&store, "/a", "2").await;
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    let change = Change::Put { value: "x".into(), lease: Some(lease) };
    let write = Write { key: Key::from("/leased"), expect: Expect::Absent, change };
    store.commit(Batch { checks: vec![], writes: vec![write] }).await.unwrap();
    clock.advance(Duration::from_secs(50));
    drop(store);

    let store = open();
    assert_eq!(store.latest().await.unwrap(), Revision(3));
    let old = store.snapshot_at(Revision(1)).await.unwrap();
    assert_eq!(old.get(&Key::from("/a")).unwrap().unwrap().value, "1");
    let mut watch = store.watch(KeyRange::all(), Revision(1)).unwrap();
    assert_eq!(watch.next().await.unwrap().len(), 2, "what was written before the restart");

    // A restart gives a lease its whole time again.
    clock.advance(Duration::from_secs(50));
    store.keep_alive(lease).await.unwrap();
    clock.advance(Duration::from_secs(61));
    put(&store, "/wakes-the-writer", "").await;
    let mut deleted = None;
    while deleted.is_none() {
        let records = watch.next().await.unwrap();
        deleted = records.iter().find(|record| record.key == Key::from("/leased")).cloned();
    }
    let Some(Record { change, .. }) = deleted else { unreachable!() };
    assert_eq!(change, Recorded::Delete);
    let again = store.grant(Duration::from_secs(60)).await.unwrap();
    assert!(again > lease, "lease ids are not given out twice");
    assert!(matches!(store.keep_alive(lease).await, Err(LeaseError::Gone { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_falls_far_behind_reads_on_from_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let mut watch = store.watch(KeyRange::prefix("/slow/"), Revision::ZERO).unwrap();
    // More than the ring in memory holds.
    for number in 0..60u64 {
        put(&store, &format!("/slow/{}", number % 3), vec![7; 200_000]).await;
    }
    let mut next = 1;
    while next <= 60 {
        for record in watch.next().await.unwrap().iter() {
            assert_eq!(record.revision.0, next, "no gap");
            next += 1;
        }
    }
    let mut late = store.watch(KeyRange::all(), Revision(5)).unwrap();
    store.compact(Revision(40)).await.unwrap();
    let refused = late.next().await;
    assert!(matches!(refused, Err(ReadError::Compacted { oldest: Revision(40) })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_forgotten_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hands::default());
    let store = backend::open(
        "embedded",
        &backend::EtcdTls::default(),
        dir.path(),
        Arc::clone(&clock) as Arc<dyn Clock>,
    )
    .unwrap();
    for number in 0..700u64 {
        put(&store, &format!("/k/{}", number % 7), number.to_string()).await;
    }
    clock.advance(HISTORY_AGE - Duration::from_secs(1));
    put(&store, "/k/0", "young enough").await;
    assert_eq!(store.figures().oldest, Revision::ZERO);
    clock.advance(Duration::from_secs(20));
    // Forgetting goes on behind commits, a step at a time.
    while store.figures().oldest < Revision(700) {
        put(&store, "/k/1", "wakes the writer").await;
    }
    assert!(store.snapshot_at(Revision(699)).await.is_err());
    assert_eq!(store.snapshot().await.unwrap().count(&KeyRange::all()).unwrap(), 7);
}

/// Written by a machine whose clock was a year ahead, and set right before the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_from_the_future_is_not_kept_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hands::default());
    let year = Duration::from_secs(365 * 24 * 3600);
    clock.advance(year);
    let open = |clock: &Arc<Hands>| {
        backend::open(
            "embedded",
            &backend::EtcdTls::default(),
            dir.path(),
            Arc::clone(clock) as Arc<dyn Clock>,
        )
        .unwrap()
    };
    let store = open(&clock);
    for number in 0..20u64 {
        put(&store, "/k", number.to_string()).await;
    }
    let lease = store.grant(HISTORY_AGE).await.unwrap();
    drop(store);
    let clock = Arc::new(Hands::default());
    clock.advance(Duration::from_secs(3600));
    let store = open(&clock);
    store.keep_alive(lease).await.expect("a restart gives a lease its whole time");
    clock.advance(Duration::from_secs(20));
    while store.figures().oldest < Revision(20) {
        put(&store, "/k", "wakes the writer").await;
    }
    clock.advance(HISTORY_AGE);
    put(&store, "/k", "wakes the writer").await;
    assert!(
        matches!(store.keep_alive(lease).await, Err(LeaseError::Gone { .. })),
        "it ends in time"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_stays_within_three_times_the_live_data() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hands::default());
    let store = backend::open(
        "embedded",
        &backend::EtcdTls::default(),
        dir.path(),
        Arc::clone(&clock) as Arc<dyn Clock>,
    )
    .unwrap();
    let churn = async |keys: u64, rounds: u64, bytes: usize| {
        for round in 0..rounds {
            for first in (0..keys).step_by(100) {
                let batch = (first..first + 100).fold(Batch::new(), |batch, number| {
                    let key = format!("/registry/configmaps/default/{}", number * 7919 % keys);
                    batch.put(key, Expect::Whatever, vec![round as u8; bytes])
                });
                store.commit(batch).await.unwrap();
            }
            store.compact(store.latest().await.unwrap()).await.unwrap();
            clock.advance(Duration::from_secs(61));
        }
    };
    // The log takes the same 4 MiB whatever the data.
    let ratio = |when: &str| {
        let figures = store.figures();
        let pages = figures.file_bytes - (4 << 20) - 4096;
        let ratio = pages as f64 / figures.live_bytes as f64;
        println!("{when}: {} live, {pages} in pages: {ratio:.2}", figures.live_bytes);
        ratio
    };
    churn(1000, 6, 9000).await;
    assert!(ratio("after churn") <= 3.0);

    // Most of it goes, and the file gives the space back.
    for first in (0..1000u64).step_by(100).skip(5) {
        let batch = (first..first + 100).fold(Batch::new(), |batch, number| {
            batch.delete(format!("/registry/configmaps/default/{number}"), Expect::Present)
        });
        store.commit(batch).await.unwrap();
    }
    store.compact(store.latest().await.unwrap()).await.unwrap();
    clock.advance(Duration::from_secs(61));
    put(&store, "/one-more", "x").await;
    store.compact(store.latest().await.unwrap()).await.unwrap();
    assert!(ratio("after deleting") <= 3.0);

    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.count(&KeyRange::all()).unwrap(), 501);
    drop(store);
    let again = open(dir.path()).unwrap();
    assert_eq!(again.snapshot().await.unwrap().count(&KeyRange::all()).unwrap(), 501);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_missing_file_is_named() {
    let origin = tempfile::tempdir().unwrap();
    let store = open(origin.path()).unwrap();
    for number in 0..200u64 {
        put(&store, &format!("/k/{number}"), vec![1; 2000]).await;
    }
    drop(store);
    type Damage = (&'static str, &'static str, fn(&Path));
    let damages: [Damage; 7] = [
        ("pages", "it does not begin as a ledger does", |path| flip(path, 3)),
        ("pages", "its header fails its checksum", |path| flip(path, 21)),
        ("pages", "", |path| flip_all(path)),
        ("pages", "", |path| truncate(path, 2)),
        ("log", "it has 2099200 bytes, 4198400 were written", |path| truncate(path, 2)),
        ("pages", "the file is gone", |path| fs::remove_file(path).unwrap()),
        ("log", "the file is gone", |path| fs::remove_file(path).unwrap()),
    ];
    for (file, detail, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("ledger")).unwrap();
        for name in ["pages", "log"] {
            fs::copy(origin.path().join("ledger").join(name), dir.path().join("ledger").join(name))
                .unwrap();
        }
        let path = dir.path().join("ledger").join(file);
        damage(&path);
        let text = match open(dir.path()) {
            Err(error) => error.to_string(),
            Ok(store) => {
                let snapshot = store.snapshot().await.unwrap();
                snapshot.range(&KeyRange::all(), usize::MAX, None).unwrap_err().to_string()
            }
        };
        assert!(text.starts_with(&format!("{} is corrupt: ", path.display())), "{text}");
        assert!(text.contains(detail), "{text}");
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// One bit in each page behind the headers.
fn flip_all(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    (3 * 4096 + 2048..bytes.len()).step_by(4096).for_each(|at| bytes[at] ^= 1);
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path, part: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / part).unwrap();
}
