//! A server of our own for one figure: fresh directory, free port, addresses that nobody else has.

use crate::{
    Options,
    client::{Access, Connection},
    figures::Counters,
};
use anyhow::{Context, Result, anyhow, bail};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// A server that is not ready after this long never will be.
const READY: Duration = Duration::from_secs(60);

/// A directory in which servers can be started one after another.
pub(crate) struct Place {
    binary: PathBuf,
    directory: TempDir,
    node: bool,
    /// A node was started here and not yet taken down.
    used: AtomicBool,
}

impl Drop for Place {
    /// After a failure: whatever a node left on this host goes all the same.
    fn drop(&mut self) {
        if self.used.load(Ordering::Relaxed) {
            let mut command = std::process::Command::new(&self.binary);
            command.arg("down").arg("--data-dir").arg(self.directory.path());
            if let Err(error) = command.status() {
                eprintln!("stanchion down: {error}");
            }
        }
    }
}

pub(crate) struct Instance {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) begun: Instant,
    /// What the ready line says.
    pub(crate) said_ms: f64,
    /// From the start of the process until `/readyz` answered 200.
    pub(crate) ready: Duration,
    pub(crate) access: Access,
}

impl Place {
    pub(crate) fn new(options: &Options, node: bool) -> Result<Place> {
        let directory = tempfile::Builder::new()
            .prefix("stanchion-bench-")
            .tempdir_in(&options.directory)
            .context("make a data dir")?;
        Ok(Place { binary: options.binary.clone(), directory, node, used: AtomicBool::new(false) })
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(verb).arg("--data-dir").arg(self.directory.path()).kill_on_drop(true);
        command
    }

    fn up_command(&self) -> Command {
        let mut command = self.command("up");
        // One of 30 ranges of its own for each process that measures.
        let range = std::process::id() % 30;
        command.args(["--listen", "127.0.0.1:0", "--kubelet-port", "0"]);
        command.arg("--cluster-cidr").arg(format!("10.{}.0.0/16", 192 + range));
        command.arg("--service-cidr").arg(format!("10.{}.0.0/16", 224 + range));
        command
    }

    /// `stanchion up`, until it is ready.
    pub(crate) async fn up(&self, apply: Option<&Path>) -> Result<Instance> {
        let mut command = self.up_command();
        if !self.node {
            command.arg("--no-node");
        }
        if let Some(manifests) = apply {
            command.arg("--apply").arg(manifests);
        }
        self.used.store(self.node, Ordering::Relaxed);
        let begun = Instant::now();
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.with_context(|| format!("start {}", self.binary.display()))?;
        let stdout = child.stdout.take().context("read what the server says")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = stdx::timeout(READY, lines.next_line()).await.context("no ready line")??;
        let line = line.context("the server ended before it was ready")?;
        let said = line.strip_prefix("ready in ").and_then(|it| it.split(' ').next());
        let said_ms = said.and_then(|it| it.parse().ok());
        let said_ms = said_ms.ok_or_else(|| anyhow!("not a ready line: {line}"))?;
        let access = Access::read(&self.directory.path().join("admin.kubeconfig"))?;
        access.connect().await?.read("/readyz").await?;
        let ready = begun.elapsed();
        Ok(Instance { child, lines, begun, said_ms, ready, access })
    }

    /// Ends the server as a service manager does.
    pub(crate) async fn stop(&self, mut instance: Instance) -> Result<()> {
        let pid = instance.pid().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.context("stop the server")?;
        stdx::timeout(READY, instance.child.wait()).await.context("the server does not stop")??;
        Ok(())
    }

    /// Ends the server and everything that it started.
    pub(crate) async fn down(&self, instance: Instance) -> Result<()> {
        self.stop(instance).await?;
        if self.node {
            let output = self.command("down").output().await.context("run stanchion down")?;
            if !output.status.success() {
                bail!("stanchion down: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            self.used.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Instance {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// What it says next on its standard output.
    pub(crate) async fn line(&mut self) -> Result<String> {
        let line = stdx::timeout(READY, self.lines.next_line()).await.context("said nothing")??;
        line.context("the server ended")
    }

    pub(crate) async fn counters(&self, connection: &mut Connection) -> Result<Counters> {
        let metrics = connection.read("/metrics").await?;
        Counters::read(&String::from_utf8_lossy(&metrics), self.pid())
    }
}
