//! `stanchion restore`: a backup becomes the ledger of a stopped data dir, whole or not at all.
//!
//! Everything is made in `restore.new` and verified; renaming that to `restore` decides. What remains then is
//! renaming, which any later `up` or `restore` ends if this one could not. The ledger and the keys that were
//! there are kept beside the new ones, and no volume's data is touched.

use crate::{
    backup::{PKI, sync_parent},
    config::{DataDir, Flags as UpFlags},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use stdx::{Clock, SystemClock};
use store::{
    Entry, Revision, Store,
    backend::Hold,
    backup::{self, Verified},
};

const UNFINISHED: &str = "restore.new";
const DECIDED: &str = "restore";
/// What was there before, until the next restore.
const ASIDE: &str = ".before-restore";
const VOLUMES: &str = "/registry/persistentvolumes/";
const PODS: &str = "/registry/pods/";
/// How a value begins that is encrypted at rest.
const SEALED: &[u8] = b"k8s:enc:";

#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    data: DataDir,
    /// What `backup` wrote. It brings the cluster's authority and keys with it: kubeconfigs of that cluster work
    /// again, those of another one that was here do not
    file: PathBuf,
}

pub(crate) fn run(flags: &Flags) -> Result<()> {
    let file = &flags.file;
    let attempt = || format!("restore {}", file.display());
    let mut verified = backup::verify(file).with_context(attempt)?;
    let data_dir = flags.data.open()?;
    let state = data_dir.join("state");
    let store = UpFlags::recall(&flags.data)?.store;
    if store.is_shared() {
        bail!(
            "restore into {}: its objects are in {}; etcd has its own way (etcdctl snapshot restore), and a new data \
             dir takes this backup, too",
            data_dir.display(),
            store.store
        );
    }
    finish(&data_dir)?;
    let floor = latest(&state)?;
    let hold = Hold::take(&state).with_context(|| format!("open {}", state.display()))?;
    let (restored, known) = stage(&mut verified, &data_dir, floor).with_context(attempt)?;
    swap(&data_dir, &hold)?;
    println!(
        "restored {} objects of {} (revision {}) at revision {}",
        restored.counts.entries, verified.head.made, verified.head.revision, restored.revision
    );
    for path in [hold.ledger(), data_dir.join(PKI)].map(|it| aside(&it)) {
        if path.exists() {
            println!("kept what was there before: {}", path.display());
        }
    }
    known.report(&data_dir, &UpFlags::recall(&flags.data)?.settle()?.kubelet_dir);
    Ok(())
}

/// Ends a restore that was decided and not finished: `up` calls this before it opens anything.
pub(crate) fn finish(data_dir: &Path) -> Result<()> {
    if !data_dir.join(DECIDED).exists() {
        return Ok(());
    }
    let state = data_dir.join("state");
    let hold = Hold::take(&state).with_context(|| format!("open {}", state.display()))?;
    swap(data_dir, &hold)
}

/// The latest revision of the ledger that is there, as far as it can be read: who restores may well do so because
/// it cannot.
fn latest(state: &Path) -> Result<Revision> {
    let hold = Hold::take(state).with_context(|| format!("open {}", state.display()))?;
    if !hold.ledger().exists() {
        return Ok(Revision::ZERO);
    }
    let read = match hold.open(Arc::new(SystemClock)) {
        Ok(store) => Ok(store.figures().latest),
        Err(error) => Err(error),
    };
    Ok(read.unwrap_or_else(|error| {
        let error = stdx::one_line(&error);
        println!("the ledger that is there cannot be read and is to be replaced: {error}");
        Revision::ZERO
    }))
}

fn stage(
    verified: &mut Verified,
    data_dir: &Path,
    floor: Revision,
) -> Result<(backup::Restored, Known)> {
    let unfinished = data_dir.join(UNFINISHED);
    remove(&unfinished)?;
    private_dir(&unfinished)?;
    let mut known = Known::default();
    let (ledger, now) = (unfinished.join("ledger"), SystemClock.now());
    let made = backup::restore(verified, &ledger, floor, now, |entry| known.see(entry));
    let made = made.map_err(anyhow::Error::from).and_then(|restored| {
        for file in &verified.files {
            write_private(&unfinished.join(&file.path), &file.bytes)?;
        }
        Ok(restored)
    });
    if made.is_err() {
        // The next attempt removes it too.
        let _stays = remove(&unfinished);
    }
    let restored = made?;
    let decided = data_dir.join(DECIDED);
    sync_parent(&unfinished.join("ledger"))?;
    fs::rename(&unfinished, &decided).with_context(|| format!("make {}", decided.display()))?;
    sync_parent(&decided)?;
    Ok((restored, known))
}

/// Each step may have been done before.
fn swap(data_dir: &Path, hold: &Hold) -> Result<()> {
    let decided = data_dir.join(DECIDED);
    for (new, place) in
        [(decided.join("ledger"), hold.ledger()), (decided.join(PKI), data_dir.join(PKI))]
    {
        if !new.exists() {
            continue;
        }
        let attempt = || format!("put {} in place", new.display());
        if place.exists() {
            let aside = aside(&place);
            remove(&aside)?;
            fs::rename(&place, &aside).with_context(attempt)?;
        }
        fs::rename(&new, &place).with_context(attempt)?;
        sync_parent(&place)?;
    }
    remove(&decided)
}

fn aside(place: &Path) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(ASIDE);
    place.with_file_name(name)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn private_dir(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.with_context(|| format!("create {}", path.display()))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    private_dir(path.parent().context("a file lies in a directory")?)?;
    let attempt = || format!("write {}", path.display());
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = open.with_context(attempt)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(attempt)?;
    sync_parent(path)
}

/// What the restored ledger knows of this machine.
#[derive(Default)]
struct Known {
    /// Handle of a volume of class `local` → name of its PersistentVolume.
    volumes: BTreeMap<String, String>,
    /// Uids of pods.
    pods: BTreeSet<String>,
    /// Kinds of which there are objects that only the server can read.
    sealed: BTreeSet<&'static str>,
}

impl Known {
    fn see(&mut self, entry: &Entry) {
        let key = entry.key.as_str();
        let parse = || serde_json::from_slice::<Value>(&entry.value).unwrap_or_default();
        if entry.value.starts_with(SEALED) {
            self.sealed.extend([VOLUMES, PODS].into_iter().find(|it| key.starts_with(it)));
            return;
        }
        if key.starts_with(VOLUMES) {
            let volume = parse();
            let source = &volume["spec"]["csi"];
            if source["driver"] == volumes::LOCAL_DRIVER
                && let Some(handle) = source["volumeHandle"].as_str()
            {
                let name = volume["metadata"]["name"].as_str().unwrap_or_default();
                self.volumes.insert(handle.to_owned(), name.to_owned());
            }
        } else if key.starts_with(PODS) {
            self.pods.extend(parse()["metadata"]["uid"].as_str().map(str::to_owned));
        }
    }

    fn report(&self, data_dir: &Path, kubelet_dir: &Path) {
        if self.sealed.contains(VOLUMES) {
            println!(
                "volumes are sealed: what is here was not compared with what the ledger names"
            );
        } else {
            self.report_volumes(data_dir);
        }
        if self.sealed.contains(PODS) {
            println!("pods are sealed: what runs here was not compared with what the ledger names");
            return;
        }
        let running = names(&kubelet_dir.join("pods"));
        for uid in running.iter().filter(|it| !self.pods.contains(*it)) {
            println!("the next `up` stops a pod that no object names: {uid}");
        }
    }

    fn report_volumes(&self, data_dir: &Path) {
        let place = data_dir.join("volumes");
        let handles: BTreeSet<String> =
            names(&place).into_iter().filter(|it| !it.starts_with('.')).collect();
        for handle in handles.iter().filter(|it| !self.volumes.contains_key(*it)) {
            let record = fs::read(place.join(handle).join("volume.json")).unwrap_or_default();
            let record: Value = serde_json::from_slice(&record).unwrap_or_default();
            let claim = record["claim"].as_str().unwrap_or("no claim");
            println!(
                "kept the data of a volume that no object names: {} (made for {claim})",
                place.join(handle).join("disk.img").display()
            );
        }
        for (handle, name) in self.volumes.iter().filter(|(it, _)| !handles.contains(*it)) {
            println!(
                "no data for PersistentVolume {name}: {} is not there",
                place.join(handle).display()
            );
        }
    }
}

fn names(place: &Path) -> Vec<String> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.filter_map(|it| it.file_name().into_string().ok()).collect()
}
