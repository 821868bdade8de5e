//! Pods from files of this node: they run whatever the API says, and show themselves there as mirror pods.
//!
//! A static pod's uid is made from its node, its file and its contents, so another content is another pod. Its mirror
//! has a uid of its own and names the static pod's in an annotation; whoever deletes a mirror gets it back.
//! Upstream: `pkg/kubelet/config/{file,common}.go`, `pkg/kubelet/pod/mirror_client.go` (1.36).

use api::{
    Errors, Kind, Object,
    core::v1::{Node, Pod, Toleration},
    meta::OwnerReference,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};
use stdx::Timestamp;
use world::{Change, ObjectKey, World};

const HASH: &str = "kubernetes.io/config.hash";
const MIRROR: &str = "kubernetes.io/config.mirror";
const SEEN: &str = "kubernetes.io/config.seen";
const SOURCE: &str = "kubernetes.io/config.source";
/// A larger file is no manifest of a pod.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A node has room for as many pods.
const FILES_MAX: usize = 110;

/// The static pods of this node, by uid.
pub(crate) struct StaticPods {
    directory: PathBuf,
    node: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the directory looked like when it was read.
    looked: Vec<(PathBuf, SystemTime, u64)>,
    pods: BTreeMap<String, Pod>,
}

impl StaticPods {
    pub(crate) fn new(directory: PathBuf, node: &str) -> StaticPods {
        StaticPods { directory, node: node.to_owned(), state: Mutex::default() }
    }

    /// Reads the directory if it has changed; whether it had.
    pub(crate) fn read(&self, now: Timestamp) -> bool {
        let looked = look(&self.directory);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if looked == state.looked {
            return false;
        }
        let mut pods = BTreeMap::new();
        for (path, ..) in &looked {
            match manifest(path).and_then(|pod| self.complete(path, pod, now)) {
                Ok(pod) => {
                    let known = state.pods.get(pod.uid()).cloned();
                    pods.insert(pod.uid().to_owned(), known.unwrap_or(pod));
                }
                Err(why) => tracing::warn!(file = %path.display(), why, "static pod"),
            }
        }
        *state = State { looked, pods };
        true
    }

    pub(crate) fn get(&self, uid: &str) -> Option<Pod> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pods.get(uid).cloned()
    }

    /// Uids and the names that their mirrors have.
    pub(crate) fn keys(&self) -> Vec<(String, ObjectKey)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pods.iter().map(|(uid, pod)| (uid.clone(), ObjectKey::of(pod))).collect()
    }

    /// Deletes the mirrors of static pods that are gone.
    pub(crate) fn orphans(&self, world: &World) -> Vec<Change> {
        let here = world.indexed::<Pod>("node", &self.node);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let orphan =
            |it: &world::Typed<Pod>| mirrored(it).is_some_and(|uid| !state.pods.contains_key(uid));
        here.filter(orphan).map(|it| Change::delete_now(&*it)).collect()
    }

    /// The pod as this node runs it.
    fn complete(&self, path: &Path, mut pod: Pod, now: Timestamp) -> Result<Pod, String> {
        let text = serde_json::to_string(&pod).map_err(|error| error.to_string())?;
        let mut hash = Sha256::new();
        for part in [self.node.as_str(), &path.to_string_lossy(), &text] {
            hash.update(part);
            hash.update([0]);
        }
        let uid: String = hash.finalize()[..16].iter().map(|it| format!("{it:02x}")).collect();
        let name = pod.name().to_owned();
        if name.is_empty() {
            return Err("it has no name".to_owned());
        }
        let meta = &mut pod.metadata;
        meta.name = Some(format!("{name}-{}", self.node.to_lowercase()));
        meta.namespace.get_or_insert_with(|| "default".to_owned());
        meta.uid = Some(uid.clone());
        let annotations = meta.annotations.get_or_insert_default();
        for (key, value) in [(HASH, uid), (SOURCE, "file".to_owned()), (SEEN, now.rfc3339())] {
            annotations.insert(key.to_owned(), value);
        }
        let spec = pod.spec.get_or_insert_default();
        spec.node_name = Some(self.node.clone());
        // Nothing evicts what nobody scheduled.
        spec.tolerations.get_or_insert_default().push(Toleration {
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            ..Toleration::default()
        });
        Kind::default(&mut pod);
        pod.status = None;
        let mut errors = Errors::default();
        pod.validate(&mut errors);
        match errors.is_empty() {
            true => Ok(pod),
            false => Err(errors.message()),
        }
    }
}

/// What brings the mirror of a static pod to what it should be, if it is not: made, or taken away to be made again.
pub(crate) fn mirror(pod: &Pod, world: &World) -> Option<Change> {
    let there = world.get::<Pod>(&ObjectKey::of(pod));
    if let Some(there) = there {
        let fits = mirrored(&there) == Some(pod.uid()) && !there.is_deleting();
        return (!fits).then(|| Change::delete_now(&*there));
    }
    let node = world.cluster::<Node>(api::core::pod::node_name(pod))?;
    let mut mirror = pod.clone();
    let meta = &mut mirror.metadata;
    let uid = meta.uid.take().unwrap_or_default();
    meta.annotations.get_or_insert_default().insert(MIRROR.to_owned(), uid);
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.name().to_owned(),
        uid: node.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    Some(Change::create(mirror))
}

/// The uid of the static pod that this one mirrors.
pub(crate) fn mirrored(pod: &Pod) -> Option<&str> {
    pod.annotation(MIRROR)
}

/// The uid that the node's runtime knows a pod by.
pub(crate) fn runtime_uid(pod: &Pod) -> &str {
    mirrored(pod).unwrap_or(pod.uid())
}

fn look(directory: &Path) -> Vec<(PathBuf, SystemTime, u64)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let file = |it: std::fs::DirEntry| {
        let name = it.file_name();
        // Editors leave such files beside what is edited.
        let hidden =
            name.to_string_lossy().starts_with('.') || name.to_string_lossy().ends_with('~');
        let about = std::fs::metadata(it.path()).ok()?;
        let fits = about.is_file() && !hidden;
        fits.then(|| Some((it.path(), about.modified().ok()?, about.len()))).flatten()
    };
    let mut files: Vec<_> = entries.filter_map(file).collect();
    files.sort();
    files.truncate(FILES_MAX);
    files
}

fn manifest(path: &Path) -> Result<Pod, String> {
    let about = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if about.len() > FILE_BYTES_MAX {
        return Err(format!("{} bytes are more than {FILE_BYTES_MAX}", about.len()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let value: serde_json::Value =
        serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        return Err("it is no v1 Pod".to_owned());
    }
    api::codec::from_value(&value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c, image: a}]}}";

    #[test]
    fn another_content_is_another_pod() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web.yaml");
        let pods = StaticPods::new(directory.path().to_owned(), "n1");
        let now = Timestamp::from_seconds(1);
        assert!(!pods.read(now), "nothing is there");
        std::fs::write(&file, MANIFEST).unwrap();
        std::fs::write(directory.path().join("bad.yaml"), "kind: Pod").unwrap();
        std::fs::write(directory.path().join(".web.swp"), "x").unwrap();
        assert!(pods.read(now));
        let [(uid, key)] = &pods.keys()[..] else { panic!("one pod") };
        assert_eq!(key.to_string(), "default/web-n1");
        let pod = pods.get(uid).unwrap();
        assert_eq!((pod.annotation(HASH), pod.annotation(SOURCE)), (Some(&**uid), Some("file")));
        assert!(!pods.read(Timestamp::from_seconds(2)), "nothing has changed");
        std::fs::write(&file, MANIFEST.replace("image: a", "image: other")).unwrap();
        assert!(pods.read(now));
        assert_ne!(pods.keys()[0].0, *uid);
        std::fs::remove_file(&file).unwrap();
        assert!(pods.read(now) && pods.keys().is_empty());
    }
}
