//! Namespaces that a process of ours keeps: it ends, and they with it, when the test does, however that ends.

use crate::Said;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::fd::AsFd,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Sets the namespaces up, says so, and waits for the end of its input. The words: name, directory, files of `/etc`.
const KEEPER: &str = r#"
printf '%s' "$1" > /proc/sys/kernel/hostname
directory=$2
shift 2
for file; do
  if [ -e "/etc/$file" ]; then mount --bind "$directory/etc/$file" "/etc/$file"; fi
done
ip link set lo up
echo kept
exec cat
"#;

/// What hosts need and this machine lacks.
pub(super) fn lacks() -> Option<&'static str> {
    let works = |words: &[&str]| {
        Command::new(words[0]).args(&words[1..]).output().is_ok_and(|it| it.status.success())
    };
    if !works(&["nsenter", "--version"]) {
        Some("nsenter")
    } else if !works(&["unshare", "--net", "--mount", "--uts", "ip", "link", "add", "type", "veth"])
    {
        Some("ip, and network, mount and UTS namespaces")
    } else {
        None
    }
}

pub(super) struct Space {
    keeper: Child,
}

impl Space {
    /// New network, mount and UTS namespaces. `files` of `directory/etc` stand in for those of `/etc`.
    pub(super) fn open(name: &str, directory: &Path, files: &[&str]) -> Space {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--uts", "--", "sh", "-e", "-c", KEEPER, "keeper", name]);
        command.arg(directory).args(files).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().expect("unshare starts");
        let said = BufReader::new(keeper.stdout.take().expect("a pipe")).lines().next();
        let said = said.and_then(Result::ok);
        assert_eq!(said.as_deref(), Some("kept"), "namespaces of {name}");
        Space { keeper }
    }

    /// Of a process in the namespaces.
    pub(super) fn process(&self) -> u32 {
        self.keeper.id()
    }

    /// The words that lead a program into the namespaces.
    pub(super) fn enter(&self) -> Vec<String> {
        let target = self.process().to_string();
        ["nsenter", "--target", &target, "--net", "--mount", "--uts", "--"]
            .map(str::to_owned)
            .into()
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let enter = self.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).arg(program);
        // Nobody's proxy is reached from here.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env_remove(name);
        }
        command
    }

    pub(super) fn run(&self, words: &[&str]) -> Said {
        Said::of(self.command(words[0]).args(&words[1..]), "")
    }

    #[track_caller]
    pub(super) fn ok(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert!(said.ok, "{}: {}{}", words.join(" "), said.out, said.errors);
        said.out
    }

    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network_of(self.process(), work)
    }
}

/// Works on a thread of its own in the network namespace of a process, a pod's for example: what it opens is there.
pub fn in_network_of<T: Send>(process: u32, work: impl FnOnce() -> T + Send) -> T {
    let space = File::open(format!("/proc/{process}/ns/net")).expect("a namespace");
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(space.as_fd(), network).expect("enter the namespace");
            work()
        });
        entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for Space {
    fn drop(&mut self) {
        // It reads to the end of its input.
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}

/// Writes a file for `/etc` of a space.
pub(super) fn write_etc(directory: &Path, file: &str, text: &str) {
    fs::create_dir_all(directory.join("etc")).expect("a directory");
    fs::write(directory.join("etc").join(file), text).expect("write a file");
}
