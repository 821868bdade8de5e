//! PyPI's `kubernetes`, in an environment of its own below the target directory: made at the first call.

use crate::program::profile_directory;
use std::{path::PathBuf, process::Command, sync::OnceLock};

/// By name and version, so that every run speaks to the same program.
const PACKAGE: &str = "kubernetes==34.1.0";

/// A Python that has the package; `None`, and says why, where it cannot be had (no Python, no network).
pub fn python() -> Option<PathBuf> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(prepare) {
        Ok(python) => Some(python.clone()),
        Err(why) => {
            println!("skipped: PyPI's kubernetes: {why}");
            None
        }
    }
}

fn prepare() -> Result<PathBuf, String> {
    let folder = profile_directory().parent().expect("a target directory").join("python");
    let python = folder.join("bin/python");
    let works = || {
        let import = Command::new(&python).args(["-c", "import kubernetes.stream"]).output();
        import.is_ok_and(|it| it.status.success())
    };
    if works() {
        return Ok(python);
    }
    let run = |command: &mut Command| {
        let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
        let last = String::from_utf8_lossy(&output.stderr);
        let last = last.lines().last().unwrap_or_default().to_owned();
        if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {last}")) }
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", PACKAGE]))?;
    if works() { Ok(python) } else { Err("it is installed and cannot be imported".to_owned()) }
}
