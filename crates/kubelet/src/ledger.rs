//! What this node has mounted: a record written before each mount and removed after each unmount.
//!
//! A record is a small file that is replaced by renaming. It needs no fsync: a mount does not survive the loss of power
//! either, and after any other end of this process the kernel still has the page. What lies below the pods' directories
//! without a record (power loss) is found by its path.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use volumes::Published;

/// A volume as one pod has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub uid: String,
    /// `namespace/name`
    pub pod: String,
    pub volume: String,
    pub plugin: String,
    pub handle: String,
    pub target: PathBuf,
    /// Set for plugins that stage: where the volume is mounted for all pods of this node.
    pub staging: Option<PathBuf>,
    pub one_pod: bool,
    /// Where it can be used; none while the mount was only intended.
    pub host_path: Option<PathBuf>,
    pub read_only: bool,
}

impl Record {
    pub fn published(&self) -> Option<Published> {
        let host_path = self.host_path.clone()?;
        Some(Published { host_path, read_only: self.read_only })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{attempt} {}", path.display())]
pub struct LedgerError {
    attempt: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

pub struct Ledger {
    directory: PathBuf,
    /// (pod uid, volume) → record. Bounded by the pods of this node.
    records: Mutex<BTreeMap<(String, String), Record>>,
}

impl Ledger {
    /// Reads every record below `directory`; a torn one is removed and said so.
    pub fn open(directory: PathBuf) -> Result<Ledger, LedgerError> {
        let failed = |attempt, path: &Path| {
            let path = path.to_path_buf();
            move |source| LedgerError { attempt, path, source }
        };
        fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(failed("list", &directory))? {
            let path = entry.map_err(failed("list", &directory))?.path();
            if path.extension().is_none_or(|it| it != "json") {
                let _leftover = fs::remove_file(&path);
                continue;
            }
            let bytes = fs::read(&path).map_err(failed("read", &path))?;
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) => {
                    records.insert((record.uid.clone(), record.volume.clone()), record);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a torn mount record is dropped");
                    fs::remove_file(&path).map_err(failed("remove", &path))?;
                }
            }
        }
        Ok(Ledger { directory, records: Mutex::new(records) })
    }

    /// Writes a record, in place of the one of the same pod and volume.
    pub fn write(&self, record: &Record) -> Result<(), LedgerError> {
        let path = self.path(&record.uid, &record.volume);
        let new = path.with_extension("new");
        let failed = |source| LedgerError { attempt: "write", path: path.clone(), source };
        let bytes = serde_json::to_vec(record).map_err(io::Error::other).map_err(failed)?;
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).map_err(failed)?;
        records.insert((record.uid.clone(), record.volume.clone()), record.clone());
        Ok(())
    }

    pub fn remove(&self, uid: &str, volume: &str) -> Result<(), LedgerError> {
        let path = self.path(uid, volume);
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(LedgerError { attempt: "remove", path, source })
            }
            Ok(()) | Err(_) => {
                records.remove(&(uid.to_owned(), volume.to_owned()));
                Ok(())
            }
        }
    }

    /// What one pod has, by volume.
    pub fn of_pod(&self, uid: &str) -> Vec<Record> {
        self.all().into_iter().filter(|it| it.uid == uid).collect()
    }

    pub fn all(&self) -> Vec<Record> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.values().cloned().collect()
    }

    /// A volume's name is a DNS label and a uid has no dots, so the name is theirs alone.
    fn path(&self, uid: &str, volume: &str) -> PathBuf {
        let plain = |text: &str| text.replace(['/', '\0'], "_");
        self.directory.join(format!("{}.{}.json", plain(uid), plain(volume)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was_and_drops_what_is_torn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mounts");
        let record = Record {
            uid: "u1".to_owned(),
            pod: "default/web-0".to_owned(),
            volume: "data".to_owned(),
            plugin: "kubernetes.io/empty-dir".to_owned(),
            handle: "data".to_owned(),
            target: "/x".into(),
            staging: None,
            one_pod: false,
            host_path: Some("/x".into()),
            read_only: false,
        };
        let ledger = Ledger::open(path.clone()).unwrap();
        ledger.write(&record).unwrap();
        ledger.write(&Record { volume: "logs".to_owned(), ..record.clone() }).unwrap();
        ledger.remove("u1", "logs").unwrap();
        ledger.remove("u1", "never").unwrap();
        fs::write(path.join("u2.data.json"), "{\"uid\":").unwrap();
        assert_eq!(Ledger::open(path).unwrap().all(), [record]);
    }
}
