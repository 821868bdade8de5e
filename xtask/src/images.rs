//! Images for tests, built from Debian packages: nothing is pulled from a registry, nothing is committed.
//!
//! `cargo xtask images DIR` leaves `busybox.tar` and `nginx.tar` in DIR, as `docker save` would. What is
//! there already is kept. Needs apt-get and dpkg-deb, and a network or a filled apt cache.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// What nginx does in a container: stays in front, and logs to where `kubectl logs` looks.
const NGINX_CONF: &str = "\
daemon off;
user root;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr notice;
events { worker_connections 512; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /dev/stdout;
    sendfile on;
    keepalive_timeout 65;
    server {
        listen 80;
        location / {
            root /usr/share/nginx/html;
            index index.html index.htm;
        }
    }
}
";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Documentation and translations: no part of what runs.
const LEFT_OUT: [&str; 5] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/lib/x86_64-linux-gnu/gconv",
];

/// An image before it is an archive.
struct Plan {
    file: &'static str,
    references: &'static [&'static str],
    /// Debian packages to unpack, with the libraries they need.
    packages: &'static [&'static str],
    command: &'static [&'static str],
    stop_signal: Option<&'static str>,
    port: Option<u16>,
}

const PLANS: [Plan; 2] = [
    Plan {
        file: "busybox.tar",
        references: &["busybox:latest"],
        packages: &["busybox-static"],
        command: &["sh"],
        stop_signal: None,
        port: None,
    },
    Plan {
        file: "nginx.tar",
        references: &["nginx:1.9.1", "k8s.gcr.io/nginx-slim:0.8"],
        packages: &["busybox-static", "nginx", "nginx-common"],
        command: &["nginx"],
        stop_signal: Some("SIGQUIT"),
        port: Some(80),
    },
];

/// `cargo xtask images DIR`: builds what is missing and prints the path of each archive.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [directory] = arguments else { bail!("usage: cargo xtask images DIR") };
    for archive in build(Path::new(directory))? {
        println!("{}", archive.display());
    }
    Ok(())
}

/// Builds what is missing in `directory`; the paths of all archives.
pub(crate) fn build(directory: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let directory = directory.canonicalize()?;
    let mut archives = Vec::new();
    for plan in &PLANS {
        let archive = directory.join(plan.file);
        if !archive.exists() {
            // Two runs at once do not meet: each has a place of its own and ends with a rename.
            let work = directory.join(format!(".{}.{}", plan.file, std::process::id()));
            let built = plan.build(&directory, &work, &archive);
            let cleared = fs::remove_dir_all(&work);
            built.with_context(|| format!("build {}", archive.display()))?;
            cleared.with_context(|| format!("remove {}", work.display()))?;
        }
        archives.push(archive);
    }
    Ok(archives)
}

impl Plan {
    fn build(&self, directory: &Path, work: &Path, archive: &Path) -> Result<()> {
        let root = work.join("root");
        fs::create_dir_all(&root)?;
        fs::set_permissions(&root, Permissions::from_mode(0o755))?;
        let packages = directory.join("packages");
        fs::create_dir_all(&packages)?;
        for package in with_libraries(self.packages)? {
            unpack(&package, &packages, &root)?;
        }
        self.complete(&root)?;
        let layer = layer(&root)?;
        let staged = work.join("archive");
        fs::write(&staged, self.archive(&layer)?)?;
        fs::File::open(&staged)?.sync_all()?;
        fs::rename(&staged, archive)?;
        Ok(())
    }

    /// What no package brings: links, users, places to write, the configuration.
    fn complete(&self, root: &Path) -> Result<()> {
        for left_out in LEFT_OUT {
            let path = root.join(left_out);
            if path.exists() {
                fs::remove_dir_all(path)?;
            }
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            let merged = format!("usr/{name}");
            if !root.join(name).exists() && root.join(&merged).exists() {
                symlink(merged, root.join(name))?;
            }
        }
        for (name, mode) in
            [("etc", 0o755), ("root", 0o700), ("run", 0o755), ("tmp", 0o1777), ("var/tmp", 0o1777)]
        {
            fs::create_dir_all(root.join(name))?;
            fs::set_permissions(root.join(name), Permissions::from_mode(mode))?;
        }
        fs::write(root.join("etc/passwd"), PASSWD)?;
        fs::write(root.join("etc/group"), GROUP)?;
        let busybox = root.join("bin/busybox");
        for path in output(Command::new(&busybox).arg("--list-full"))?.lines() {
            let link = root.join(path);
            if let Some(folder) = link.parent() {
                fs::create_dir_all(folder)?;
            }
            if link.symlink_metadata().is_err() {
                symlink("/bin/busybox", link)?;
            }
        }
        if self.port.is_some() {
            for name in ["var/lib/nginx", "var/log/nginx"] {
                fs::create_dir_all(root.join(name))?;
            }
            fs::write(root.join("etc/nginx/nginx.conf"), NGINX_CONF)?;
            let page = root.join("usr/share/nginx/html/index.html");
            ensure!(page.exists(), "the packages bring no {}", page.display());
        }
        Ok(())
    }

    /// A docker archive of one layer.
    fn archive(&self, layer: &[u8]) -> Result<Vec<u8>> {
        let mut run = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": self.command,
        });
        if let Some(signal) = self.stop_signal {
            run["StopSignal"] = signal.into();
        }
        if let Some(port) = self.port {
            run["ExposedPorts"] = json!({ format!("{port}/tcp"): {} });
        }
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = serde_json::to_vec(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": run,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex(layer))] },
        }))?;
        let config_name = format!("{}.json", hex(&config));
        let manifest = serde_json::to_vec(&json!([
            { "Config": config_name, "RepoTags": self.references, "Layers": ["layer.tar"] }
        ]))?;
        let mut archive = tar::Builder::new(Vec::new());
        let members = [
            ("manifest.json", &manifest[..]),
            (config_name.as_str(), &config),
            ("layer.tar", layer),
        ];
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content)?;
        }
        Ok(archive.into_inner()?)
    }
}

/// The packages and, through all levels, the libraries they depend on.
fn with_libraries(packages: &[&str]) -> Result<BTreeSet<String>> {
    let mut wanted: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
    let mut all = BTreeSet::new();
    while let Some(package) = wanted.pop() {
        if !all.insert(package.clone()) {
            continue;
        }
        let mut query = Command::new("apt-cache");
        query.args(["depends", "--no-recommends", "--no-suggests", "--important"]).arg(&package);
        for line in output(&mut query)?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Debconf and its like serve installing; a container needs only what is linked.
            if let ["Depends:" | "PreDepends:", name] = words[..]
                && (name.starts_with("lib") || name == "zlib1g")
                && !name.ends_with("-perl")
            {
                wanted.push(name.to_owned());
            }
        }
    }
    Ok(all)
}

/// The files of a package below `root`: fetched, or else taken from this machine if it has it installed
/// (apt cannot fetch an installed version that the archive has replaced since the lists were read).
fn unpack(package: &str, packages: &Path, root: &Path) -> Result<()> {
    let fetched = match download(package, packages) {
        Ok(file) => {
            return run_command(Command::new("dpkg-deb").arg("-x").arg(&file).arg(root));
        }
        Err(error) => error,
    };
    let Ok(files) = output(Command::new("dpkg-query").args(["-L", package])) else {
        return Err(fetched);
    };
    for file in files.lines().map(Path::new) {
        let Ok(found) = file.symlink_metadata() else { continue };
        let copy = root.join(file.strip_prefix("/")?);
        if found.is_dir() {
            fs::create_dir_all(&copy)?;
            continue;
        }
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder)?;
        }
        if found.is_symlink() {
            symlink(fs::read_link(file)?, &copy)?;
        } else if found.is_file() {
            fs::copy(file, &copy)?;
        }
    }
    Ok(())
}

/// The package's file, fetched once into `packages`.
fn download(package: &str, packages: &Path) -> Result<PathBuf> {
    let find = || -> Result<Option<PathBuf>> {
        for entry in fs::read_dir(packages)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(&format!("{package}_")) && name.ends_with(".deb") {
                return Ok(Some(path));
            }
        }
        Ok(None)
    };
    if let Some(found) = find()? {
        return Ok(found);
    }
    let mut apt = Command::new("apt-get");
    apt.args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(packages);
    run_command(&mut apt)?;
    find()?.with_context(|| format!("apt-get download brought no file for {package}"))
}

/// A tar of a directory that depends on content, names and modes only.
fn layer(root: &Path) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&folder)? {
            paths.push(entry?.path());
        }
        paths.sort();
        for path in paths {
            let name = path.strip_prefix(root)?;
            let found = path.symlink_metadata()?;
            let mut header = tar::Header::new_gnu();
            header.set_mode(found.permissions().mode() & 0o7777);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            if found.is_dir() {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, name, &[][..])?;
                folders.push(path);
            } else if found.is_symlink() {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, name, fs::read_link(&path)?)?;
            } else if found.is_file() {
                let content = fs::read(&path)?;
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, &content[..])?;
            }
        }
    }
    Ok(builder.into_inner()?)
}

fn hex(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}").expect("writing to a String");
    }
    hex
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn run_command(command: &mut Command) -> Result<()> {
    std::io::stderr().write_all(output(command)?.as_bytes())?;
    Ok(())
}
