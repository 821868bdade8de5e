//! The program under test and the images it is given: built once for all stories of a run.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The real binary, of the same profile as this test.
pub fn stanchion() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("STANCHION_BINARY") {
            return given.into();
        }
        let profile = profile_directory();
        let name = profile.file_name().and_then(|it| it.to_str()).unwrap_or("debug");
        let profile_name = if name == "debug" { "dev" } else { name };
        run(cargo().args(["build", "--quiet", "-p", "stanchion", "--profile", profile_name]));
        profile.join("stanchion")
    })
}

/// Archives as `docker save` writes them.
pub struct Images {
    pub busybox: PathBuf,
    pub nginx: PathBuf,
}

/// Built from Debian packages at the first call on this machine.
pub fn images() -> &'static Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let folder = profile_directory().parent().expect("a target directory").join("images");
        run(cargo().args(["run", "--quiet", "-p", "xtask", "--", "images"]).arg(&folder));
        Images { busybox: folder.join("busybox.tar"), nginx: folder.join("nginx.tar") }
    })
}

/// `target/debug`: above the `deps` where this test lies.
pub(crate) fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("this test is a file");
    test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").to_owned()
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace"));
    cargo
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
}
