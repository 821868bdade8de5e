//! Which users of the host a pod has that does not share them: 65536 for each pod, and none twice.
//!
//! Upstream: `pkg/kubelet/userns/userns_manager.go` (1.36), and its file beside the pod's volumes. The files are all
//! that is remembered: who is there is looked up each time somebody new comes.

use crate::spec::{Facts, security::USERS};
use api::{Object, core::v1::Pod};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, io, path::Path, sync::Arc};
use tokio::sync::Mutex;

/// In the pod's directory.
pub(crate) const FILE: &str = "userns";

/// Ranges begin at 65536, 131072 …; the last ends before the highest id, which means nobody.
const RANGES: u32 = u32::MAX / USERS;

#[derive(Default)]
pub(crate) struct Users {
    /// One pod after the other: a range is free until its file is written.
    turn: Arc<Mutex<()>>,
}

impl Users {
    /// The first user of the pod on the host, if the pod has users of its own.
    pub(crate) async fn of(&self, pod: &Pod, facts: &Facts) -> Result<Option<u32>, String> {
        if pod.spec.as_ref().and_then(|it| it.host_users) != Some(false) {
            return Ok(None);
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (pods, uid) = (facts.kubelet_dir.join("pods"), pod.uid().to_owned());
        let range = move || {
            let _turn = turn;
            allot(&pods, &uid)
        };
        let allotted = tokio::task::spawn_blocking(range).await.map_err(|it| it.to_string())?;
        allotted
            .map(Some)
            .map_err(|error| format!("user namespace: allot users to pod {}: {error}", pod.uid()))
    }
}

/// The pod's range: the one that it has, else the first that nobody has.
fn allot(pods: &Path, uid: &str) -> io::Result<u32> {
    let mut taken = BTreeSet::new();
    let others = match fs::read_dir(pods) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        others => Some(others?),
    };
    for other in others.into_iter().flatten() {
        let other = other?;
        let Some(first) = read(&other.path().join(FILE))? else { continue };
        if *other.file_name() == *uid {
            return Ok(first);
        }
        taken.insert(first / USERS);
    }
    let free = (1..RANGES).find(|it| !taken.contains(it));
    let first = free.ok_or_else(|| io::Error::other("all ranges are taken"))? * USERS;
    let directory = pods.join(uid);
    fs::create_dir_all(&directory)?;
    let range = json!([{"hostId": first, "containerId": 0, "length": USERS}]);
    let text = json!({"uidMappings": range, "gidMappings": range}).to_string();
    let unfinished = directory.join(".userns");
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, directory.join(FILE))?;
    Ok(first)
}

/// None: there is no file. One that cannot be read keeps everybody out, rather than giving its range twice.
fn read(path: &Path) -> io::Result<Option<u32>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let first = value["uidMappings"][0]["hostId"].as_u64().and_then(|it| u32::try_from(it).ok());
    let told = || io::Error::other(format!("{} does not say which", path.display()));
    first.map(Some).ok_or_else(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_ranges_that_do_not_overlap_and_keep_them() {
        let pods = tempfile::tempdir().unwrap();
        let allot = |uid: &str| allot(pods.path(), uid);
        assert_eq!(allot("a").unwrap(), 65536);
        assert_eq!(allot("b").unwrap(), 131_072);
        assert_eq!(allot("a").unwrap(), 65536, "after a restart, too");
        fs::remove_dir_all(pods.path().join("a")).unwrap();
        assert_eq!(allot("c").unwrap(), 65536, "what is gone is free");
        fs::write(pods.path().join("b").join(FILE), "torn").unwrap();
        assert!(allot("d").is_err(), "whose it is cannot be known");
    }
}
