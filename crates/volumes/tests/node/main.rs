//! The plugins against a real kernel: mounts, loop devices and full disks, in temporary directories.

mod crash;
mod files;
mod local;
mod local_disk;
mod sub_path;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use stdx::{Entropy, SystemEntropy};
use volumes::{
    Config, CreateVolume, PodRef, PublishVolume, StageVolume, Volume, VolumePlugin, mount, plugins,
};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// A node of its own in a temporary directory. Whatever is mounted in it goes with it, also when a test fails.
struct Node {
    directory: PathBuf,
    data_dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Node {
    /// None, with a line that says so, where mounts or loop devices are not possible.
    fn new() -> Option<Node> {
        let may = rustix::thread::capabilities(None).map(|it| it.effective);
        let missing = if !rustix::process::geteuid().is_root() {
            Some("root")
        } else if !may.is_ok_and(|it| it.contains(rustix::thread::CapabilitySet::SYS_ADMIN)) {
            Some("CAP_SYS_ADMIN")
        } else if fs::OpenOptions::new().write(true).open("/dev/loop-control").is_err() {
            Some("loop devices")
        } else {
            None
        };
        if let Some(missing) = missing {
            println!("skipped: needs {missing}");
            return None;
        }
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().canonicalize().unwrap();
        Some(Node { data_dir: directory.clone(), directory, _temporary: Some(temporary) })
    }

    /// A node that mounts in `directory` and has its data on another disk.
    fn on(data_dir: &Path, directory: PathBuf) -> Node {
        Node { directory, data_dir: data_dir.to_path_buf(), _temporary: None }
    }

    /// Freshly opened, as after a restart.
    fn plugin(&self, name: &str) -> Arc<dyn VolumePlugin> {
        let config = Config {
            data_dir: self.data_dir.clone(),
            node_name: "n1".to_string(),
            instance: "test".to_string(),
        };
        plugins(&config).into_iter().find(|plugin| plugin.name() == name).unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    fn staging(&self, handle: &str) -> PathBuf {
        self.directory.join("plugins").join(handle).join("globalmount")
    }

    fn target(&self, pod: &str, volume: &str) -> PathBuf {
        self.directory.join("pods").join(pod).join("volumes/kubernetes.io~csi").join(volume)
    }

    fn stage_request(&self, volume: &Volume) -> StageVolume {
        StageVolume {
            volume: volume.clone(),
            staging: self.staging(&volume.handle),
            ..StageVolume::default()
        }
    }

    fn publish_request(&self, volume: &Volume, pod: &str) -> PublishVolume {
        PublishVolume {
            volume: volume.clone(),
            pod: PodRef { uid: pod.to_string(), ..PodRef::default() },
            staging: Some(self.staging(&volume.handle)),
            target: self.target(pod, &volume.handle),
            ..PublishVolume::default()
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for entry in mount::mounts_below(&self.directory).unwrap_or_default().iter().rev() {
            let _ = rustix::mount::unmount(&entry.point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn create_request(name: &str, bytes: u64) -> CreateVolume {
    CreateVolume { name: name.to_string(), bytes_min: bytes, ..CreateVolume::default() }
}

fn with(mut request: CreateVolume, parameters: &[(&str, &str)]) -> CreateVolume {
    let pairs = parameters.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    request.parameters = pairs.collect::<BTreeMap<_, _>>();
    request
}

/// Filesystems of one UUID do not go together, not even in two runs on one machine.
fn unique(text: &str) -> String {
    format!("pvc-{text}-{}", SystemEntropy::default().uuid())
}

fn installed(program: &str) -> bool {
    let found = ["/usr/sbin", "/sbin", "/usr/bin"]
        .iter()
        .any(|directory| Path::new(directory).join(program).exists());
    if !found {
        println!("skipped: needs {program}");
    }
    found
}
