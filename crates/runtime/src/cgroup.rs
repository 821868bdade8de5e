//! Control groups of pods and containers, wherever each controller is mounted: v1, v2, or some of each.
//!
//! Everything lives below `/stanchion-<instance>`, so that several instances share a machine and `down` can find and
//! remove all of it.

mod device;
mod limits;
mod stats;

pub(crate) use device::Rule;
pub(crate) use stats::Usage;

use crate::error::{Attempt, Error, Result};
use rpc::cri::LinuxContainerResources;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};
use stdx::Backoff;

/// Controllers that limit or account for a container. Others are left to whoever uses them.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "devices"];

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq)]
struct Hierarchy {
    mountpoint: PathBuf,
    /// Those of [`CONTROLLERS`] that it offers.
    controllers: Vec<String>,
    unified: bool,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }
}

/// The machine's hierarchies and our place in them.
#[derive(Debug)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    root: String,
}

/// One group, in all hierarchies: the same path below each.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    path: String,
    uses: Uses,
}

/// Every hierarchy costs a moment for each process that joins it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Uses {
    /// For those who only must not count as someone else's.
    MemoryAndProcesses,
    /// All but a cpuset of its own, which few need.
    Usual,
    All,
}

impl Cgroups {
    pub(crate) fn detect(instance: &str) -> Result<Cgroups> {
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").attempt(|| "read the mounts".to_owned())?;
        let mut hierarchies = hierarchies(&mounts);
        for hierarchy in &mut hierarchies {
            if hierarchy.unified {
                let offered = fs::read_to_string(hierarchy.mountpoint.join("cgroup.controllers"))
                    .unwrap_or_default();
                hierarchy.controllers = known(offered.split_whitespace());
            }
        }
        hierarchies.retain(|hierarchy| !hierarchy.controllers.is_empty());
        Ok(Cgroups { hierarchies, root: format!("/stanchion-{instance}") })
    }

    /// Limits that this machine cannot enforce, for those who run it.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let offered =
            |controller: &&str| self.hierarchies.iter().any(|hierarchy| hierarchy.has(controller));
        ["cpu", "memory", "pids"].into_iter().filter(|controller| !offered(controller)).collect()
    }

    pub(crate) fn shims(&self) -> Group {
        Group { path: format!("{}/shims", self.root), uses: Uses::MemoryAndProcesses }
    }

    /// The group that the node wants a pod's containers in.
    pub(crate) fn pod(&self, parent: &str) -> Result<Group> {
        let parent = parent.trim_matches('/');
        if parent.split('/').any(|part| part == "..") {
            return Err(Error::Invalid(format!("cgroup parent {parent:?} leads out of its place")));
        }
        let separator = if parent.is_empty() { "" } else { "/" };
        Ok(Group { path: format!("{}{separator}{parent}", self.root), uses: Uses::Usual })
    }

    pub(crate) fn container(
        &self,
        pod: &Group,
        container: &str,
        limits: &LinuxContainerResources,
    ) -> Group {
        let uses = if limits::needs_cpuset(limits) { Uses::All } else { Uses::Usual };
        Group { path: format!("{}/{container}", pod.path), uses }
    }

    fn used_by(&self, group: &Group) -> impl Iterator<Item = &Hierarchy> {
        let uses = group.uses;
        self.hierarchies.iter().filter(move |hierarchy| match uses {
            Uses::MemoryAndProcesses => hierarchy.has("memory") || hierarchy.has("pids"),
            Uses::Usual => hierarchy.controllers != ["cpuset"],
            Uses::All => true,
        })
    }

    fn directory(&self, hierarchy: &Hierarchy, group: &Group) -> PathBuf {
        hierarchy.mountpoint.join(group.path.trim_start_matches('/'))
    }

    /// Makes the group and those above it. Existing ones are kept.
    pub(crate) fn create(&self, group: &Group) -> Result<()> {
        for hierarchy in self.used_by(group) {
            let directory = self.directory(hierarchy, group);
            match fs::create_dir(&directory) {
                Ok(()) | Err(_) if hierarchy.unified || hierarchy.has("cpuset") => {
                    self.create_chain(hierarchy, &group.path)?;
                }
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => fs::create_dir_all(&directory)
                    .attempt(|| format!("make control group {}", directory.display()))?,
            }
        }
        Ok(())
    }

    /// Step by step from the top, because each level must first hand its controllers down.
    fn create_chain(&self, hierarchy: &Hierarchy, path: &str) -> Result<()> {
        let mut directory = hierarchy.mountpoint.clone();
        for part in path.trim_matches('/').split('/') {
            if hierarchy.unified {
                for controller in &hierarchy.controllers {
                    // Refused where processes live in a group; then its limits are not offered below, and setting
                    // one says so.
                    let _refused = fs::write(
                        directory.join("cgroup.subtree_control"),
                        format!("+{controller}"),
                    );
                }
            }
            let parent = directory.clone();
            directory.push(part);
            match fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error)
                        .attempt(|| format!("make control group {}", directory.display()));
                }
            }
            if !hierarchy.unified {
                inherit_cpuset(&parent, &directory)?;
            }
        }
        Ok(())
    }

    pub(crate) fn limit(&self, group: &Group, resources: &LinuxContainerResources) -> Result<()> {
        if limits::needs_cpuset(resources)
            && !self.used_by(group).any(|hierarchy| hierarchy.has("cpuset"))
        {
            return Err(Error::State(format!(
                "control group {} was made without a set of CPUs",
                group.path
            )));
        }
        for hierarchy in self.used_by(group) {
            let directory = self.directory(hierarchy, group);
            for (controller, file, value) in limits::settings(hierarchy.unified, resources) {
                if hierarchy.has(&controller) || (hierarchy.unified && controller.is_empty()) {
                    let path = directory.join(&file);
                    write_limit(&path, &value)
                        .attempt(|| format!("write {value:?} to {}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    /// Lets the group use the usual devices and those of `allowed` (`c 1:3 rwm`), and no others.
    pub(crate) fn limit_devices(&self, group: &Group, allowed: &[device::Rule]) -> Result<()> {
        match self.hierarchies.iter().find(|hierarchy| hierarchy.has("devices")) {
            Some(hierarchy) => device::limit_by_files(&self.directory(hierarchy, group), allowed),
            None => match self.hierarchies.iter().find(|hierarchy| hierarchy.unified) {
                Some(hierarchy) => {
                    device::limit_by_program(&self.directory(hierarchy, group), allowed)
                }
                None => Err(Error::State(
                    "no control group hierarchy can keep containers from devices".into(),
                )),
            },
        }
    }

    /// What the shim needs to know: where to put processes, what to show, where to look for kills.
    pub(crate) fn describe(&self, group: &Group) -> shim::protocol::Cgroup {
        let path = |directory: PathBuf| directory.to_string_lossy().into_owned();
        let mut described = shim::protocol::Cgroup::default();
        for hierarchy in self.used_by(group) {
            let directory = self.directory(hierarchy, group);
            described.procs.push(path(directory.join("cgroup.procs")));
            let name = match hierarchy.mountpoint.strip_prefix("/sys/fs/cgroup") {
                Ok(below) => path(below.to_owned()),
                Err(_) => hierarchy.controllers.join(","),
            };
            described.views.push((name, path(directory.clone())));
            if hierarchy.has("memory") {
                let file = if hierarchy.unified { "memory.events" } else { "memory.oom_control" };
                described.oom = path(directory.join(file));
            }
            if hierarchy.unified && directory.join("cgroup.kill").exists() {
                described.kill = path(directory.join("cgroup.kill"));
            }
        }
        described
    }

    pub(crate) fn usage(&self, group: &Group) -> Usage {
        let mut usage = Usage::default();
        for hierarchy in self.used_by(group) {
            stats::read(&self.directory(hierarchy, group), hierarchy, &mut usage);
        }
        usage
    }

    /// Ends what still lives in the group and removes it. Processes that the kernel has not let go of yet are waited
    /// for.
    pub(crate) async fn remove(&self, group: &Group) -> Result<()> {
        for hierarchy in self.used_by(group) {
            remove_when_empty(&self.directory(hierarchy, group)).await?;
        }
        Ok(())
    }

    /// Removes a pod's group unless something else is in it.
    pub(crate) fn remove_if_unused(&self, group: &Group) {
        for hierarchy in self.used_by(group) {
            // Busy or gone already: both are fine.
            let _in_use = fs::remove_dir(self.directory(hierarchy, group));
        }
    }

    /// Removes all groups of this instance.
    pub(crate) async fn remove_all(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            for directory in
                deepest_first(&hierarchy.mountpoint.join(self.root.trim_start_matches('/')))
            {
                remove_when_empty(&directory).await?;
            }
        }
        Ok(())
    }
}

impl Cgroups {
    /// Kills all that is in the group, until nothing new appears in it.
    pub(crate) fn kill(&self, group: &Group) {
        // Each pass can miss what was forked meanwhile; a killed process forks no more.
        const PASSES_MAX: usize = 100;
        for hierarchy in self.used_by(group) {
            let directory = self.directory(hierarchy, group);
            for _ in 0..PASSES_MAX {
                if !kill_members(&directory) {
                    break;
                }
            }
        }
    }
}

/// How long the kernel may take to let go of killed processes.
const REMOVAL_TRIES_MAX: u32 = 40;

async fn remove_when_empty(directory: &Path) -> Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(250));
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY)
                    && backoff.failures() < REMOVAL_TRIES_MAX =>
            {
                kill_members(directory);
                stdx::sleep(backoff.failed()).await;
            }
            Err(error) => {
                return Err(error)
                    .attempt(|| format!("remove control group {}", directory.display()));
            }
        }
    }
}

/// Whether there was one to kill.
fn kill_members(directory: &Path) -> bool {
    let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let pids =
        members.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?));
    let killed = pids.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
    killed.fold(false, |any, it| any | it.is_ok())
}

fn deepest_first(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![top.to_owned()];
    while let Some(directory) = next.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let directories =
            entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        next.extend(directories.map(|entry| entry.path()));
        found.push(directory);
    }
    found.reverse();
    found
}

/// A v1 cpuset starts empty, and no process can join it so.
fn inherit_cpuset(parent: &Path, directory: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(file);
        let Ok(current) = fs::read_to_string(&own) else { continue };
        if current.trim().is_empty() {
            let attempted =
                || format!("copy {file} from {} to {}", parent.display(), directory.display());
            let inherited = fs::read_to_string(parent.join(file)).attempt(attempted)?;
            fs::write(&own, inherited.trim()).attempt(attempted)?;
        }
    }
    Ok(())
}

fn write_limit(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn known<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.filter(|name| CONTROLLERS.contains(name)).map(str::to_owned).collect()
}

/// The hierarchies among the mounts that may offer something we use: what a v2 one offers is not said here.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let Some(mountpoint) = place.split(' ').nth(4) else { continue };
        let mut kind = kind.split(' ');
        let unified = match kind.next() {
            Some("cgroup") => false,
            Some("cgroup2") => true,
            _ => continue,
        };
        let options = kind.nth(1).unwrap_or_default();
        let controllers = if unified { Vec::new() } else { known(options.split(',')) };
        let seen =
            |earlier: &Hierarchy| earlier.unified == unified && earlier.controllers == controllers;
        if (unified || !controllers.is_empty()) && !found.iter().any(seen) {
            found.push(Hierarchy { mountpoint: PathBuf::from(mountpoint), controllers, unified });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &str, expected: &[(&str, &[&str], bool)]) {
        let found = hierarchies(mountinfo);
        let got: Vec<(&str, Vec<&str>, bool)> = found
            .iter()
            .map(|found| {
                let controllers = found.controllers.iter().map(String::as_str).collect();
                (found.mountpoint.to_str().unwrap(), controllers, found.unified)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(path, names, unified)| (*path, names.to_vec(), *unified))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn each_controller_is_found_where_it_is_mounted() {
        check(
            "30 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             31 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             32 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             33 25 0:30 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls\n\
             34 25 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             35 25 0:28 / /mnt/again rw - cgroup cgroup rw,memory\n",
            &[
                ("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"], false),
                ("/sys/fs/cgroup/memory", &["memory"], false),
                ("/sys/fs/cgroup/unified", &[], true),
            ],
        );
    }

    #[test]
    fn a_machine_with_one_hierarchy_for_all_has_one() {
        let line = "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        check(line, &[("/sys/fs/cgroup", &[], true)]);
    }
}
