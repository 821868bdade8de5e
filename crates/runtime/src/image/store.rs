//! The images of one data dir: blobs, unpacked layers and an index that names them.
//!
//! The index is replaced as a whole, after everything it names is on disk; what it does not name is
//! rubbish and is removed by whoever takes the lock next. So a crash at any moment costs nothing.

use super::{
    Attempt, Digest, Image, ImageError, Reference, Result,
    archive::Archive,
    compression::Plain,
    digest::Hashing,
    manifest::{self, Candidate, Layer, mismatch},
    unpack::{self, Unpacked},
};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Up to so many files a layer's files are synced one by one; beyond it the whole filesystem is.
const SYNC_EACH_MAX: u64 = 64;

/// Images and layers below one directory: `images.json`, `blobs/sha256/<hex>` (configs and
/// manifests), `layers/<diff id>` (unpacked), `tmp/`. Cheap to clone. Other processes may use the
/// same directory at the same time.
#[derive(Clone, Debug)]
pub struct ImageStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    loaded: Mutex<Loaded>,
}

/// The index as it was last read, and which file that was.
#[derive(Debug, Default)]
struct Loaded {
    file: Option<(u64, i64, i64, u64)>,
    images: Arc<Vec<Image>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    images: Vec<Record>,
    /// Bytes of content by diff id.
    layers: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    id: String,
    references: Vec<String>,
    digests: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    /// Those of the references that a registry has answered for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pulled: Vec<String>,
}

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub untagged: Vec<String>,
    /// The id, if the image itself went.
    pub deleted: Option<String>,
}

impl ImageStore {
    /// Opens the store below `directory`, and makes it if it is not there.
    pub fn open(directory: impl Into<PathBuf>) -> Result<ImageStore> {
        let directory = directory.into();
        // Layers hold other people's set-uid programs: nobody but root may walk in.
        for (part, mode) in
            [("", 0o700), ("blobs/sha256", 0o700), ("layers", 0o700), ("tmp", 0o700)]
        {
            let path = directory.join(part);
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&path)
                .attempt(|| format!("make the image directory {}", path.display()))?;
        }
        let store = ImageStore(Arc::new(Inner { directory, loaded: Mutex::default() }));
        if let Some(lock) =
            Lock::take(&store.path("lock"), FlockOperation::NonBlockingLockExclusive)?
        {
            let index = store.read_index()?;
            store.sweep(&index, &lock);
        }
        store.images()?;
        Ok(store)
    }

    /// The image of a reference in any form, or of an id, whole or as a prefix of at least 12 digits
    /// that fits one image only.
    pub fn resolve(&self, name: &str) -> Option<Image> {
        let images = match self.images() {
            Ok(images) => images,
            Err(error) => {
                tracing::error!("{}", stdx::one_line(&error));
                return None;
            }
        };
        find(&images, name).cloned()
    }

    /// All images, by reference.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut images = self.images()?.to_vec();
        images.sort_by(|a, b| a.references.cmp(&b.references).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    /// Imports every image of a docker archive, an OCI archive (both plain or compressed) or an OCI
    /// layout directory. All or nothing.
    pub fn import(&self, path: &Path) -> Result<Vec<Image>> {
        self.import_archive(|spool| Archive::open(path, spool), None)
    }

    /// The same, and gives the one image of the archive this reference in place of its own.
    pub fn import_as(&self, path: &Path, reference: &str) -> Result<Vec<Image>> {
        let reference = Reference::parse(reference)?;
        self.import_archive(|spool| Archive::open(path, spool), Some(reference))
    }

    /// From a stream, such as standard input.
    pub fn import_reader(&self, reader: impl Read) -> Result<Vec<Image>> {
        self.import_archive(|spool| Archive::from_reader(reader, spool), None)
    }

    /// From a plain tar in memory.
    pub fn import_bytes(&self, archive: impl Into<Arc<[u8]>>) -> Result<Vec<Image>> {
        self.import_archive(|_| Archive::from_memory(archive.into()), None)
    }

    /// Takes a reference off its image, and deletes the image with its last one; an id takes all.
    /// `user` names a container that uses an image id: then nothing is deleted.
    pub fn remove(&self, name: &str, user: &dyn Fn(&str) -> Option<String>) -> Result<Removed> {
        let lock = self.lock()?;
        let mut index = self.read_index()?;
        let images = self.images()?;
        let image = find(&images, name).ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
        let reference = Reference::parse(name).map(|reference| reference.to_string());
        let only = reference.ok().filter(|whole| image.references.contains(whole));
        if let Some(only) = only
            && image.references.len() > 1
        {
            for record in index.images.iter_mut().filter(|record| record.id == image.id) {
                record.references.retain(|known| *known != only);
                record.pulled.retain(|known| *known != only);
            }
            self.write_index(&mut index)?;
            return Ok(Removed { untagged: vec![only], deleted: None });
        }
        if let Some(container) = user(&image.id) {
            return Err(ImageError::InUse { image: name.to_owned(), container });
        }
        index.images.retain(|record| record.id != image.id);
        self.write_index(&mut index)?;
        self.sweep(&index, &lock);
        Ok(Removed { untagged: image.references.clone(), deleted: Some(image.id.clone()) })
    }

    /// Where the images are: for reports of disk use.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Bytes of file content in all layers.
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.read_index()?.layers.values().sum())
    }

    /// Takes an image whose missing layers lie in `downloads`, each by its hex digits.
    pub(super) fn take_pulled(&self, candidate: Candidate, downloads: &Path) -> Result<Image> {
        let id = candidate.id.to_string();
        let archive = Archive::of_directory(downloads)?;
        self.locked(|index| self.take(&[candidate], &archive, index))?;
        let gone = || ImageError::NotFound(id.clone());
        self.images()?.iter().find(|image| image.id == id).cloned().ok_or_else(gone)
    }

    /// Whether a layer is there already, by the digest of its plain tar.
    pub(super) fn has_layer(&self, diff_id: &Digest) -> Result<bool> {
        Ok(self.read_index()?.layers.contains_key(&diff_id.to_string()))
    }

    /// A manifest or a config that is there already.
    pub(super) fn document(&self, digest: &Digest) -> Option<Vec<u8>> {
        fs::read(self.blob(digest)).ok().filter(|bytes| Digest::of(bytes) == *digest)
    }

    /// Where layers lie between their download and their unpacking.
    pub(super) fn downloads(&self) -> Result<PathBuf> {
        let path = self.path("downloads");
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
        .attempt(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    fn import_archive(
        &self,
        open: impl FnOnce(&Path) -> Result<Archive>,
        name: Option<Reference>,
    ) -> Result<Vec<Image>> {
        let ids = self.locked(|index| {
            let archive = open(&self.path("tmp"))?;
            self.import_locked(&archive, index, name)
        })?;
        Ok(self.images()?.iter().filter(|image| ids.contains(&image.id)).cloned().collect())
    }

    /// Writes as the only one, and leaves nothing behind that did not get into the index.
    fn locked<T>(&self, work: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        let lock = self.lock()?;
        let mut index = self.read_index()?;
        self.sweep(&index, &lock);
        let done = work(&mut index);
        if done.is_err() {
            // Whatever got to the disk is not in the index that is there.
            if let Ok(index) = self.read_index() {
                self.sweep(&index, &lock);
            }
        }
        done
    }

    fn import_locked(
        &self,
        archive: &Archive,
        index: &mut Index,
        name: Option<Reference>,
    ) -> Result<BTreeSet<String>> {
        let mut candidates = manifest::read(archive)?;
        if let Some(name) = name {
            let [candidate] = &mut candidates[..] else {
                return Err(ImageError::Archive(format!(
                    "the archive has {} images: one name cannot be for all",
                    candidates.len()
                )));
            };
            candidate.references = vec![name];
        }
        self.take(&candidates, archive, index)
    }

    /// Unpacks the layers that are missing, and names the images. Under the lock.
    fn take(
        &self,
        candidates: &[Candidate],
        archive: &Archive,
        index: &mut Index,
    ) -> Result<BTreeSet<String>> {
        let mut wanted: BTreeMap<&Digest, &Layer> = BTreeMap::new();
        for layer in candidates.iter().flat_map(|candidate| &candidate.layers) {
            if !index.layers.contains_key(&layer.diff_id.to_string()) {
                wanted.insert(&layer.diff_id, layer);
            }
        }
        let wanted: Vec<&Layer> = wanted.into_values().collect();
        let unpacked = self.unpack_all(archive, &wanted)?;
        self.make_durable(&wanted, &unpacked)?;
        for (layer, unpacked) in wanted.iter().zip(&unpacked) {
            let (from, to) = (self.staged(&layer.diff_id), self.layer(&layer.diff_id));
            fs::rename(&from, &to).attempt(|| format!("move a layer to {}", to.display()))?;
            index.layers.insert(layer.diff_id.to_string(), unpacked.bytes);
        }
        sync(&self.path("layers"))?;
        for candidate in candidates {
            self.write_blob(&candidate.id, &candidate.config)?;
            if let Some((digest, manifest)) = &candidate.manifest {
                self.write_blob(digest, manifest)?;
            }
        }
        sync(&self.path("blobs/sha256"))?;
        for candidate in candidates {
            index.add(candidate);
        }
        self.write_index(index)?;
        Ok(candidates.iter().map(|candidate| candidate.id.to_string()).collect())
    }

    /// Unpacks layers into `tmp/`, several at a time: one core cannot keep up with a disk.
    fn unpack_all(&self, archive: &Archive, wanted: &[&Layer]) -> Result<Vec<Unpacked>> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some((place, layer)) = {
                let place = next.fetch_add(1, Ordering::Relaxed);
                wanted.get(place).map(|layer| (place, *layer))
            } {
                let unpacked = self.unpack(archive, layer);
                if unpacked.is_err() {
                    // The import fails as a whole: nobody needs to start another layer.
                    next.store(wanted.len(), Ordering::Relaxed);
                }
                done.push((place, unpacked));
            }
            done
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut done = std::thread::scope(|scope| {
            let others: Vec<_> = (1..cores.min(wanted.len())).map(|_| scope.spawn(work)).collect();
            let mut done = work();
            for other in others {
                done.extend(other.join().expect("unpacking does not panic"));
            }
            done
        });
        done.sort_by_key(|(place, _)| *place);
        done.into_iter().map(|(_, unpacked)| unpacked).collect()
    }

    fn unpack(&self, archive: &Archive, layer: &Layer) -> Result<Unpacked> {
        let member = archive.member(&layer.member)?.ok_or_else(|| {
            ImageError::Archive(format!("the archive names {}, but has it not", layer.member))
        })?;
        let into = self.staged(&layer.diff_id);
        DirBuilder::new()
            .create(&into)
            .and_then(|()| fs::set_permissions(&into, fs::Permissions::from_mode(0o755)))
            .attempt(|| format!("make {}", into.display()))?;
        let damaged =
            |error: std::io::Error| ImageError::Archive(format!("layer {}: {error}", layer.member));
        let plain = Plain::new(Hashing::new(member)).map_err(damaged)?;
        let mut plain = Hashing::new(plain);
        let unpacked = unpack::unpack(&mut plain, &into);
        // A stream that is not what it should be explains every other complaint about it.
        let digests = plain.finish(unpack::BYTES_MAX * 2).and_then(|(diff_id, plain)| {
            let (blob, _) = plain.into_inner().finish(unpack::BYTES_MAX * 2)?;
            Ok((diff_id, blob))
        });
        let (diff_id, blob) = match (digests, &unpacked) {
            (Err(_), Err(_)) => return unpacked,
            (digests, _) => digests.map_err(damaged)?,
        };
        if let Some(stated) = &layer.blob
            && *stated != blob
        {
            return Err(mismatch(&layer.member, stated, &blob));
        }
        if diff_id != layer.diff_id {
            let what = format!("the content of {}", layer.member);
            return Err(mismatch(&what, &layer.diff_id, &diff_id));
        }
        unpacked
    }

    fn make_durable(&self, layers: &[&Layer], unpacked: &[Unpacked]) -> Result<()> {
        if unpacked.iter().map(|unpacked| unpacked.entries).sum::<u64>() > SYNC_EACH_MAX {
            let attempted = || format!("sync {}", self.0.directory.display());
            let directory = File::open(&self.0.directory).attempt(attempted)?;
            return rustix::fs::syncfs(directory).attempt(attempted);
        }
        layers.iter().try_for_each(|layer| {
            let staged = self.staged(&layer.diff_id);
            sync_tree(&staged).attempt(|| format!("sync {}", staged.display()))
        })
    }

    /// Removes what the index does not name. Only under the lock: an import's files are not named yet.
    fn sweep(&self, index: &Index, _lock: &Lock) {
        let mut blobs = BTreeSet::new();
        for record in &index.images {
            blobs.extend([Some(&record.id), record.manifest.as_ref()].into_iter().flatten());
        }
        let hex = |digest: &String| digest.strip_prefix("sha256:").unwrap_or(digest).to_owned();
        let blobs: BTreeSet<String> = blobs.into_iter().map(hex).collect();
        let layers: BTreeSet<String> = index.layers.keys().map(hex).collect();
        let unnamed = |part: &str, named: &BTreeSet<String>| -> Vec<PathBuf> {
            let entries = fs::read_dir(self.path(part)).into_iter().flatten().flatten();
            let unnamed = |e: &fs::DirEntry| !named.contains(&*e.file_name().to_string_lossy());
            entries.filter(unnamed).map(|entry| entry.path()).collect()
        };
        for layer in unnamed("layers", &layers) {
            // Out of sight first: a half-removed layer must not look like one.
            let aside = self.path("tmp").join(layer.file_name().unwrap_or_default());
            if fs::rename(&layer, &aside).is_err() {
                tracing::warn!("could not move the unused layer {} aside", layer.display());
            }
        }
        let rubbish =
            unnamed("tmp", &BTreeSet::new()).into_iter().chain(unnamed("blobs/sha256", &blobs));
        for path in rubbish {
            let is_directory = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
            let removed =
                if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!("remove unused {}: {error}", path.display());
            }
        }
    }

    fn lock(&self) -> Result<Lock> {
        let lock = Lock::take(&self.path("lock"), FlockOperation::LockExclusive)?;
        Ok(lock.expect("a lock that is waited for is had"))
    }

    /// The images of the index that is there now; read again only if another process replaced it.
    fn images(&self) -> Result<Arc<Vec<Image>>> {
        let path = self.path("images.json");
        let file = match fs::metadata(&path) {
            Ok(found) => Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).attempt(|| format!("read {}", path.display())),
        };
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.file != file {
            let index = self.read_index()?;
            let images = index.images.iter().map(|record| self.image(record, &index));
            *loaded = Loaded { images: Arc::new(images.collect::<Result<_>>()?), file };
        }
        Ok(loaded.images.clone())
    }

    fn image(&self, record: &Record, index: &Index) -> Result<Image> {
        let path = self.path("images.json");
        let broken = |reason: String| ImageError::Index { path: path.clone(), reason };
        let id: Digest = record.id.parse().map_err(&broken)?;
        let config = self.blob(&id);
        let bytes = fs::read(&config).attempt(|| format!("read {}", config.display()))?;
        if Digest::of(&bytes) != id {
            return Err(broken(format!("{} is damaged", config.display())));
        }
        let config = manifest::config(&bytes)?;
        let distinct: BTreeSet<&Digest> = config.diff_ids().iter().collect();
        let size = |layer: &&Digest| index.layers.get(&layer.to_string()).copied().unwrap_or(0);
        Ok(Image {
            id: record.id.clone(),
            references: record.references.clone(),
            digests: record.digests.clone(),
            pulled: record.pulled.clone(),
            layers: config.diff_ids().iter().map(|layer| self.layer(layer)).collect(),
            size: distinct.iter().map(size).sum(),
            created: config.created,
            config: config.run,
        })
    }

    fn read_index(&self) -> Result<Index> {
        let path = self.path("images.json");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Index::default());
            }
            read => read.attempt(|| format!("read {}", path.display()))?,
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::Index { path, reason: error.to_string() })
    }

    /// Layers that no image has any more leave the index with it.
    fn write_index(&self, index: &mut Index) -> Result<()> {
        let mut used = BTreeSet::new();
        for record in &index.images {
            used.extend(self.diff_ids(record)?);
        }
        index.layers.retain(|layer, _| used.contains(layer));
        let bytes = serde_json::to_vec_pretty(index).expect("plain data becomes JSON");
        self.replace(&self.path("images.json"), &bytes)?;
        sync(&self.0.directory)
    }

    fn diff_ids(&self, record: &Record) -> Result<Vec<String>> {
        let id: Digest = record.id.parse().map_err(ImageError::Archive)?;
        let path = self.blob(&id);
        let bytes = fs::read(&path).attempt(|| format!("read {}", path.display()))?;
        Ok(manifest::config(&bytes)?.diff_ids().iter().map(Digest::to_string).collect())
    }

    fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let path = self.blob(digest);
        if path.exists() { Ok(()) } else { self.replace(&path, bytes) }
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let attempted = || format!("write {}", path.display());
        let staged = self.path("tmp").join(path.file_name().unwrap_or_default());
        let mut file = File::create(&staged).attempt(attempted)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).attempt(attempted)?;
        fs::rename(&staged, path).attempt(attempted)
    }

    fn path(&self, part: &str) -> PathBuf {
        self.0.directory.join(part)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path("blobs/sha256").join(digest.hex())
    }

    fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.path("layers").join(diff_id.hex())
    }

    fn staged(&self, diff_id: &Digest) -> PathBuf {
        self.path("tmp").join(format!("layer-{}", diff_id.hex()))
    }
}

impl Index {
    /// A reference belongs to one image: the last one that came with it.
    fn add(&mut self, candidate: &Candidate) {
        let id = candidate.id.to_string();
        let tagged = candidate.references.iter().filter(|reference| reference.has_tag());
        let references: BTreeSet<String> =
            tagged.map(|reference| reference.without_digest().to_string()).collect();
        let manifest = candidate.manifest.as_ref().map(|(digest, _)| digest.to_string());
        let repositories: BTreeSet<String> =
            candidate.references.iter().map(Reference::repository).collect();
        let index = candidate.index.as_ref().map(Digest::to_string);
        // What a tag of a registry leads to; a manifest below an index is no tag's.
        let digests = index.as_ref().or(manifest.as_ref()).into_iter().flat_map(|digest| {
            repositories.iter().map(move |repository| format!("{repository}@{digest}"))
        });
        for other in self.images.iter_mut() {
            other.references.retain(|reference| !references.contains(reference));
            other.pulled.retain(|reference| !references.contains(reference));
        }
        let place = self.images.iter().position(|record| record.id == id).unwrap_or_else(|| {
            let (references, digests) = (Vec::new(), Vec::new());
            self.images.push(Record {
                id,
                references,
                digests,
                manifest: None,
                pulled: Vec::new(),
            });
            self.images.len() - 1
        });
        let record = &mut self.images[place];
        let digests: Vec<String> = digests.collect();
        if candidate.pulled {
            record.pulled.extend(references.iter().chain(&digests).cloned());
        }
        record.references.extend(references);
        record.digests.extend(digests);
        for names in [&mut record.references, &mut record.digests, &mut record.pulled] {
            names.sort();
            names.dedup();
        }
        record.manifest = manifest.clone().or(record.manifest.take());
    }
}

fn find<'a>(images: &'a [Image], name: &str) -> Option<&'a Image> {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if hex.len() >= 12 && hex.bytes().all(|c| c.is_ascii_hexdigit()) {
        let mut fitting =
            images.iter().filter(|image| image.id["sha256:".len()..].starts_with(hex));
        if let (Some(image), None) = (fitting.next(), fitting.next()) {
            return Some(image);
        }
    }
    let reference = Reference::parse(name).ok()?;
    if let Some(digest) = reference.digest() {
        // With a digest the tag is only a remark.
        let by_digest = format!("{}@{digest}", reference.repository());
        return images.iter().find(|image| image.digests.contains(&by_digest));
    }
    let whole = reference.to_string();
    images.iter().find(|image| image.references.contains(&whole))
}

/// The one writer, among all processes. Let go by the kernel, however its holder ends.
struct Lock(#[expect(dead_code, reason = "closing it lets go")] File);

impl Lock {
    fn take(path: &Path, how: FlockOperation) -> Result<Option<Lock>> {
        let attempted = || format!("lock {}", path.display());
        let file = File::create(path).attempt(attempted)?;
        match rustix::fs::flock(&file, how) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).attempt(attempted),
        }
    }
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .attempt(|| format!("sync {}", directory.display()))
}

fn sync_tree(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
