//! hostPath: a path of the node, as it is. Nothing is mounted; containers bind the path itself.
//!
//! Upstream: pkg/volume/hostpath/host_path.go (1.36), checkTypeInternal.

use crate::{
    Config, PublishVolume, Published, Result, VolumeError, VolumePlugin,
    error::{Attempt, Attempted, Failure, OnVolume},
    work::blocking,
};
use std::{
    fs::{self, DirBuilder, File, FileType, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path},
    sync::Arc,
};
use stdx::BoxFuture;

pub(crate) const NAME: &str = "kubernetes.io/host-path";

struct HostPath;

pub(crate) fn open(_: &Config) -> Arc<dyn VolumePlugin> {
    Arc::new(HostPath)
}

impl VolumePlugin for HostPath {
    fn name(&self) -> &str {
        NAME
    }

    /// `volume.context`: `path` (absolute), `type` (as in the API; empty or missing: no check).
    fn publish<'a>(&'a self, request: &'a PublishVolume) -> BoxFuture<'a, Result<Published>> {
        let (volume, read_only) = (request.volume.clone(), request.read_only);
        Box::pin(blocking("publish", &request.volume.handle, move || {
            let path = context_path(&volume.context)?;
            let kind = volume.context.get("type").map_or("", String::as_str);
            check(path, kind).on("publish", &volume.handle)?;
            Ok(Published { host_path: path.to_path_buf(), read_only })
        }))
    }

    fn unpublish<'a>(&'a self, _: &'a str, _: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// The absolute path without `..` that a hostPath or local volume names.
pub(crate) fn context_path(context: &std::collections::BTreeMap<String, String>) -> Result<&Path> {
    let path = Path::new(context.get("path").map_or("", String::as_str));
    if path.components().any(|part| part == Component::ParentDir) {
        let text = format!("invalid path `{}`: must not contain '..'", path.display());
        return Err(VolumeError::Invalid(text));
    }
    if !path.is_absolute() {
        let text = format!("invalid path `{}`: must be absolute", path.display());
        return Err(VolumeError::Invalid(text));
    }
    Ok(path)
}

fn check(path: &Path, kind: &str) -> Attempt<()> {
    let must_be = |what: &str, is: fn(&FileType) -> bool| match fs::metadata(path) {
        Ok(found) if is(&found.file_type()) => Ok(()),
        _ => Err(Failure::new(format!(
            "hostPath type check failed: {} is not a {what}",
            path.display()
        ))),
    };
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" => {
            if missing(path) {
                create_directories(path)?;
            }
            must_be("directory", FileType::is_dir)
        }
        "Directory" => must_be("directory", FileType::is_dir),
        "FileOrCreate" => {
            if missing(path) {
                create_file(path)?;
            }
            must_be("file", FileType::is_file)
        }
        "File" => must_be("file", FileType::is_file),
        "Socket" => must_be("socket file", FileType::is_socket),
        "CharDevice" => must_be("character device", FileType::is_char_device),
        "BlockDevice" => must_be("block device", FileType::is_block_device),
        other => Err(Failure::new(format!("{other} is an invalid volume type"))),
    }
}

fn missing(path: &Path) -> bool {
    matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Mode 0755 whatever the umask, and durable: a pod may be told that its directory is there.
fn create_directories(path: &Path) -> Attempt<()> {
    let mut new = Vec::new();
    let mut at = path;
    while missing(at) {
        new.push(at);
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    for directory in new.into_iter().rev() {
        let attempt = || format!("create directory {}", directory.display());
        match DirBuilder::new().mode(0o755).create(directory) {
            Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
                .attempted(attempt)?,
            // Another pod of the same path was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).attempted(attempt),
        }
    }
    Ok(())
}

fn create_file(path: &Path) -> Attempt<()> {
    let attempt = || format!("create file {}", path.display());
    let opened: io::Result<File> =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path);
    let file = opened.attempted(attempt)?;
    file.set_permissions(fs::Permissions::from_mode(0o644)).attempted(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn answer(path: &Path, kind: &str) -> String {
        check(path, kind).map_or_else(|failure| failure.to_string(), |()| "ok".to_string())
    }

    #[test]
    fn each_type_is_checked_with_upstreams_words() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "").unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let fails = |name: &str, what: &str| {
            format!("hostPath type check failed: {} is not a {what}", at(name).display())
        };
        assert_eq!(answer(&at("nothing"), ""), "ok");
        assert_eq!(answer(directory.path(), "Directory"), "ok");
        assert_eq!(answer(&at("file"), "Directory"), fails("file", "directory"));
        assert_eq!(answer(&at("nothing"), "Directory"), fails("nothing", "directory"));
        assert_eq!(answer(&at("file"), "DirectoryOrCreate"), fails("file", "directory"));
        assert_eq!(answer(&at("file"), "File"), "ok");
        assert!(answer(directory.path(), "FileOrCreate").contains("is not a file"));
        assert_eq!(answer(&at("socket"), "Socket"), "ok");
        assert_eq!(answer(&at("file"), "Socket"), fails("file", "socket file"));
        assert_eq!(answer(Path::new("/dev/null"), "CharDevice"), "ok");
        assert_eq!(answer(&at("file"), "CharDevice"), fails("file", "character device"));
        assert!(answer(Path::new("/dev/null"), "BlockDevice").contains("a block device"));
        assert_eq!(answer(&at("file"), "Pony"), "Pony is an invalid volume type");
    }

    #[test]
    fn creates_what_the_type_says_with_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let (deep, file) = (directory.path().join("a/b"), directory.path().join("f"));
        check(&deep, "DirectoryOrCreate").unwrap();
        check(&file, "FileOrCreate").unwrap();
        assert_eq!(fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        fs::write(&file, "kept").unwrap();
        check(&file, "FileOrCreate").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn steps_back_are_refused() {
        let context = [("path".to_string(), "/a/../b".to_string())].into();
        assert!(context_path(&context).unwrap_err().to_string().contains("must not contain '..'"));
    }
}
