//! Chores of the workspace: `cargo xtask CHORE`.
#![forbid(unsafe_code)]

mod bench;
mod conformance;
mod fuzz;
mod images;
mod tidy;

use anyhow::{Result, bail};
use std::process::ExitCode;

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((chore, rest)) if chore == "bench" => bench::run(rest),
        Some((chore, rest)) if chore == "conformance" => conformance::run(rest),
        Some((chore, rest)) if chore == "fuzz" => fuzz::run(rest),
        Some((chore, rest)) if chore == "images" => images::run(rest),
        Some((chore, [])) if chore == "tidy" => tidy::run(),
        _ => bail!(
            "usage: cargo xtask bench [NAME…] | conformance FLAGS… | fuzz TARGET | images DIR | tidy"
        ),
    }
}
