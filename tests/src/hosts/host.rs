//! One machine of a story.

use super::{
    running::Running,
    space::{self, Space},
};
use crate::{Kubectl, Said, cluster::tail, program};
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

pub struct Host {
    name: String,
    address: Ipv4Addr,
    directory: PathBuf,
    space: Space,
    /// The switch's end of its wire.
    port: String,
}

impl Host {
    /// `all` is who it knows by name.
    pub(super) fn open(
        place: &Path,
        name: &str,
        address: Ipv4Addr,
        all: &[(String, Ipv4Addr)],
    ) -> Host {
        let directory = place.join(name);
        fs::create_dir_all(directory.join("log")).expect("a directory for a host");
        let known: String = all.iter().map(|(name, at)| format!("{at} {name}\n")).collect();
        space::write_etc(&directory, "hosts", &format!("127.0.0.1 localhost\n{known}"));
        space::write_etc(&directory, "hostname", &format!("{name}\n"));
        // Nobody answers for other names; whoever asks is told so at once.
        space::write_etc(&directory, "resolv.conf", "nameserver 127.0.0.1\n");
        let space = Space::open(name, &directory, &["hosts", "hostname", "resolv.conf"]);
        let port = format!("p{}", address.octets()[3]);
        Host { name: name.to_owned(), address, directory, space, port }
    }

    /// A wire from `eth0` to the switch.
    pub(super) fn plug(&self, switch: &Space, gateway: Ipv4Addr) {
        let target = self.space.process().to_string();
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &target];
        switch.ok(&[&["ip", "link", "add", &self.port][..], &pair].concat());
        switch.ok(&["ip", "link", "set", &self.port, "master", "br0", "up"]);
        let own = format!("{}/24", self.address);
        self.space.ok(&["ip", "address", "add", &own, "dev", "eth0"]);
        self.space.ok(&["ip", "link", "set", "eth0", "up"]);
        self.space.ok(&["ip", "route", "add", "default", "via", &gateway.to_string()]);
    }

    pub(super) fn port(&self) -> &str {
        &self.port
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where all of this host lies; the same path on the machine itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// For `--data-dir`; kubelet's directory is below it unless a flag says otherwise.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// A program on this host, not run yet.
    pub fn command(&self, program: &str) -> Command {
        self.space.command(program)
    }

    /// Runs a program on this host to its end.
    pub fn run(&self, words: &[&str]) -> Said {
        self.space.run(words)
    }

    /// What the program prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        self.space.ok(words)
    }

    /// A subcommand of the real binary on this host's data dir, to its end.
    pub fn stanchion(&self, words: &[&str]) -> Said {
        let mut command = self.command(stanchion());
        command.args(words).arg("--data-dir").arg(self.data_dir());
        Said::of(&mut command, "")
    }

    /// Starts the real binary with these words; `log` names the file of its standard error.
    pub fn serve(&self, log: &str, words: &[&str]) -> Running {
        self.spawn(log, &[&[stanchion()], words].concat())
    }

    /// Starts a program; `log` names the file of its standard error.
    pub fn spawn(&self, log: &str, words: &[&str]) -> Running {
        let mut command = self.command(words[0]);
        command.args(&words[1..]);
        Running::start(command, &self.log(log))
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.directory.join("log").join(name)
    }

    /// kubectl on this host.
    pub fn kubectl(&self, kubeconfig: &Path) -> Kubectl {
        let (home, kubeconfig) = (self.directory.clone(), kubeconfig.to_owned());
        Kubectl { enter: self.space.enter(), home, kubeconfig }
    }

    /// Works on a thread in this host's network: sockets that it opens are the host's.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.space.within(work)
    }

    /// The ends of all logs.
    pub(super) fn logs(&self) -> String {
        let logs = fs::read_dir(self.directory.join("log")).into_iter().flatten().flatten();
        let one = |path: PathBuf| format!("{}:\n{}\n", path.display(), tail(&path, 60));
        logs.map(|it| one(it.path())).collect()
    }

    /// Takes down what an instance has made here; its server has ended.
    pub(super) fn take_down(&self) {
        for process in crate::machine::processes_of(&self.data_dir().to_string_lossy()) {
            let _ended = Command::new("kill").args(["-KILL", &process.to_string()]).output();
        }
        if self.data_dir().exists() {
            let said = self.stanchion(&["down"]);
            if !said.ok {
                println!("{}: down: {}{}", self.name, said.out, said.errors);
            }
        }
    }
}

fn stanchion() -> &'static str {
    program::stanchion().to_str().expect("a path in UTF-8")
}
