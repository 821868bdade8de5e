//! `cargo xtask bench …`: builds the server and the load generator for release and runs the latter.
//!
//! The generator is a crate of its own, so that the other chores stay quick to build.

use anyhow::{Context, Result, bail};
use std::{env, ffi::OsString, process::Command};

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let cargo = || Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    // A server that is named is taken as it is.
    if !arguments.iter().any(|it| it == "--binary") {
        finish(cargo().args(["build", "--release", "--package", "stanchion"]))?;
    }
    finish(
        cargo().args(["run", "--quiet", "--release", "--package", "bench", "--"]).args(arguments),
    )
}

fn finish(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
