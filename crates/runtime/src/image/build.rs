//! `stanchion image build`: a directory as it is becomes the one layer of an image.
//!
//! No Dockerfile is read: what would be needed to run its steps is a container, and that is for other programs.

use super::{Attempt, Digest, Image, ImageConfig, ImageError, ImageStore, Reference, Result};
use rustix::fs::{CWD, Mode, OFlags};
use std::{
    fs::File,
    io::{self, Seek, Write},
    path::Path,
};

impl ImageStore {
    /// Makes an image of everything in `root`, owned by root, run as `config` says.
    pub fn build(&self, root: &Path, name: &str, config: &ImageConfig) -> Result<Image> {
        Reference::parse(name)?;
        let attempted = || format!("read {}", root.display());
        if !std::fs::metadata(root).attempt(attempted)?.is_dir() {
            return Err(ImageError::Archive(format!("{} is not a directory", root.display())));
        }
        if root.join("Dockerfile").exists() {
            return Err(ImageError::Archive(format!(
                "{} holds a Dockerfile, and its steps cannot be run here: give the directory that shall be the image's root",
                root.display()
            )));
        }
        let scratch = self.directory().join("tmp");
        let layer = layer(root, &scratch).attempt(attempted)?;
        let (diff_id, mut layer) = layer;
        let config = config_file(config, &diff_id);
        let id = Digest::of(&config);
        let manifest = serde_json::json!([{
            "Config": format!("{}.json", id.hex()), "RepoTags": [name], "Layers": ["layer.tar"],
        }]);
        let made = || format!("make an image of {}", root.display());
        let mut archive = tar::Builder::new(unnamed(&scratch).attempt(made)?);
        let mut add = |name: &str, length: u64, content: &mut dyn io::Read| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(length);
            archive.append_data(&mut header, name, content).attempt(made)
        };
        let manifest = manifest.to_string().into_bytes();
        add("manifest.json", manifest.len() as u64, &mut &manifest[..])?;
        add(&format!("{}.json", id.hex()), config.len() as u64, &mut &config[..])?;
        let length = layer.metadata().attempt(made)?.len();
        layer.rewind().attempt(made)?;
        add("layer.tar", length, &mut layer)?;
        let mut archive = archive.into_inner().attempt(made)?;
        archive.flush().and_then(|()| archive.rewind()).attempt(made)?;
        let mut images = self.import_reader(archive)?;
        images.pop().ok_or_else(|| ImageError::NotFound(name.to_owned()))
    }
}

/// A file that has no name and goes with its descriptor.
fn unnamed(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// The directory as a plain tar: names in order, owned by root, links as they are.
fn layer(root: &Path, scratch: &Path) -> io::Result<(Digest, File)> {
    let mut builder = tar::Builder::new(unnamed(scratch)?);
    builder.follow_symlinks(false);
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        let mut paths: Vec<_> = std::fs::read_dir(&directory)?
            .map(|entry| entry.map(|it| it.path()))
            .collect::<io::Result<_>>()?;
        paths.sort();
        for path in paths {
            let found = std::fs::symlink_metadata(&path)?;
            let name = path.strip_prefix(root).map_err(io::Error::other)?.to_owned();
            let mut header = tar::Header::new_gnu();
            header.set_metadata(&found);
            header.set_uid(0);
            header.set_gid(0);
            if found.is_dir() {
                builder.append_data(&mut header, &name, io::empty())?;
                left.push(path);
            } else if found.is_symlink() {
                header.set_size(0);
                builder.append_link(&mut header, &name, std::fs::read_link(&path)?)?;
            } else if found.is_file() {
                builder.append_data(&mut header, &name, File::open(&path)?)?;
            } else {
                let text = format!("{} is neither file, directory nor link", path.display());
                return Err(io::Error::other(text));
            }
        }
    }
    let mut file = builder.into_inner()?;
    file.rewind()?;
    let hashed = super::digest::Hashing::new(file).finish(super::unpack::BYTES_MAX)?;
    Ok(hashed)
}

fn config_file(config: &ImageConfig, diff_id: &Digest) -> Vec<u8> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let ports: serde_json::Map<String, serde_json::Value> =
        config.exposed_ports.iter().map(|it| (it.clone(), serde_json::json!({}))).collect();
    let file = serde_json::json!({
        "os": "linux",
        "architecture": architecture,
        "config": {
            "Env": config.env,
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "User": config.user,
            "WorkingDir": config.working_dir,
            "ExposedPorts": ports,
            "Labels": config.labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
    });
    serde_json::to_vec(&file).expect("plain data becomes JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_becomes_an_image_that_runs_as_told() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: building needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/motd"), "hello").unwrap();
        std::os::unix::fs::symlink("etc/motd", root.join("link")).unwrap();
        let store = ImageStore::open(directory.path().join("images")).unwrap();
        let config = ImageConfig { cmd: vec!["/run".to_owned()], ..ImageConfig::default() };
        let image = store.build(&root, "mine:1", &config).unwrap();
        assert_eq!(image.references, ["docker.io/library/mine:1"]);
        assert_eq!(image.config.cmd, ["/run"]);
        assert_eq!(std::fs::read_to_string(image.layers[0].join("link")).unwrap(), "hello");
        std::fs::write(root.join("Dockerfile"), "FROM scratch").unwrap();
        let error = store.build(&root, "mine:2", &config).unwrap_err().to_string();
        assert!(error.contains("holds a Dockerfile"), "{error}");
        assert!(store.build(&root.join("etc/motd"), "mine:3", &config).is_err());
    }
}
