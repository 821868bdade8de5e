//! A real writer process, killed in the middle of its work, again and again.

use crate::disk::Chance;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};
use stdx::SystemClock;
use store::{Batch, Expect, Key, Revision, Store, backend};

const ROUNDS: u64 = 20;
const WRITERS: u64 = 4;

/// Names the directory to the child; without it, the child's test does nothing.
const DIRECTORY: &str = "STORE_KILL_DIRECTORY";

/// Not a test of its own: the process that the test below kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let store = open(Path::new(&dir));
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for number in 0u64.. {
                    let key = format!("/w/{writer}/{}", number % 50);
                    let value = format!("{writer}-{number}-{}", "x".repeat(number as usize % 2000));
                    let put = Batch::new().put(key.clone(), Expect::Whatever, value.clone());
                    let revision = store.commit(put).await.unwrap();
                    // One write call a line: lines of several writers do not mix, nor are cut.
                    let line = format!("ack {revision} {key} {value}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn open(dir: &Path) -> Arc<dyn Store> {
    backend::open("embedded", &backend::EtcdTls::default(), dir, Arc::new(SystemClock)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_acknowledged() {
    let seed = std::env::var("STORE_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("STORE_SEED={seed}");
    let mut chance = Chance::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut latest = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["kill::child_writes_until_it_is_killed", "--exact", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let kill_after = chance.below(400);
        let mut lines = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if lines == kill_after {
                child.kill().unwrap();
            }
            // The test harness prints before the first line, on the same line.
            let Some(start) = line.find("ack ") else { continue };
            let mut words = line[start + 4..].split(' ');
            let (Some(revision), Some(key), Some(value)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            lines += 1;
            let revision: u64 = revision.parse().unwrap();
            latest = latest.max(revision);
            let entry = acknowledged.entry(key.to_owned()).or_default();
            if revision > entry.0 {
                *entry = (revision, value.to_owned());
            }
        }
        let _killed = child.kill();
        child.wait().unwrap();

        let store = open(dir.path());
        let found = store.latest().await.unwrap();
        assert!(found >= Revision(latest), "seed {seed}, round {round}: back to {found}");
        assert!(found.0 <= latest + WRITERS, "seed {seed}, round {round}: on to {found}");
        let snapshot = store.snapshot().await.unwrap();
        for (key, (revision, value)) in &acknowledged {
            let entry = snapshot.get(&Key::from(key.as_str())).unwrap();
            let entry = entry.unwrap_or_else(|| panic!("seed {seed}, round {round}: {key} lost"));
            assert!(entry.modified.0 >= *revision, "seed {seed}, round {round}: {key} went back");
            if entry.modified.0 == *revision {
                assert_eq!(entry.value, value.as_bytes(), "seed {seed}, round {round}: {key}");
            }
        }
        latest = found.0;
    }
    assert!(latest > ROUNDS, "the children did write");
}
