//! Builds one of our small programs as a static file, to be carried inside the binary.
//!
//! The outer build is dynamic and for another profile, so this is a cargo of its own, with a target
//! directory of its own: two cargos on one would wait for each other forever.

use std::{env, fs, path::Path, process::Command};

/// Builds the crate `../<name>` and leaves the program at `OUT_DIR/<name>`.
pub(crate) fn build(name: &str) {
    let needed = |key: &str| env::var(key).unwrap_or_else(|_| panic!("cargo sets {key}"));
    let (out, target) = (needed("OUT_DIR"), needed("TARGET"));
    let folder = Path::new(&needed("CARGO_MANIFEST_DIR")).join("..").join(name);
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-changed=build");
    let target_dir = Path::new(&out).join("static");

    let mut cargo = Command::new(needed("CARGO"));
    cargo.args(["build", "--quiet", "--release", "--locked", "--bin", name, "--target", &target]);
    cargo.arg("--manifest-path").arg(folder.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target_dir);
    for setting in ["opt-level='s'", "lto=true", "panic='abort'", "codegen-units=1", "strip=true"] {
        cargo.args(["--config", &format!("profile.release.{setting}")]);
    }
    // Flags of the outer build (a sanitizer, clippy as the compiler) are not meant for this one.
    for key in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_TARGET_DIR"] {
        cargo.env_remove(key);
    }
    // Not position independent: no relocations, so fewer private pages for each running program.
    let flags = ["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));

    let status = cargo.status().unwrap_or_else(|error| panic!("run cargo for {name}: {error}"));
    assert!(status.success(), "building the static program {name} failed: {status}");
    let built = target_dir.join(&target).join("release").join(name);
    let program = Path::new(&out).join(name);
    // A new file: the old one may have other names, and what is behind them is not ours to change.
    let _there_was_none = fs::remove_file(&program);
    fs::copy(&built, &program).unwrap_or_else(|error| {
        panic!("copy {} to {}: {error}", built.display(), program.display())
    });
}
