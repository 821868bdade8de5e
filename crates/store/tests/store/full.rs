//! A disk that others fill up: writes are refused, nothing breaks, and all goes on once there is room.

use std::{fs::File, io::Write, path::Path, process::Command, sync::Arc};
use stdx::SystemClock;
use store::{Batch, CommitError, Expect, Key, Store, StoreError, backend::Embedded};

/// A filesystem of its own, as large as a USB stick of old; `None` where this machine grants none.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Small> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=112m", "none"]).arg(directory.path());
        let mounted = mount.output().is_ok_and(|it| it.status.success());
        if !mounted {
            println!("skipped: a full disk needs root, for a small filesystem");
        }
        mounted.then_some(Small(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all that is free, to the last byte.
    fn fill(&self) {
        let mut hog = File::create(self.path().join("hog")).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            while hog.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("hog")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _said = Command::new("umount").arg(self.path()).output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_others_fill_up_stops_writes_until_there_is_room() {
    let Some(small) = Small::mount() else { return };
    let dir = small.path().join("state");
    let store = Embedded::open(&dir, Arc::new(SystemClock)).unwrap();
    let put = |number: u64| {
        Batch::new().put(format!("/k/{number}"), Expect::Absent, vec![number as u8; 60_000])
    };
    let mut acknowledged = Vec::new();
    let mut number = 0;
    for round in 0..3 {
        // Enough that pages wait to be written, and a checkpoint comes on the full disk.
        for _ in 0..60 {
            store
                .commit(put(number))
                .await
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
            acknowledged.push(number);
            number += 1;
        }
        small.fill();
        for _ in 0..20 {
            let refused = store.commit(put(number)).await;
            assert!(
                matches!(refused, Err(CommitError::Store(StoreError::Full { .. }))),
                "{refused:?}"
            );
        }
        let oldest = store.latest().await.unwrap();
        store.compact(oldest).await.unwrap();
        let seen = store.snapshot().await.unwrap();
        for key in &acknowledged {
            assert!(seen.get(&Key::from(format!("/k/{key}"))).unwrap().is_some(), "{key} is read");
        }
        if round == 1 {
            // Also a server that is stopped on the full disk.
            drop(seen);
            break;
        }
        small.free();
        for key in acknowledged.drain(..) {
            store.commit(Batch::new().delete(format!("/k/{key}"), Expect::Present)).await.unwrap();
        }
    }
    drop(store);
    let store = Embedded::open(&dir, Arc::new(SystemClock)).expect("it opens on the full disk");
    assert_eq!(store.examine().unwrap().keys, acknowledged.len() as u64);
    assert!(store.commit(put(number)).await.is_err());
    small.free();
    store.commit(put(number)).await.expect("there is room again");
    drop(store);
    let store = Embedded::open(&dir, Arc::new(SystemClock)).unwrap();
    assert_eq!(store.examine().unwrap().keys, acknowledged.len() as u64 + 1);
}
