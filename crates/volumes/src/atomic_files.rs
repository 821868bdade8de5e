//! A directory of files that are replaced all at once: readers see the old set or the new one, never a mixture.
//!
//! The files live in a directory with a time in its name, `..data` points to it, and what users see (`key`, `app`) are
//! links through `..data`; replacing `..data` by a rename replaces everything.
//! Upstream: pkg/volume/util/atomic_writer.go (1.36). Deviation: leftovers of a crash are removed, not tripped over.

use crate::{
    Files, PodRef, PublishVolume, Published, Result, VolumeError, VolumePlugin, empty_dir,
    error::{Attempt, Attempted, OnVolume},
    ownership, tree,
    work::blocking,
};
use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    },
    path::{Component, Path, PathBuf},
};
use stdx::{BoxFuture, Clock, Entropy, SystemClock, SystemEntropy};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
/// PATH_MAX and NAME_MAX of Linux.
const PATH_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 255;

/// Where the files are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    Disk,
    /// tmpfs: gone with the pod, never on a disk.
    Memory,
}

/// The plugin behind configMap, secret, downwardAPI and projected.
pub(crate) struct FilesVolume {
    pub(crate) name: &'static str,
    pub(crate) medium: Medium,
}

impl VolumePlugin for FilesVolume {
    fn name(&self) -> &str {
        self.name
    }

    fn publish<'a>(&'a self, request: &'a PublishVolume) -> BoxFuture<'a, Result<Published>> {
        let (request, medium) = (request.clone(), self.medium);
        Box::pin(async move {
            let handle = request.volume.handle.clone();
            blocking("publish", &handle, move || publish(&request, medium)).await
        })
    }

    fn unpublish<'a>(&'a self, handle: &'a str, target: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(empty_dir::remove(handle, target))
    }
}

fn publish(request: &PublishVolume, medium: Medium) -> Result<Published> {
    let (handle, target) = (&request.volume.handle, &request.target);
    let Some(files) = &request.files else {
        return Err(VolumeError::Invalid(format!("volume {handle}: its files are not resolved")));
    };
    for path in files.keys() {
        valid_path(path).map_err(|why| VolumeError::Invalid(format!("invalid path: {why}")))?;
    }
    match medium {
        // Of the directory itself: users see its files through links, and may list it.
        Medium::Disk => tree::make(target, 0o777),
        Medium::Memory => empty_dir::memory(target, None),
    }
    .and_then(|()| write(target, files, &request.pod))
    .on("publish", handle)?;
    Ok(Published { host_path: target.clone(), read_only: true })
}

fn valid_path(path: &str) -> std::result::Result<(), String> {
    let names: Vec<&str> = path.split('/').collect();
    if path.is_empty() {
        return Err("must not be empty: \"\"".to_string());
    }
    if path.starts_with('/') {
        return Err(format!("must be relative path: {path}"));
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("must be less than or equal to {PATH_BYTES_MAX} characters"));
    }
    if names.contains(&"..") {
        return Err(format!("must not contain '..': {path}"));
    }
    if names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
        return Err(format!("filenames must be less than or equal to {NAME_BYTES_MAX} characters"));
    }
    if names[0].starts_with("..") {
        return Err(format!("must not start with '..': {path}"));
    }
    Ok(())
}

/// Makes the directory `target` show exactly `files`. The caller serializes calls for one target.
fn write(target: &Path, files: &Files, pod: &PodRef) -> Attempt<()> {
    let data = target.join(DATA);
    let current = fs::read_link(&data).ok();
    let shown = current.as_ref().is_some_and(|name| same(&target.join(name), files));
    let kept = if let (Some(name), true) = (&current, shown) {
        name.clone()
    } else {
        let name = new_directory(target)?;
        let directory = target.join(&name);
        fill(&directory, files)?;
        // Containers may not write: the group gets no write bits.
        ownership::apply(&directory, pod, true)?;
        let new = target.join(DATA_NEW);
        tree::remove_mount_point(&new)?;
        symlink(&name, &new).attempted(|| format!("link {} to {name:?}", new.display()))?;
        fs::rename(&new, &data).attempted(|| format!("replace {}", data.display()))?;
        name
    };
    show(target, files)?;
    clean(target, files, &kept)
}

/// Whether `directory` holds exactly these files with these contents.
fn same(directory: &Path, files: &Files) -> bool {
    let mut found = BTreeSet::new();
    list(directory, directory, &mut found).is_ok()
        && found.iter().eq(files
            .keys()
            .map(|path| clean_path(path))
            .collect::<BTreeSet<_>>()
            .iter())
        && files.iter().all(|(path, file)| {
            fs::read(directory.join(path)).is_ok_and(|content| content == file.data)
        })
}

fn list(root: &Path, directory: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(root, &entry.path(), found)?;
        } else {
            found.insert(entry.path().strip_prefix(root).unwrap_or(&entry.path()).to_path_buf());
        }
    }
    Ok(())
}

/// Without `.` and doubled slashes.
fn clean_path(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// `..2026_11_21_10_40_00.123456789`, as upstream names it.
fn new_directory(target: &Path) -> Attempt<PathBuf> {
    let now = SystemClock.now().rfc3339();
    let time: String =
        now.chars().take(19).map(|c| if c.is_ascii_digit() { c } else { '_' }).collect();
    let name = format!("..{time}.{}", SystemEntropy::default().below(10_000_000_000));
    let path = target.join(&name);
    let attempt = || format!("create directory {}", path.display());
    DirBuilder::new().mode(0o755).create(&path).attempted(attempt)?;
    fs::set_permissions(&path, Permissions::from_mode(0o755)).attempted(attempt)?;
    Ok(PathBuf::from(name))
}

fn fill(directory: &Path, files: &Files) -> Attempt<()> {
    for (path, file) in files {
        let path = directory.join(clean_path(path));
        if let Some(parent) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .attempted(|| format!("create directory {}", parent.display()))?;
        }
        let attempt = || format!("write {}", path.display());
        let mut options = OpenOptions::new();
        // Nobody reads it before it has its final mode.
        let mut output =
            options.write(true).create_new(true).mode(0o600).open(&path).attempted(attempt)?;
        output.write_all(&file.data).attempted(attempt)?;
        if let Some(owner) = file.owner {
            chown(&path, Some(owner), None)
                .attempted(|| format!("give {} away", path.display()))?;
        }
        output.set_permissions(Permissions::from_mode(file.mode & 0o7777)).attempted(attempt)?;
    }
    Ok(())
}

/// The names that users see, each a link through `..data`.
fn show(target: &Path, files: &Files) -> Attempt<()> {
    for name in visible(files) {
        let link = target.join(&name);
        match symlink(Path::new(DATA).join(&name), &link) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).attempted(|| format!("link {}", link.display())),
        }
    }
    Ok(())
}

/// Removes names that no longer exist, former data and what a crash left.
fn clean(target: &Path, files: &Files, kept: &Path) -> Attempt<()> {
    let visible = visible(files);
    let attempt = || format!("clean {}", target.display());
    for entry in fs::read_dir(target).attempted(attempt)? {
        let entry = entry.attempted(attempt)?;
        let name = PathBuf::from(entry.file_name());
        let is_directory = entry.file_type().attempted(attempt)?.is_dir();
        let hidden = name.as_os_str().as_bytes().starts_with(b"..");
        if name == kept || name == Path::new(DATA) || visible.contains(&name) {
            continue;
        }
        if hidden && is_directory {
            fs::remove_dir_all(entry.path()).attempted(attempt)?;
        } else if !is_directory {
            fs::remove_file(entry.path()).attempted(attempt)?;
        }
    }
    Ok(())
}

fn visible(files: &Files) -> BTreeSet<PathBuf> {
    files.keys().filter_map(|path| clean_path(path).iter().next().map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProjectedFile;

    fn files(list: &[(&str, &str)]) -> Files {
        let file = |text: &str| ProjectedFile { data: text.into(), mode: 0o640, owner: None };
        list.iter().map(|(path, text)| (path.to_string(), file(text))).collect()
    }

    fn entries(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn readers_see_the_old_set_or_the_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let pod = PodRef::default();
        write(root, &files(&[("a", "1"), ("app/conf", "x"), ("old", "gone")]), &pod).unwrap();
        let first = fs::read_link(root.join(DATA)).unwrap();
        assert!(first.to_str().unwrap().starts_with("..20"), "{first:?}");
        assert_eq!(fs::read_link(root.join("app")).unwrap(), Path::new("..data/app"));
        assert_eq!(fs::read_to_string(root.join("app/conf")).unwrap(), "x");
        let mode = fs::metadata(root.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);

        // The same again changes nothing, so that watchers are not woken.
        write(root, &files(&[("a", "1"), ("app/conf", "x"), ("old", "gone")]), &pod).unwrap();
        assert_eq!(fs::read_link(root.join(DATA)).unwrap(), first);

        // An open directory keeps the old set; the path shows the new one.
        write(root, &files(&[("a", "2"), ("app/conf", "y")]), &pod).unwrap();
        assert_ne!(fs::read_link(root.join(DATA)).unwrap(), first);
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "2");
        assert!(!root.join("old").exists() && !root.join(first).exists());
        assert_eq!(entries(root).len(), 4);
    }

    #[test]
    fn a_crash_in_between_is_cleaned_up_by_the_next_write() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("..2020_01_01_00_00_00.1")).unwrap();
        symlink("..2020_01_01_00_00_00.1", root.join(DATA_NEW)).unwrap();
        write(root, &files(&[("a", "1")]), &PodRef::default()).unwrap();
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "1");
        assert_eq!(entries(root).len(), 3);
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        for path in ["", "/etc/passwd", "a/../../b", "..data", "..x/y"] {
            assert!(valid_path(path).is_err(), "{path}");
        }
        assert_eq!(valid_path("a/..b"), Ok(()));
    }
}
