//! `cargo xtask bench [NAME…]`: figures of the real binary, each with how it was taken. Asserts nothing.
//!
//! Every server that is measured lives in a directory of its own and is stopped afterwards.
#![forbid(unsafe_code)]

mod client;
mod figures;
mod instance;
mod measure;

use anyhow::{Context, Result, bail};
use std::{path::PathBuf, process::ExitCode};

/// What the command line says.
pub(crate) struct Options {
    pub(crate) binary: PathBuf,
    /// Data dirs are made here: on the disk that is to be measured.
    pub(crate) directory: PathBuf,
    pub(crate) clients: usize,
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
    pub(crate) objects: usize,
    pub(crate) manifests: PathBuf,
}

const USAGE: &str = "usage: cargo xtask bench [NAME…] [--binary FILE] [--dir DIR] [--clients 16]
    [--seconds 5] [--rounds 5] [--objects 1000] [--manifests examples/web]
without a name: all of them";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (names, options) = read(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start")?;
    println!(
        "{} cores, load {}; server {}",
        std::thread::available_parallelism().map_or(0, usize::from),
        figures::load(),
        options.binary.display()
    );
    for (name, what, measure) in measure::MEASURES {
        if names.is_empty() || names.iter().any(|it| it == name) {
            println!("\n{name}: {what}");
            runtime.block_on(measure(&options)).with_context(|| format!("measure {name}"))?;
        }
    }
    Ok(())
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<(Vec<String>, Options)> {
    let mut names = Vec::new();
    let mut options = Options {
        binary: "target/release/stanchion".into(),
        directory: std::env::temp_dir(),
        clients: 16,
        seconds: 5,
        rounds: 5,
        objects: 1000,
        manifests: "examples/web".into(),
    };
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix("--") else {
            if !measure::MEASURES.iter().any(|(name, ..)| *name == argument) {
                let names: Vec<_> = measure::MEASURES.iter().map(|(name, ..)| *name).collect();
                bail!("{USAGE}\nno figure is called {argument:?}; there are: {}", names.join(", "));
            }
            names.push(argument);
            continue;
        };
        let value = arguments.next().with_context(|| format!("{USAGE}\n--{flag} needs a value"))?;
        let number = || value.parse::<usize>().with_context(|| format!("read --{flag} {value}"));
        match flag {
            "binary" => options.binary = value.into(),
            "dir" => options.directory = value.into(),
            "manifests" => options.manifests = value.into(),
            "clients" => options.clients = number()?.max(1),
            "seconds" => options.seconds = number()?.max(1) as u64,
            "rounds" => options.rounds = number()?.max(1),
            "objects" => options.objects = number()?.max(1),
            _ => bail!("{USAGE}\nunknown flag --{flag}"),
        }
    }
    Ok((names, options))
}
