//! A registry of Debian's package docker-registry on a loopback port of its own, and what is pushed to it.

use crate::until;
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Of the private registry. The hash is `htpasswd -nbB ann geheim`.
pub const USER: &str = "ann";
pub const PASSWORD: &str = "geheim";
const HTPASSWD: &str = "ann:$2y$05$.HEqLYtT8qgG69y9n0AhLub.H5sZrZ/RKba9YuU6559kxScckd9zm\n";

/// `ann:geheim` in base64.
pub const AUTH: &str = "YW5uOmdlaGVpbQ==";

/// A registry; it ends, and its files go, with the value.
pub struct Registry {
    pub address: String,
    child: Child,
    directory: PathBuf,
    private: bool,
}

impl Registry {
    /// `None`, and says so, where there is no such program. `private`: only for [`USER`].
    pub fn start(directory: &Path, private: bool) -> Option<Registry> {
        if Command::new("docker-registry").arg("--version").output().is_err() {
            println!("skipped: needs docker-registry (package docker-registry)");
            return None;
        }
        fs::create_dir_all(directory).expect("a directory for the registry");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let address = port.expect("a free port").to_string();
        let passwords = directory.join("htpasswd");
        fs::write(&passwords, HTPASSWD).expect("write htpasswd");
        let auth = match private {
            true => format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", passwords.display()),
            false => String::new(),
        };
        let config = directory.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: \"{address}\"}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n{auth}",
            directory.join("storage").display()
        );
        fs::write(&config, text).expect("write the registry's configuration");
        let log = fs::File::create(directory.join("log")).expect("a log");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("docker-registry starts");
        let registry = Registry { address, child, directory: directory.to_owned(), private };
        until("the registry answers", || {
            TcpStream::connect(&registry.address).map(drop).map_err(|error| error.to_string())
        });
        Some(registry)
    }

    /// Pushes the one image of a docker archive, its layers compressed.
    pub fn push(&self, archive: &Path, repository: &str, tag: &str) {
        let unpacked = self.directory.join(format!("{}-{tag}", repository.replace('/', "-")));
        fs::create_dir_all(&unpacked).expect("a directory");
        run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&unpacked));
        let read = |name: &str| fs::read(unpacked.join(name)).expect("a member of the archive");
        let list: serde_json::Value = serde_json::from_slice(&read("manifest.json")).unwrap();
        let image = &list[0];
        let mut config = self.blob(repository, &unpacked.join(image["Config"].as_str().unwrap()));
        config["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
        let layers: Vec<serde_json::Value> = image["Layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| {
                let layer = unpacked.join(it.as_str().unwrap());
                run(Command::new("gzip").arg("-nf").arg(&layer));
                let packed = PathBuf::from(format!("{}.gz", layer.display()));
                let mut layer = self.blob(repository, &packed);
                layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
                layer
            })
            .collect();
        let media_type = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers,
        });
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, _) = self.ask("PUT", &path, media_type, manifest.to_string().as_bytes());
        assert_eq!(status, 201, "push {repository}:{tag}");
    }

    fn blob(&self, repository: &str, file: &Path) -> serde_json::Value {
        let sum = Command::new("sha256sum").arg(file).output().expect("sha256sum");
        let sum = String::from_utf8(sum.stdout).expect("hex digits");
        let digest = format!("sha256:{}", &sum[..64]);
        let (status, location) =
            self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "text/plain", b"");
        assert_eq!(status, 202, "begin to push a blob");
        let location = location.expect("where to push a blob");
        let path = location.split_once(&self.address).map_or(&*location, |(_, path)| path);
        let bytes = fs::read(file).expect("a blob");
        let path = format!("{path}&digest={digest}");
        let (status, _) = self.ask("PUT", &path, "application/octet-stream", &bytes);
        assert_eq!(status, 201, "push a blob");
        serde_json::json!({ "digest": digest, "size": bytes.len() })
    }

    /// Status and Location.
    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, Option<String>) {
        let mut stream = TcpStream::connect(&self.address).expect("the registry");
        let auth = match self.private {
            true => format!("authorization: Basic {AUTH}\r\n"),
            false => String::new(),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
             {auth}content-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
        let location = answer.lines().find_map(|line| {
            line.split_once(": ").filter(|it| it.0.eq_ignore_ascii_case("location"))
        });
        (status, location.map(|it| it.1.to_owned()))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _gone = fs::remove_dir_all(&self.directory);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
