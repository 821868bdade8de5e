//! The cluster that the specs run against: a server of ours on a data dir that nobody used before.

use anyhow::{Context, Result, bail, ensure};
use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Away from the ranges of the default cluster and of the stories, which may run beside this one.
const CIDRS: [&str; 2] = ["--cluster-cidr=10.62.0.0/16", "--service-cidr=10.63.0.0/16"];

pub(crate) struct Cluster {
    kubeconfig: PathBuf,
    /// None for a cluster of somebody else, which stays as it is.
    ours: Option<Ours>,
}

struct Ours {
    binary: PathBuf,
    data_dir: PathBuf,
    server: Child,
}

/// The server as it is shipped; its path.
pub(crate) fn build() -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .args(["build", "--release", "--package", "stanchion"])
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "build stanchion: {status}");
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target"));
    Ok(Path::new(&target).join("release/stanchion"))
}

impl Cluster {
    pub(crate) fn running(kubeconfig: &Path) -> Cluster {
        Cluster { kubeconfig: kubeconfig.to_owned(), ours: None }
    }

    /// Imports every archive of `images` and starts the server; its log goes to `results`.
    pub(crate) fn fresh(binary: &Path, images: &Path, results: &Path) -> Result<Cluster> {
        let binary = binary.canonicalize().with_context(|| format!("find {}", binary.display()))?;
        // Volumes need a real disk below them, so not /tmp.
        let data_dir =
            PathBuf::from(format!("/var/tmp/stanchion-conformance-{}", std::process::id()));
        let mut archives = Vec::new();
        for entry in fs::read_dir(images).with_context(|| format!("read {}", images.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == "tar") {
                archives.push(path);
            }
        }
        ensure!(!archives.is_empty(), "no *.tar in {}", images.display());
        archives.sort();
        for archive in &archives {
            let status = Command::new(&binary)
                .args(["image", "import", "--data-dir"])
                .args([&data_dir, archive])
                .stdout(Stdio::null())
                .status()
                .with_context(|| format!("run {}", binary.display()))?;
            ensure!(status.success(), "import {}: {status}", archive.display());
        }
        let log = fs::File::create(results.join("server.log"))?;
        let mut server = Command::new(&binary)
            .args(["up", "--listen=127.0.0.1:0", "--kubelet-port=0"])
            .args(CIDRS)
            .arg("--data-dir")
            .arg(&data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let output = server.stdout.take().context("the server's output")?;
        let kubeconfig = data_dir.join("admin.kubeconfig");
        let cluster = Cluster { kubeconfig, ours: Some(Ours { binary, data_dir, server }) };
        let mut lines = BufReader::new(output).lines();
        loop {
            let Some(line) = lines.next().transpose()? else {
                bail!("the server ended, see {}/server.log", results.display())
            };
            if line.starts_with("ready in ") {
                println!("{line}");
                break;
            }
        }
        // Read on until the server ends, so that it never writes into a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(cluster)
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(ours) = &mut self.ours else { return };
        let ended = Command::new("kill").arg(ours.server.id().to_string()).status();
        if ended.is_err() {
            let _killed = ours.server.kill();
        }
        let _reaped = ours.server.wait();
        let reset = Command::new(&ours.binary)
            .args(["reset", "--yes", "--data-dir"])
            .arg(&ours.data_dir)
            .stdout(Stdio::null())
            .status();
        if !reset.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("left behind: {} ({reset:?})", ours.data_dir.display());
        }
    }
}
