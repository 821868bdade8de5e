//! Images that travel inside the binary, so that the examples need no network.

use super::{Digest, ImageStore, Result};
use std::sync::Arc;

/// Built static by build.rs.
const TOOLBOX: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/toolbox"));

/// The image of the examples: our static multi-call program and nothing else.
pub const TOOLBOX_REFERENCE: &str = "stanchion.dev/toolbox:1";

/// The programs of the toolbox, each a link to it in /bin.
const PROGRAMS: [&str; 16] = [
    "cat", "df", "echo", "false", "fill", "get", "hostname", "id", "lookup", "ls", "rm", "serve",
    "sleep", "tee", "touch", "true",
];

/// Each built-in image with its reference and a docker archive of it.
pub fn builtin_images() -> Vec<(&'static str, Arc<[u8]>)> {
    vec![(TOOLBOX_REFERENCE, toolbox_image(TOOLBOX).archive.into())]
}

impl ImageStore {
    /// Imports the built-in images of this release if they are not there. For every start: when they
    /// are, this costs one hash of the program.
    pub fn import_builtin(&self) -> Result<()> {
        let toolbox = toolbox_image(TOOLBOX);
        match self.resolve(TOOLBOX_REFERENCE) {
            Some(present) if present.id == toolbox.id.to_string() => Ok(()),
            _ => self.import_bytes(toolbox.archive).map(drop),
        }
    }
}

/// The same bytes for the same program.
struct Builtin {
    id: Digest,
    archive: Vec<u8>,
}

fn toolbox_image(toolbox: &[u8]) -> Builtin {
    let layer = toolbox_layer(toolbox);
    let diff_id = Digest::of(&layer);
    let config = serde_json::json!({
        "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin"],
            "Entrypoint": ["/toolbox"],
            "Cmd": ["serve", "/data"],
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        "history": [{ "comment": "the toolbox of this release" }],
    });
    let config = serde_json::to_vec(&config).expect("plain data becomes JSON");
    let id = Digest::of(&config);
    let config_member = format!("{}.json", id.hex());
    let manifest = serde_json::json!([{
        "Config": config_member,
        "RepoTags": [TOOLBOX_REFERENCE],
        "Layers": ["layer.tar"],
    }]);
    let manifest = serde_json::to_vec(&manifest).expect("plain data becomes JSON");
    let mut archive = Archive::new();
    archive.file("manifest.json", 0o644, &manifest);
    archive.file(&config_member, 0o644, &config);
    archive.file("layer.tar", 0o644, &layer);
    Builtin { id, archive: archive.finish() }
}

fn toolbox_layer(toolbox: &[u8]) -> Vec<u8> {
    let mut layer = Archive::new();
    for (directory, mode) in [("bin", 0o755), ("data", 0o755), ("etc", 0o755), ("tmp", 0o1777)] {
        layer.entry(tar::EntryType::Directory, directory, mode, "", b"");
    }
    layer.file("toolbox", 0o755, toolbox);
    for program in PROGRAMS {
        layer.entry(tar::EntryType::Symlink, &format!("bin/{program}"), 0o777, "/toolbox", b"");
    }
    let passwd = b"root:x:0:0:root:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    layer.file("etc/passwd", 0o644, passwd);
    layer.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
    layer.finish()
}

/// A tar whose bytes depend on its content alone: no owners, no times.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Archive {
        Archive(tar::Builder::new(Vec::new()))
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(tar::EntryType::Regular, name, mode, "", content);
    }

    fn entry(&mut self, kind: tar::EntryType, name: &str, mode: u32, link: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).expect("links are short");
        }
        self.0.append_data(&mut header, name, content).expect("writing to memory");
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("writing to memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toolbox_image_is_imported_once_and_runs_as_it_is() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: import needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path()).unwrap();
        store.import_builtin().unwrap();
        let image = store.resolve(TOOLBOX_REFERENCE).unwrap();
        let program = image.layers[0].join("toolbox");
        let inode = || {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(&program).unwrap().ino()
        };
        let before = inode();
        store.import_builtin().unwrap();
        assert_eq!((inode(), store.list().unwrap()), (before, vec![image.clone()]));
        assert_eq!(image.config.entrypoint, ["/toolbox"]);
        for program in PROGRAMS {
            let link = std::fs::read_link(image.layers[0].join("bin").join(program)).unwrap();
            assert_eq!(link.to_str(), Some("/toolbox"));
        }
        // Statically linked: nothing of the machine is needed in its root.
        let root = &image.layers[0];
        let run =
            std::process::Command::new("chroot").arg(root).args(["/bin/echo", "a", "b"]).output();
        assert_eq!(run.unwrap().stdout, b"a b\n");
    }
}
