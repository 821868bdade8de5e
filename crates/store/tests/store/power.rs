//! Power cuts: at whatever operation the power goes, and whatever the disk then makes of what was
//! not synced, every acknowledged commit is there, whole, and history goes on from there.

use crate::disk::{Chance, Disk, DiskFile};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use stdx::SystemClock;
use store::{
    Batch, Change, CommitError, Expect, Key, KeyRange, Revision, Store, StoreError, Write,
    backend::Embedded,
};

/// Cuts of one run of the test; each has a seed of its own.
const CUTS: u64 = 60;

fn open(disk: &Arc<Mutex<Disk>>) -> Result<Embedded, StoreError> {
    let (pages, log) = (DiskFile::of(disk, 0, "sim/pages"), DiskFile::of(disk, 1, "sim/log"));
    Embedded::on(pages, log, Arc::new(SystemClock))
}

fn create() -> Arc<Mutex<Disk>> {
    let disk = Disk::new(2);
    let (pages, log) = (DiskFile::of(&disk, 0, "sim/pages"), DiskFile::of(&disk, 1, "sim/log"));
    Embedded::create(pages, log).expect("an empty disk takes a ledger");
    disk
}

/// What was answered, and what was asked for and not answered.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<String, (Revision, Option<Vec<u8>>)>,
    latest: Revision,
    unknown: Option<Vec<(String, Option<Vec<u8>>)>>,
}

/// Commits until the power goes.
async fn write(store: &dyn Store, told: &mut Told, chance: &mut Chance, commits: u64) {
    for _ in 0..commits {
        let mut writes: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
        for _ in 0..=chance.below(3) {
            let key = format!("/k/{:02}", chance.below(40));
            // Some values fill the log quickly, so that checkpoints are cut too.
            let length =
                if chance.below(8) == 0 { chance.below(600_000) } else { chance.below(900) };
            let byte = chance.below(256) as u8;
            let value = (chance.below(4) > 0).then(|| vec![byte; length as usize]);
            writes.insert(key, value);
        }
        let write = |(key, value): (&String, &Option<Vec<u8>>)| {
            let change = match value {
                Some(value) => Change::Put { value: value.clone().into(), lease: None },
                None => Change::Delete,
            };
            Write { key: Key::from(key.as_str()), expect: Expect::Whatever, change }
        };
        let batch = Batch { checks: vec![], writes: writes.iter().map(write).collect() };
        match store.commit(batch).await {
            Ok(revision) => {
                let nothing = revision == told.latest;
                told.latest = revision;
                for (key, value) in writes.into_iter().filter(|_| !nothing) {
                    told.acknowledged.insert(key, (revision, value));
                }
            }
            Err(CommitError::Store(_)) => {
                told.unknown = Some(writes.into_iter().collect());
                return;
            }
            Err(other) => panic!("{other}"),
        }
        if chance.below(20) == 0 && told.latest > Revision(9) {
            // Compaction may fail with the power; it promises nothing then.
            let _cut = store.compact(Revision(told.latest.0 - chance.below(8))).await;
        }
    }
}

async fn verify(store: &dyn Store, told: &mut Told, context: &str) {
    let latest = store.latest().await.unwrap();
    assert!(latest >= told.latest, "{context}: {latest} is before {}", told.latest);
    assert!(latest <= told.latest.next(), "{context}: more was kept than was asked for");
    if latest > told.latest {
        let unknown = told.unknown.take().expect("something was not answered");
        for (key, value) in unknown {
            told.acknowledged.insert(key, (latest, value));
        }
        told.latest = latest;
    }
    told.unknown = None;
    let snapshot = store.snapshot().await.unwrap();
    for (key, (revision, value)) in &told.acknowledged {
        let found = snapshot.get(&Key::from(key.as_str())).unwrap();
        match value {
            Some(value) => {
                let found = found.unwrap_or_else(|| panic!("{context}: {key} is lost"));
                assert_eq!(found.modified, *revision, "{context}: {key}");
                assert!(found.value == value, "{context}: {key} has other bytes");
            }
            None => assert!(found.is_none(), "{context}: {key} is back"),
        }
    }
    let live = told.acknowledged.values().filter(|(_, value)| value.is_some()).count() as u64;
    assert_eq!(snapshot.count(&KeyRange::all()).unwrap(), live, "{context}");
    assert_eq!(store.figures().live_keys, live, "{context}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_acknowledged() {
    let seed = std::env::var("STORE_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("STORE_SEED={seed}");
    let mut chance = Chance::new(seed);
    let mut told = Told::default();
    let mut disk = create();
    for cut in 0..CUTS {
        let context = format!("seed {seed}, cut {cut}");
        // Some cuts fall into the start itself.
        let at = if chance.below(3) == 0 { chance.below(12) } else { chance.below(500) };
        disk.lock().unwrap().cut_after(at);
        match open(&disk) {
            Ok(store) => {
                verify(&store, &mut told, &context).await;
                write(&store, &mut told, &mut chance, 60).await;
            }
            Err(error) => {
                assert!(disk.lock().unwrap().is_cut(), "{context}: {}", stdx::one_line(&error));
            }
        }
        let survives = disk.lock().unwrap().survives(&mut chance);
        disk = Disk::holding(survives);
    }
    let store = open(&disk).unwrap();
    verify(&store, &mut told, &format!("seed {seed}, at the end")).await;
    assert!(told.latest > Revision(100), "the test did write: {}", told.latest);
}

/// The start after a crash reads the log and what it needs of the pages, whatever their size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_after_a_crash_does_not_walk_the_file() {
    let disk = create();
    let store = open(&disk).unwrap();
    for number in 0..60u64 {
        let put = Batch::new().put(format!("/k/{number}"), Expect::Absent, vec![1; 150_000]);
        store.commit(put).await.unwrap();
    }
    let files = disk.lock().unwrap().current();
    drop(store);
    let size = files[0].len() as u64;
    let disk = Disk::holding(files);
    let store = open(&disk).unwrap();
    assert!(!store.walked());
    let read = disk.lock().unwrap().read[0];
    assert!(read < size / 5, "read {read} of {size} bytes");
    assert_eq!(store.figures().live_keys, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_goes_on_reading() {
    let disk = create();
    let store = open(&disk).unwrap();
    store.commit(Batch::new().put("/a", Expect::Absent, "1")).await.unwrap();
    disk.lock().unwrap().available = 17 << 20;
    let refused = store.commit(Batch::new().put("/b", Expect::Absent, "1")).await;
    assert!(matches!(refused, Err(CommitError::Store(StoreError::Full { .. }))), "{refused:?}");
    let refused = refused.unwrap_err().to_string();
    assert_eq!(refused, "commit: no space left on sim/pages");
    assert!(store.snapshot().await.unwrap().get(&Key::from("/a")).unwrap().is_some());
    store.commit(Batch::new().delete("/a", Expect::Present)).await.expect("deleting makes room");
    disk.lock().unwrap().available = 1 << 30;
    let revision = store.commit(Batch::new().put("/b", Expect::Absent, "1")).await.unwrap();
    assert_eq!(revision, Revision(3));
}

/// The kernel reports a failed write back once, and forgets the pages: a sync that succeeds afterwards proves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_after_a_failed_sync() {
    let disk = create();
    let store = open(&disk).unwrap();
    let put = |key: &str| Batch::new().put(key.to_owned(), Expect::Whatever, "1");
    store.commit(put("/a")).await.unwrap();
    disk.lock().unwrap().failing_syncs = 1;
    let unknown = store.commit(put("/b")).await.unwrap_err();
    let said = stdx::one_line(&unknown);
    assert_eq!(said, "append to the log of sim/pages: input/output error");
    for _ in 0..3 {
        let refused = store.commit(put("/c")).await;
        assert!(matches!(refused, Err(CommitError::Store(StoreError::Io { .. }))), "{refused:?}");
    }
    let seen = store.snapshot().await.unwrap();
    assert!(seen.get(&Key::from("/a")).unwrap().is_some(), "reads go on");
    let survives = disk.lock().unwrap().survives(&mut Chance::new(1));
    drop(store);
    let store = open(&Disk::holding(survives)).unwrap();
    let seen = store.snapshot().await.unwrap();
    assert!(seen.get(&Key::from("/a")).unwrap().is_some());
    assert!(seen.get(&Key::from("/c")).unwrap().is_none());
}

/// Flips one byte at a time, all over both files of a store that was not closed, and asks for
/// everything: either it is all right, or somebody says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_found_or_harmless() {
    let disk = create();
    let mut told = Told::default();
    let mut chance = Chance::new(11);
    let store = open(&disk).unwrap();
    write(&store, &mut told, &mut chance, 40).await;
    let files = disk.lock().unwrap().current();
    drop(store);
    let mut found = 0;
    for round in 0..150u64 {
        let mut damaged = files.clone();
        let file = &mut damaged[usize::from(round % 3 == 0)];
        let within = if round % 4 == 0 { 16_384 } else { file.len() as u64 };
        let at = chance.below(within) as usize;
        file[at] ^= 1 << chance.below(8);
        let context = format!("round {round}: file {} byte {at}", round % 3 == 0);
        // The last frame of the log cannot be told from one that was never answered.
        match open(&Disk::holding(damaged)) {
            Err(error) => {
                let loud = matches!(error, StoreError::Corrupt { .. });
                assert!(loud && error.to_string().contains("sim/"), "{context}: {error:?}");
                found += 1;
            }
            Ok(store) => found += u64::from(!sound(&store, &told, &context).await),
        }
    }
    println!("found {found} of 150");
    assert!(found > 10, "the test does hit content: {found}");
}

/// True if everything is as told; false if the store says that it is corrupt; else panics.
async fn sound(store: &dyn Store, told: &Told, context: &str) -> bool {
    let latest = store.latest().await.unwrap();
    let last = latest.next() == told.latest;
    assert!(last || latest == told.latest, "{context}: silently at {latest}");
    let snapshot = store.snapshot().await.unwrap();
    for (key, (revision, value)) in &told.acknowledged {
        match snapshot.get(&Key::from(key.as_str())) {
            Ok(found) => {
                let found = found.map(|entry| entry.value.to_vec());
                let lost_tail = last && *revision == told.latest;
                assert!(found == *value || lost_tail, "{context}: {key} is wrong");
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.starts_with("sim/pages is corrupt: "), "{context}: {text}");
                return false;
            }
        }
    }
    true
}
