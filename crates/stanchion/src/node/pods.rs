//! What a node is to run, on its own disk: `down` ends pods by their own words, wherever the server is.
//!
//! One file a pod, as it was last seen, without its status. Written by the node's process as its world changes. It is
//! not synced: what a machine that lost its power ran has ended with it.

use anyhow::{Context, Result};
use api::{Object, core::v1::Pod};
use client::Client;
use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use world::World;

/// Below the data dir.
const DIRECTORY: &str = "node/pods";

pub(crate) struct Pods {
    directory: PathBuf,
    node: String,
    /// File name → what it holds.
    written: HashMap<String, Vec<u8>>,
}

impl Pods {
    pub(crate) fn open(data_dir: &Path, node: &str) -> Result<Pods> {
        let directory = data_dir.join(DIRECTORY);
        let attempt = || format!("create {}", directory.display());
        fs::create_dir_all(&directory).with_context(attempt)?;
        Ok(Pods { directory, node: node.to_owned(), written: HashMap::new() })
    }

    /// Follows the node's world, for ever.
    pub(crate) async fn keep(mut self, client: Arc<dyn Client>) {
        let mut ticks = client.follow();
        let mut world = client.world();
        let pods = api::kind_of::<Pod>();
        loop {
            if let Err(error) = self.write(&world) {
                let error = stdx::one_line(error.as_ref());
                tracing::warn!(error, "write down which pods are here");
            }
            loop {
                let Some(tick) = ticks.next().await else { return };
                if tick.touched.is_none_or(|it| it.iter().any(|it| it.kind == *pods)) {
                    world = tick.world;
                    break;
                }
            }
        }
    }

    fn write(&mut self, world: &World) -> Result<()> {
        let mut left: Vec<String> = names(&self.directory)?;
        for pod in world.indexed::<Pod>("node", &self.node) {
            let name = format!("{}.json", pod.uid());
            left.retain(|it| *it != name);
            let mut pod = (*pod).clone();
            (pod.status, pod.metadata.managed_fields) = (None, None);
            pod.metadata.resource_version = None;
            let text = api::Erased::encode(&pod);
            if self.written.get(&name) != Some(&text) {
                replace(&self.directory.join(&name), &text)?;
                self.written.insert(name, text);
            }
        }
        for name in left {
            let path = self.directory.join(&name);
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            self.written.remove(&name);
        }
        Ok(())
    }
}

/// The world of these pods and nothing else. What cannot be read is left out, and said.
pub(crate) fn read(data_dir: &Path) -> Result<World> {
    let directory = data_dir.join(DIRECTORY);
    let mut world = World::default();
    for name in names(&directory)? {
        let path = directory.join(&name);
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let revision = world.revision + 1;
        if let Err(error) = world.put(api::kind_of::<Pod>(), text.into(), revision) {
            tracing::warn!(%error, "{} is no pod", path.display());
        }
    }
    Ok(world)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let attempt = || format!("read {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(attempt),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.with_context(attempt)?.file_name().into_string());
    }
    names.retain(|it| it.ends_with(".json"));
    names.sort();
    Ok(names)
}

/// A pod's environment may hold what others must not read.
fn replace(path: &Path, text: &[u8]) -> Result<()> {
    let attempt = || format!("write {}", path.display());
    let temporary = path.with_extension("tmp");
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary).with_context(attempt)?;
    file.write_all(text).with_context(attempt)?;
    fs::rename(&temporary, path).with_context(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(names: &[&str]) -> World {
        let mut world = World::default();
        for name in names {
            let text = format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"a","uid":"u-{name}"}},
                "spec":{{"nodeName":"n1","priority":7,"containers":[]}},"status":{{"phase":"Running"}}}}"#
            );
            let revision = world.revision + 1;
            world.put(api::kind_of::<Pod>(), text.into(), revision).unwrap();
        }
        world
    }

    #[test]
    fn what_runs_here_is_known_without_a_server() {
        let directory = tempfile::tempdir().unwrap();
        let known = |it: &World| -> Vec<String> {
            it.indexed::<Pod>("node", "n1").map(|it| it.name().to_owned()).collect()
        };
        assert!(known(&read(directory.path()).unwrap()).is_empty());
        let mut pods = Pods::open(directory.path(), "n1").unwrap();
        pods.write(&world(&["p", "q"])).unwrap();
        let there = read(directory.path()).unwrap();
        assert_eq!(known(&there), ["p", "q"]);
        let pod = there.all::<Pod>().next().unwrap();
        assert_eq!(pod.spec.as_ref().unwrap().priority, Some(7));
        assert!(pod.status.is_none());
        // Another process goes on with what this one left.
        let mut pods = Pods::open(directory.path(), "n1").unwrap();
        pods.write(&world(&["q"])).unwrap();
        assert_eq!(known(&read(directory.path()).unwrap()), ["q"]);
    }

    #[test]
    fn a_torn_file_is_no_pod_and_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let mut pods = Pods::open(directory.path(), "n1").unwrap();
        pods.write(&world(&["p"])).unwrap();
        fs::write(directory.path().join(DIRECTORY).join("torn.json"), "{\"api").unwrap();
        assert_eq!(read(directory.path()).unwrap().all::<Pod>().count(), 1);
    }
}
