//! Which users of the host a pod has that does not share them: 65536 for each pod, and none twice.
//!
//! Upstream: `pkg/kubelet/userns/userns_manager.go` (1.36), and its file beside the pod's volumes. The files are all
//! that is remembered: who is there is looked up each time somebody new comes.

use crate::spec::{Facts, security::USERS};
use api::{Object, core::v1::Pod};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::Path,
    sync::Arc,
};
use tokio::sync::Mutex;

/// In the pod's directory.
pub(crate) const FILE: &str = "userns";
/// Until it is written.
pub(crate) const UNFINISHED: &str = ".userns";

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
    let (mut taken, mut is_torn) = (BTreeSet::new(), false);
    let others = match fs::read_dir(pods) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        others => Some(others?),
    };
    for other in others.into_iter().flatten() {
        let other = other?;
        let is_own = *other.file_name() == *uid;
        match read(&other.path().join(FILE)) {
            Ok(Some(first)) if is_own => return Ok(first),
            Ok(Some(first)) => {
                taken.insert(first / USERS);
            }
            Ok(None) => {}
            Err(error) if is_own => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "users of another pod");
                is_torn = true;
            }
        }
    }
    let is_free = |it: &u32| !taken.contains(it);
    // One that cannot be read was among the first: nobody gets its range from the other end.
    let free = if is_torn { (1..RANGES).rev().find(is_free) } else { (1..RANGES).find(is_free) };
    let first = free.ok_or_else(|| io::Error::other("all ranges are taken"))? * USERS;
    let directory = pods.join(uid);
    fs::create_dir_all(&directory)?;
    let range = json!([{"hostId": first, "containerId": 0, "length": USERS}]);
    let text = json!({"uidMappings": range, "gidMappings": range}).to_string();
    let unfinished = directory.join(UNFINISHED);
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    // Else a power failure may leave the name and nothing behind it.
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(FILE))?;
    Ok(first)
}

/// None: there is no file, or nothing in it.
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
    if bytes.is_empty() {
        return Ok(None);
    }
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
    }

    /// One file that could not be read kept every other pod off the node.
    #[test]
    fn a_torn_file_keeps_its_own_pod_out_and_nobody_gets_its_range() {
        let pods = tempfile::tempdir().unwrap();
        let allot = |uid: &str| allot(pods.path(), uid);
        assert_eq!(allot("a").unwrap(), 65536);
        fs::write(pods.path().join("a").join(FILE), "torn").unwrap();
        assert!(allot("a").is_err(), "which it had cannot be known");
        assert_eq!(allot("b").unwrap(), 65534 * 65536);
        assert_eq!(allot("c").unwrap(), 65533 * 65536);
        fs::write(pods.path().join("a").join(FILE), "").unwrap();
        assert_eq!(allot("a").unwrap(), 65536, "a power failure came before anything ran");
    }
}
