//! Several machines on this one, for stories of more than one node: each host is a network, mount and UTS namespace
//! with a name, an address, `/etc/hosts` and directories of its own, on a switch in a network namespace of its own.
//! Nothing is added to the machine's own namespaces; control groups and loop devices are shared, and their names carry
//! the instance of a data dir. A host runs any program: `stanchion up`, `stanchion node`, an NFS server, `dig`.
//!
//! ```no_run
//! let Some(hosts) = tests::Hosts::start("nodes", &["h1", "h2", "h3"]) else { return };
//! let (h1, h2) = (hosts.host("h1"), hosts.host("h2"));
//! let data = h1.data_dir();
//! let listen = format!("--listen={}:6443", h1.address());
//! let mut server = h1.serve("up", &["up", &listen, "--data-dir", data.to_str().unwrap()]);
//! server.line("the ready line", |it| it.starts_with("ready in "));
//! let kubectl = h2.kubectl(&data.join("admin.kubeconfig"));
//! kubectl.wait_for("h1 is there", &["node", "h1"], |it| it["metadata"]["name"].as_str().map(drop));
//! hosts.cut("h2");
//! hosts.heal("h2");
//! server.kill();
//! ```

mod host;
mod running;
mod space;

pub use host::Host;
pub use running::Running;
pub use space::in_network_of;

use crate::{cluster::PLACE, machine};
use space::Space;
use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

/// Stories with hosts that run at the same time.
const SLOTS: u8 = 32;

/// The switch's own address: the hosts' way to elsewhere, where nothing is.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

/// The machines of one story. With the value their programs end, what they made is taken down, and all is erased.
pub struct Hosts {
    story: String,
    directory: PathBuf,
    switch: Option<Space>,
    hosts: Vec<Host>,
    /// Held as long as the directory is ours.
    _lock: File,
}

impl Hosts {
    /// Hosts of these names, all on one switch; `None`, and says so, where this machine cannot have them.
    pub fn start(story: &str, names: &[&str]) -> Option<Hosts> {
        if let Some(lacking) = machine::lacks().or_else(space::lacks) {
            println!("skipped: {story} needs {lacking}");
            return None;
        }
        let mut hosts = Hosts::new(story);
        let switch = Space::open("switch", &hosts.directory, &[]);
        switch.ok(&["ip", "link", "add", "br0", "type", "bridge"]);
        switch.ok(&["ip", "address", "add", &format!("{GATEWAY}/24"), "dev", "br0"]);
        switch.ok(&["ip", "link", "set", "br0", "up"]);
        let named: Vec<(String, Ipv4Addr)> =
            (1..).zip(names).map(|(it, name)| ((*name).to_owned(), address(it))).collect();
        for (name, address) in &named {
            let host = Host::open(&hosts.directory, name, *address, &named);
            host.plug(&switch, GATEWAY);
            hosts.hosts.push(host);
        }
        hosts.switch = Some(switch);
        Some(hosts)
    }

    fn new(story: &str) -> Hosts {
        fs::create_dir_all(PLACE).expect("a place for hosts");
        let free = |slot: &u8| {
            let lock = File::create(format!("{PLACE}/h{slot}.lock")).ok()?;
            lock.try_lock().ok()?;
            Some((*slot, lock))
        };
        let (slot, lock) = (0..SLOTS).find_map(|slot| free(&slot)).expect("a free slot for hosts");
        for entry in fs::read_dir(PLACE).expect("the place of hosts").flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("h{slot}-")) {
                clear(&entry.path());
            }
        }
        let directory = Path::new(PLACE).join(format!("h{slot}-{story}"));
        fs::create_dir_all(&directory).expect("a directory for hosts");
        let (story, hosts) = (story.to_owned(), Vec::new());
        Hosts { story, directory, switch: None, hosts, _lock: lock }
    }

    /// # Panics
    /// When there is no host of this name.
    #[track_caller]
    pub fn host(&self, name: &str) -> &Host {
        let found = self.hosts.iter().find(|it| it.name() == name);
        found.unwrap_or_else(|| panic!("{} has no host {name}", self.story))
    }

    pub fn all(&self) -> &[Host] {
        &self.hosts
    }

    /// Where what the story writes lies, hosts' directories included.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where clients are that belong to no host: works on the switch, at 192.0.2.254.
    pub fn elsewhere<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.switch().within(work)
    }

    /// Pulls the host's plug: nothing reaches it, and it reaches nobody, until [`Hosts::heal`]. What runs on it goes on.
    pub fn cut(&self, name: &str) {
        self.switch().ok(&["ip", "link", "set", self.host(name).port(), "down"]);
    }

    pub fn heal(&self, name: &str) {
        self.switch().ok(&["ip", "link", "set", self.host(name).port(), "up"]);
    }

    fn switch(&self) -> &Space {
        self.switch.as_ref().expect("a switch until the end")
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        for host in &self.hosts {
            if failed {
                println!("---- {} on {}\n{}\n----", self.story, host.name(), host.logs());
            }
        }
        if failed && std::env::var_os("STANCHION_TEST_KEEP").is_some() {
            println!("kept: {}", self.directory.display());
            return;
        }
        for host in &self.hosts {
            host.take_down();
        }
        self.hosts.clear();
        self.switch = None;
        clear(&self.directory);
    }
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// Ends what runs on a directory of hosts that have no namespaces any more, and erases it.
fn clear(directory: &Path) {
    let text = directory.to_string_lossy();
    for process in machine::processes_of(&text) {
        // It may have ended by itself meanwhile.
        let _ended = Command::new("kill").args(["-KILL", &process.to_string()]).output();
    }
    crate::until("programs of hosts are gone", || match machine::processes_of(&text).as_slice() {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    });
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let data = entry.path().join("data");
        if data.join("pki").exists() || data.join("node.json").exists() {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--net", "--"]).arg(crate::stanchion());
            command.args(["down", "--data-dir"]).arg(&data);
            let said = crate::Said::of(&mut command, "");
            if !said.ok {
                println!("down of {}: {}{}", data.display(), said.out, said.errors);
            }
        }
    }
    let left = machine::leftovers(directory);
    if left.is_empty() {
        let _gone = fs::remove_dir_all(directory);
    } else {
        println!("left behind in {}: {left:#?}", directory.display());
    }
}
