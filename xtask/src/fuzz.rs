//! `cargo xtask fuzz TARGET --seconds N`: looks for bytes that break a target, beginning with its corpus.
//!
//! libFuzzer needs the compiler to count which edges are taken; the flags for that are LLVM's and work with the
//! stable compiler. What it finds new and interesting goes to `target/fuzz/corpus`, what breaks to `target/fuzz/found`.

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// An input that takes longer is a finding.
const TIMEOUT_SECONDS: u32 = 10;
/// So is one that makes the process larger.
const MEMORY_MIB: u32 = 2048;

/// What cargo-fuzz passes, without a sanitizer: no target reaches unsafe code of ours.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=16";

pub(crate) fn run(words: &[String]) -> Result<()> {
    let usage = "usage: cargo xtask fuzz TARGET [--seconds N]";
    let (name, seconds) = match words {
        [name] => (name, 60),
        [name, flag, seconds] if flag == "--seconds" => {
            (name, seconds.parse::<u32>().context("--seconds takes a number")?)
        }
        _ => bail!("{usage}"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("find the workspace")?;
    let given = root.join("fuzz/corpus").join(name);
    if !given.is_dir() {
        bail!("fuzz {name}: {} is not there; {usage}", given.display());
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join("fuzz");
    let machine = machine()?;
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // With a target named, the flags are not for build scripts and macros.
    build.current_dir(root).env("RUSTFLAGS", COVERAGE).arg("build").args([
        "--quiet",
        "--package",
        "fuzz",
        "--features",
        "libfuzzer",
        "--profile",
        "fuzz",
        "--target",
        &machine,
    ]);
    build.arg("--target-dir").arg(&folder);
    if !build.status().context("run cargo")?.success() {
        bail!("build the fuzzer");
    }
    let (grown, found) = (folder.join("corpus").join(name), folder.join("found").join(name));
    for path in [&grown, &found] {
        std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    }
    let mut fuzz = Command::new(folder.join(machine).join("fuzz/libfuzzer"));
    fuzz.env("STANCHION_FUZZ", name).args([&grown, &given]).args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={TIMEOUT_SECONDS}"),
        format!("-rss_limit_mb={MEMORY_MIB}"),
        format!("-artifact_prefix={}/", found.display()),
        "-print_final_stats=1".to_owned(),
    ]);
    let ended = fuzz.status().with_context(|| format!("run {fuzz:?}"))?;
    if !ended.success() {
        bail!("fuzz {name}: {ended}; what broke it is in {}", found.display());
    }
    println!("fuzz {name}: {seconds} s without a finding");
    Ok(())
}

/// The compiler's name for this machine.
fn machine() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
