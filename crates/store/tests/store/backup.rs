//! A backup is believed whole or not at all, and a ledger made from one never goes back.

use std::{fs::File, path::Path, sync::Arc, time::Duration};
use stdx::{Clock, SystemClock, Timestamp};
use store::{
    Batch, Change, Expect, Key, KeyRange, ReadError, Revision, Store, Write,
    backend::{Embedded, Hold},
    backup::{self, BackupError, Head},
};

async fn filled(dir: &Path) -> Embedded {
    let store = Embedded::open(dir, Arc::new(SystemClock)).unwrap();
    for number in 0..700 {
        let value = format!("{number}").repeat(number % 40 + 1);
        let put =
            Batch::new().put(format!("/registry/a/{:03}", number % 300), Expect::Whatever, value);
        store.commit(put).await.unwrap();
    }
    let both = Batch::new().put("/registry/pv/x", Expect::Absent, "1");
    store.commit(both.put("/registry/pvc/x", Expect::Absent, "2")).await.unwrap();
    let lease = store.grant(Duration::from_secs(3600)).await.unwrap();
    let change = Change::Put { value: "event".into(), lease: Some(lease) };
    let write = Write { key: Key::from("/registry/events/e"), expect: Expect::Absent, change };
    store.commit(Batch { checks: vec![], writes: vec![write] }).await.unwrap();
    store.commit(Batch::new().delete("/registry/a/007", Expect::Present)).await.unwrap();
    store
}

async fn save(store: &dyn Store, to: &Path, made: Timestamp) {
    let snapshot = store.snapshot().await.unwrap();
    let leases = store.leases().await.unwrap();
    let head = Head { revision: snapshot.revision(), made, program: "test".into() };
    let file = backup::File { path: "pki/ca.crt".into(), bytes: b"a certificate".to_vec() };
    let out = File::create(to).unwrap();
    let counts = backup::save(&*snapshot, &leases, vec![file], &head, out).unwrap();
    assert_eq!((counts.entries, counts.files), (302, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_ledger_holds_everything_at_revisions_beyond_all_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    let store = filled(&dir.path().join("old")).await;
    save(&store, &file, SystemClock.now()).await;
    let before = store.snapshot().await.unwrap().range(&KeyRange::all(), usize::MAX, None).unwrap();
    // Handed out after the backup, and lost.
    for _ in 0..5 {
        let put = Batch::new().put("/registry/a/001", Expect::Whatever, "later");
        store.commit(put).await.unwrap();
    }
    let floor = store.latest().await.unwrap();

    let hold = Hold::take(&dir.path().join("new")).unwrap();
    let mut verified = backup::verify(&file).unwrap();
    assert_eq!(verified.files[0].path, "pki/ca.crt");
    let mut seen = 0;
    let now = SystemClock.now();
    let restored =
        backup::restore(&mut verified, &hold.ledger(), floor, now, |_| seen += 1).unwrap();
    assert_eq!(seen, 302);
    let new = hold.open(Arc::new(SystemClock)).unwrap();
    assert_eq!(new.latest().await.unwrap(), restored.revision);
    assert!(restored.revision.0 > floor.0 + 1_000_000_000);

    let after =
        new.snapshot().await.unwrap().range(&KeyRange::prefix("/registry/"), usize::MAX, None);
    let after = after.unwrap();
    assert_eq!(after.entries.len(), before.entries.len());
    let mut order: Vec<(Revision, Revision)> = Vec::new();
    for (old, new) in before.entries.iter().zip(&after.entries) {
        assert_eq!((&old.key, &old.value, old.version), (&new.key, &new.value, new.version));
        assert!(new.modified > floor, "{} went back to {}", new.key, new.modified);
        order.push((old.modified, new.modified));
    }
    order.sort_unstable();
    assert!(order.windows(2).all(|pair| (pair[0].0 == pair[1].0) == (pair[0].1 == pair[1].1)));

    for watcher in [Revision(3), floor, Revision(restored.revision.0 - 2)] {
        let refused = new.watch(KeyRange::all(), watcher).err();
        assert!(matches!(refused, Some(ReadError::Compacted { .. })), "{watcher}: {refused:?}");
    }
    let mut watch = new.watch(KeyRange::all(), Revision(restored.revision.0 - 1)).unwrap();
    assert_eq!(watch.next().await.unwrap()[0].key.as_str(), "/stanchion/restored");
    let next = new.commit(Batch::new().put("/registry/b", Expect::Absent, "1")).await.unwrap();
    assert_eq!(next, restored.revision.next());

    let (lease, _) = new.leases().await.unwrap()[0];
    new.revoke(lease).await.unwrap();
    let event = new.snapshot().await.unwrap().get(&Key::from("/registry/events/e")).unwrap();
    assert!(event.is_none(), "an event still goes with its lease");
    drop(new);
    let again = Embedded::open(&dir.path().join("new"), Arc::new(SystemClock)).unwrap();
    assert_eq!(again.examine().unwrap().keys, 303);
    assert_eq!(again.figures().live_keys, 303, "it opens again: all but the event, and the marker");
}

/// The longer a backup is old, the more revisions may have been handed out since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_backup_is_raised_further() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    let store = filled(&dir.path().join("old")).await;
    let year = Duration::from_secs(365 * 24 * 3600);
    let made = SystemClock.now();
    save(&store, &file, made).await;
    let mut verified = backup::verify(&file).unwrap();
    let at = dir.path().join("ledger");
    let restored =
        backup::restore(&mut verified, &at, Revision::ZERO, made.plus(year), |_| {}).unwrap();
    assert!(restored.revision.0 > year.as_secs() * 20_000, "{}", restored.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_shortened_backup_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    let store = filled(&dir.path().join("old")).await;
    save(&store, &file, SystemClock.now()).await;
    let whole = std::fs::read(&file).unwrap();
    let refused = |bytes: &[u8]| {
        let path = dir.path().join("damaged");
        std::fs::write(&path, bytes).unwrap();
        backup::verify(&path).err().map(|error| stdx::one_line(&error))
    };
    assert_eq!(refused(&whole), None);
    for length in (0..whole.len()).step_by(whole.len() / 60) {
        let said = refused(&whole[..length]);
        assert!(said.is_some(), "{length} of {} bytes are believed", whole.len());
    }
    assert_eq!(refused(&whole[..10]).unwrap(), "it is no backup of a ledger");
    assert_eq!(refused(&whole[..whole.len() - 9]).unwrap(), "it is damaged: it was cut short");
    for at in (0..whole.len()).step_by(whole.len() / 200) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        assert!(refused(&flipped).is_some(), "byte {at} is flipped and nobody notices");
    }
    let more = [&whole[..], b"x"].concat();
    assert_eq!(refused(&more).unwrap(), "it is damaged: something follows its end");
    let mut newer = whole.clone();
    newer[16] = 9;
    assert_eq!(refused(&newer).unwrap(), "it has format version 9, this program knows up to 1");
    std::fs::write(&file, b"apiVersion: v1").unwrap();
    assert!(matches!(backup::verify(&file), Err(BackupError::Foreign)));
}
