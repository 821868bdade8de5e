//! An etcd of Debian's package etcd-server on loopback ports of its own.

use crate::until;
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// An etcd; it ends with the value. Its files are its caller's.
pub struct Etcd {
    pub address: String,
    peer: String,
    directory: PathBuf,
    child: Child,
}

impl Etcd {
    /// `None`, and says so, where there is no such program.
    pub fn start(directory: &Path) -> Option<Etcd> {
        if Command::new("etcd").arg("--version").output().is_err() {
            println!("skipped: needs etcd (package etcd-server)");
            return None;
        }
        fs::create_dir_all(directory).expect("a directory for etcd");
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
            listener.expect("a free port").to_string()
        };
        let (address, peer) = (free(), free());
        let child = spawn(directory, &address, &peer);
        let etcd = Etcd { address, peer, directory: directory.to_owned(), child };
        etcd.wait();
        Some(etcd)
    }

    /// For `--store`.
    pub fn url(&self) -> String {
        format!("etcd://{}", self.address)
    }

    /// What lies at a key, as its bytes; `None`, and says so, where there is no `etcdctl`.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.address));
        let said = command.args(["get", "--print-value-only", key]).output();
        if said.is_err() {
            println!("skipped: needs etcdctl (package etcd-client)");
        }
        Some(said.ok()?.stdout)
    }

    /// SIGKILL: it is gone before this returns.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill etcd");
        self.child.wait().expect("etcd is gone");
    }

    /// After [`Etcd::kill`], with what it had.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.directory, &self.address, &self.peer);
        self.wait();
    }

    fn wait(&self) {
        until("etcd answers", || {
            TcpStream::connect(&self.address).map(drop).map_err(|error| error.to_string())
        });
    }
}

fn spawn(directory: &Path, address: &str, peer: &str) -> Child {
    let (client, peer) = (format!("http://{address}"), format!("http://{peer}"));
    let log = fs::File::options().create(true).append(true).open(directory.join("log"));
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(directory.join("data")).args(["--logger", "zap"]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log"));
    command.spawn().expect("etcd starts")
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
