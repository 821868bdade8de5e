//! What is asked of a plugin and what it answers: plain values, resolved by the caller from API objects.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Credentials of a request. Debug output shows the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Asks for a new volume. The same request twice gives the same volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateVolume {
    /// Idempotency key: `pvc-<uid of the claim>`.
    pub name: String,
    /// `namespace/name` of the claim, for the people who look at the volume on disk; identifies nothing.
    pub claim: Option<String>,
    pub bytes_min: u64,
    /// Refused rather than exceeded by rounding.
    pub bytes_max: Option<u64>,
    /// As in the API: `ReadWriteOnce`, `ReadOnlyMany`, `ReadWriteMany`, `ReadWriteOncePod`.
    pub access_modes: Vec<String>,
    /// `volumeMode: Block`: a device, no filesystem.
    pub block: bool,
    pub fs_type: Option<String>,
    /// Of the class.
    pub parameters: BTreeMap<String, String>,
    /// Where it must be reachable from: topology key to value; empty means anywhere.
    pub topology: BTreeMap<String, String>,
    pub secrets: Secrets,
}

/// A volume that exists, or that the request says exists (hostPath, local, configMap…).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// The plugin's own name for it. For volumes of a pod (emptyDir, configMap…): the volume's name, used in errors only.
    pub handle: String,
    /// What really exists, never less than was asked for. 0 when the kind has no size.
    pub bytes: u64,
    /// Parameters of the kind. hostPath: `path`, `type`. local: `path`. Others: what `create` answered.
    pub context: BTreeMap<String, String>,
    /// Where it is reachable from: topology key to value; empty means anywhere.
    pub topology: BTreeMap<String, String>,
}

/// Asks for more room in an existing volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpandVolume {
    pub volume: Volume,
    pub bytes_min: u64,
    pub bytes_max: Option<u64>,
}

/// Asks to make a volume usable on this node, once per node, at `staging` (below the plugin's directory).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageVolume {
    pub volume: Volume,
    pub staging: PathBuf,
    /// `volumeMode: Block`: nothing is mounted.
    pub block: bool,
    pub fs_type: Option<String>,
    pub mount_options: Vec<String>,
    pub secrets: Secrets,
}

/// When the owner of a volume's files is changed to `fsGroup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FsGroupChange {
    #[default]
    Always,
    OnRootMismatch,
}

/// The pod that a volume is published for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub service_account: String,
    pub fs_group: Option<u32>,
    pub fs_group_change: FsGroupChange,
}

/// One file of a configMap, secret, downwardAPI or projected volume. Debug output hides the content.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProjectedFile {
    pub data: Vec<u8>,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
    /// The user that owns it (service account tokens); root if none.
    pub owner: Option<u32>,
}

impl fmt::Debug for ProjectedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, mode {:o}, owner {:?}", self.data.len(), self.mode, self.owner)
    }
}

/// Path below the volume (`app/config.yaml`) to file.
pub type Files = BTreeMap<String, ProjectedFile>;

/// Asks to make a volume visible for one pod. Asking again with other `files` replaces them all at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishVolume {
    pub volume: Volume,
    pub pod: PodRef,
    /// Where `stage` put it, for plugins that stage.
    pub staging: Option<PathBuf>,
    /// `pods/<uid>/volumes/kubernetes.io~<type>/<name>`; its parents are created.
    pub target: PathBuf,
    pub read_only: bool,
    pub block: bool,
    pub fs_type: Option<String>,
    pub mount_options: Vec<String>,
    /// Resolved contents of a configMap, secret, downwardAPI or projected volume.
    pub files: Option<Files>,
    /// emptyDir: bytes.
    pub size_limit: Option<u64>,
    /// emptyDir: `""`, `Memory`, `HugePages…`.
    pub medium: Option<String>,
    /// emptyDir in memory without (or with a larger) `size_limit`: the pod's memory limit, in bytes.
    pub memory_limit: Option<u64>,
}

/// Where a published volume is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// What containers bind: `target`, or a path of the host (hostPath, a block device).
    pub host_path: PathBuf,
    /// Containers must bind it read-only, whatever their volumeMount says (configMap, secret, …, or as asked).
    pub read_only: bool,
}

/// How full a mounted volume is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub bytes_total: u64,
    pub bytes_used: u64,
    pub bytes_available: u64,
    pub inodes_total: u64,
    pub inodes_used: u64,
    pub inodes_free: u64,
}
