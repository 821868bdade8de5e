//! From the request for a container to its first output: the runtime's own benchmark.

use crate::Options;
use anyhow::{Context, Result, bail};
use tokio::process::Command;

pub(crate) async fn measure(_options: &Options) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["run", "--quiet", "--release", "-p", "runtime", "--example", "bench"]);
    let status = command.status().await.context("run the runtime's benchmark")?;
    if !status.success() {
        bail!("the runtime's benchmark: {status}");
    }
    Ok(())
}
