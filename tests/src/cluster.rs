//! One running instance of the binary.

use crate::{Kubectl, Said, machine, program, until};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

/// Volumes need a real disk below them, so not /tmp.
pub(crate) const PLACE: &str = "/var/tmp/stanchion-tests";

/// Address ranges of clusters that run at the same time: 10.64+n for pods, 10.128+n for services.
const SLOTS: u8 = 64;

/// How a story wants its cluster.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Archives to import before the first start.
    pub images: Vec<PathBuf>,
    /// More flags of `up`.
    pub flags: Vec<String>,
    /// The data dir gets a filesystem of its own, of so many MiB.
    pub disk_mib: Option<u32>,
    /// Authority and keys of another server, copied before the first start.
    pub keys: Option<PathBuf>,
}

/// A cluster of one story; stopped, taken down and erased with the value.
pub struct Cluster {
    story: String,
    directory: PathBuf,
    kubectl: Kubectl,
    slot: u8,
    /// Held as long as the slot is ours.
    _lock: File,
    port: u16,
    flags: Vec<String>,
    server: Option<Server>,
    starts: u32,
}

struct Server {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Cluster {
    /// A cluster with a node; `None`, and says so, where this machine cannot have one.
    pub fn start(story: &str) -> Option<Cluster> {
        Cluster::start_with(story, Options::default())
    }

    pub fn start_with(story: &str, options: Options) -> Option<Cluster> {
        if let Some(lacking) = machine::lacks() {
            println!("skipped: {story} needs {lacking}");
            return None;
        }
        let mut cluster = Cluster::new(story);
        if let Some(mib) = options.disk_mib {
            cluster.mount(mib);
        }
        if let Some(keys) = &options.keys {
            fs::create_dir_all(cluster.data_dir()).expect("a data dir");
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(keys).arg(cluster.data_dir().join("pki"));
            assert!(copy.status().expect("cp").success(), "copy {}", keys.display());
        }
        for archive in &options.images {
            let archive = archive.to_str().expect("a path in UTF-8");
            cluster.stanchion_ok(&["image", "import", archive]);
        }
        cluster.flags.extend(options.flags);
        cluster.up();
        Some(cluster)
    }

    fn new(story: &str) -> Cluster {
        fs::create_dir_all(PLACE).expect("a place for clusters");
        let free = |slot: &u8| {
            let lock = File::create(format!("{PLACE}/{slot}.lock")).ok()?;
            lock.try_lock().ok()?;
            Some((*slot, lock))
        };
        let (slot, lock) =
            (0..SLOTS).find_map(|slot| free(&slot)).expect("a free range of addresses");
        let directory = Path::new(PLACE).join(format!("{slot}-{story}"));
        // What a run that was killed left behind cannot be taken down without its server's flags: same slot, same flags.
        let mut cluster = Cluster {
            story: story.to_owned(),
            kubectl: Kubectl {
                enter: Vec::new(),
                home: directory.clone(),
                kubeconfig: directory.join("data/admin.kubeconfig"),
            },
            directory,
            slot,
            _lock: lock,
            port: 0,
            flags: Vec::new(),
            server: None,
            starts: 0,
        };
        for entry in fs::read_dir(PLACE).expect("the place of clusters").flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(&format!("{slot}-")) {
                let ours = std::mem::replace(&mut cluster.directory, entry.path());
                cluster.erase();
                cluster.directory = ours;
            }
        }
        fs::create_dir_all(&cluster.directory).expect("a data dir");
        cluster
    }

    fn mount(&self, mib: u32) {
        fs::create_dir_all(self.data_dir()).expect("a data dir");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"]).arg(self.data_dir());
        assert!(mount.status().expect("mount").success(), "a small filesystem");
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.kubectl.kubeconfig.clone()
    }

    pub fn dns_address(&self) -> String {
        format!("10.{}.0.10", 128 + self.slot)
    }

    /// Where the server's log of all starts is.
    pub fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    fn up_flags(&self) -> Vec<String> {
        let mut flags = vec![
            "--listen".to_owned(),
            format!("127.0.0.1:{}", self.port),
            "--kubelet-port=0".to_owned(),
            "--node-name=n1".to_owned(),
            format!("--cluster-cidr=10.{}.0.0/16", 64 + self.slot),
            format!("--service-cidr=10.{}.0.0/16", 128 + self.slot),
        ];
        flags.extend(self.flags.iter().cloned());
        flags
    }

    /// One more flag of `up`, from the next start on.
    pub fn flag(&mut self, flag: String) {
        self.flags.push(flag);
    }

    /// A subcommand on this data dir.
    pub fn stanchion(&self, words: &[&str]) -> Said {
        self.stanchion_at(&self.data_dir(), words)
    }

    /// A subcommand on another data dir.
    pub fn stanchion_at(&self, data_dir: &Path, words: &[&str]) -> Said {
        let mut command = Command::new(program::stanchion());
        command.args(words).arg("--data-dir").arg(data_dir);
        Said::of(&mut command, "")
    }

    /// # Panics
    /// When the subcommand fails.
    #[track_caller]
    pub fn stanchion_ok(&self, words: &[&str]) -> String {
        let said = self.stanchion(words);
        assert!(said.ok, "stanchion {}: {}{}", words.join(" "), said.out, said.errors);
        said.out
    }

    /// Starts the server and waits until it says that it is ready.
    #[track_caller]
    pub fn up(&mut self) {
        self.spawn(&[]);
        let line = self.line("the ready line", |line| line.starts_with("ready in "));
        println!("{}: {line}", self.story);
        let address = line.split(" · ").nth(1).expect("an address in the ready line");
        let port = address.rsplit(':').next().and_then(|it| it.parse().ok());
        self.port = port.expect("a port in the ready line");
    }

    /// Starts the server with more flags and does not wait.
    pub fn spawn(&mut self, more: &[&str]) {
        assert!(self.server.is_none(), "{} runs", self.story);
        let log = File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = Command::new(program::stanchion());
        command.arg("up").arg("--data-dir").arg(self.data_dir()).args(self.up_flags()).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        self.server = Some(Server { child, lines: receiver, said: Vec::new() });
        self.starts += 1;
    }

    /// The first line on standard output that fits.
    #[track_caller]
    pub fn line(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let log = self.log();
        let server = self.server.as_mut().expect("a server runs");
        loop {
            if let Some(line) = server.said.iter().find(|it| fits(it)) {
                return line.clone();
            }
            match server.lines.recv_timeout(until::PATIENCE) {
                Ok(line) => server.said.push(line),
                Err(error) => {
                    let tail = tail(&log, 30);
                    panic!("wait for {what}: {error}; said {:#?}; log:\n{tail}", server.said)
                }
            }
        }
    }

    /// All lines on standard output so far.
    pub fn lines(&mut self) -> Vec<String> {
        let server = self.server.as_mut().expect("a server runs");
        server.said.extend(server.lines.try_iter());
        server.said.clone()
    }

    /// SIGKILL: the server is gone before this returns.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("a server runs");
        server.child.kill().expect("kill the server");
        server.child.wait().expect("the server is gone");
    }

    /// SIGTERM: the server is gone before this returns.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut server = self.server.take().expect("a server runs");
        let number = server.child.id().to_string();
        let killed = Command::new("kill").arg(&number).status().expect("kill");
        assert!(killed.success(), "SIGTERM to {number}");
        let code = server.child.wait().expect("the server ends");
        assert!(code.success(), "after SIGTERM: {code}\n{}", tail(&self.log(), 30));
    }

    /// Whether the server runs, or how it ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.server.as_mut()?.child.try_wait().expect("the server can be asked for")
    }

    /// `stanchion down`: nothing of this cluster runs or is mounted afterwards.
    pub fn down(&self) -> Said {
        self.stanchion(&["down"])
    }

    /// Waits a little: for stories that end their server at moments of chance, never for a condition.
    pub fn let_pass(&self, time: Duration) {
        until::pause(time);
    }

    fn diagnose(&self) -> String {
        let mut text = String::new();
        let questions: [&[&str]; 4] = [
            &["get", "pods,statefulsets,pvc,pv", "-A", "-o", "wide"],
            &["get", "events", "-A"],
            &["describe", "pods", "-A"],
            &["describe", "pvc", "-A"],
        ];
        if self.server.is_some() {
            for words in questions {
                let said = self.try_kubectl(&[words, &["--request-timeout=10s"]].concat());
                text += &format!("$ kubectl {}\n{}{}\n", words.join(" "), said.out, said.errors);
            }
        }
        text + &format!("{}:\n{}", self.log().display(), tail(&self.log(), 100))
    }

    fn erase(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ended = server.child.kill();
            let _reaped = server.child.wait();
        }
        if self.data_dir().exists() {
            let said = self.down();
            if !said.ok {
                println!("{}: down: {}{}", self.story, said.out, said.errors);
            }
        }
        // Only a data dir with a filesystem of its own is mounted.
        let _other = Command::new("umount").arg("-q").arg(self.data_dir()).output();
        let left = machine::leftovers(&self.directory);
        if left.is_empty() {
            let _gone = fs::remove_dir_all(&self.directory);
        } else {
            println!("{}: left behind in {}: {left:#?}", self.story, self.directory.display());
        }
    }
}

impl std::ops::Deref for Cluster {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("---- {}\n{}\n----", self.story, self.diagnose());
            if std::env::var_os("STANCHION_TEST_KEEP").is_some() {
                println!("kept: {}", self.directory.display());
                return;
            }
        }
        self.erase();
    }
}

pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
