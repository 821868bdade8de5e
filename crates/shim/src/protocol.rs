//! The messages. The server asks, the shim answers each request once and tells of exits unasked.
//!
//! Times are nanoseconds since the epoch; paths are those of the host; signals are the kernel's numbers.

use crate::{choice, record};

/// Raised only when appending is not enough.
pub const VERSION: u32 = 1;

choice! {
    /// What the server asks for.
    pub enum Request {
        /// The first message on the socket that the shim was started with.
        Setup(Setup) = 1,
        State(Nothing) = 2,
        /// Descriptors: the sources of the mounts that have no layers, in order.
        Start(Start) = 3,
        Signal(Signal) = 4,
        /// Descriptors: stdin, stdout, stderr; none with a terminal. The reply then carries the terminal's master.
        Exec(Exec) = 5,
        SignalExec(SignalExec) = 6,
        /// Descriptors: where stdout and stderr are copied to. The reply carries the way to stdin or the terminal.
        Attach(Attach) = 7,
        /// The reply carries a socket that connects to this port inside the pod, perhaps not connected yet.
        Connect(Connect) = 8,
        Reopen(Named) = 9,
        /// An exited container is forgotten.
        Forget(Named) = 10,
        /// Kills everything, answers when it is gone, and ends.
        Shutdown(Nothing) = 11,
    }
}

choice! {
    /// What the shim says.
    pub enum Message {
        Reply(Reply) = 1,
        Exited(Exited) = 2,
        ExecExited(ExecExited) = 3,
    }
}

record! {
    /// A request with the number that its reply repeats.
    pub struct Envelope {
        pub number: u64,
        /// A `Request`, kept as bytes so that an unknown one can be answered.
        pub request: Vec<u8>,
    }

    pub struct Nothing {}

    pub struct Named {
        pub container: String,
    }

    /// The answer to the request of this number; empty `error` means that it was done.
    pub struct Reply {
        pub number: u64,
        pub error: String,
        pub started: Option<Started>,
        pub state: Option<State>,
    }

    /// What the pod's namespaces shall be.
    pub struct Setup {
        pub version: u32,
        /// Where the shim keeps its socket and the pod's shared memory.
        pub directory: String,
        pub hostname: String,
        pub host_network: bool,
        pub host_ipc: bool,
        pub share_pid: bool,
        pub sysctls: Vec<(String, String)>,
        /// `cgroup.procs` files that the shim writes itself into.
        pub cgroup_procs: Vec<String>,
        /// The users and groups of the pod; none: the host's.
        pub ids: Option<Ids>,
    }

    /// Ids of the host that are 0, 1, 2 … in the pod's own user namespace.
    pub struct Ids {
        pub first: u32,
        pub count: u32,
    }

    pub struct State {
        pub pid: i32,
        pub containers: Vec<ContainerState>,
    }

    pub struct ContainerState {
        pub container: String,
        pub started: Started,
        pub exit: Option<Exit>,
    }

    pub struct Started {
        pub pid: i32,
        pub started_at: i64,
        pub user: Identity,
    }

    /// Whom a process runs as, after names were looked up in the image.
    pub struct Identity {
        pub uid: u32,
        pub gid: u32,
        pub groups: Vec<u32>,
        pub home: String,
    }

    /// How a container ended. Also the contents of the file `exit` in the container's directory.
    pub struct Exit {
        /// 128 + signal when a signal ended it.
        pub code: i32,
        pub signal: i32,
        /// The kernel killed something in it for want of memory.
        pub oom_killed: bool,
        pub started_at: i64,
        pub finished_at: i64,
        /// Why it could not be started; empty when it was.
        pub start_error: String,
    }

    pub struct Exited {
        pub container: String,
        pub exit: Exit,
    }

    pub struct ExecExited {
        pub exec: u64,
        pub code: i32,
    }

    /// One container, to be created and started.
    pub struct Start {
        pub container: String,
        /// Holds `upper`, `work`, `rootfs`; `started` and `exit` are written here.
        pub directory: String,
        /// Image layers, lowest first.
        pub layers: Vec<String>,
        pub process: Process,
        pub mounts: Vec<Mount>,
        pub devices: Vec<Device>,
        pub masked_paths: Vec<String>,
        pub readonly_paths: Vec<String>,
        pub readonly_root: bool,
        /// /sys and the control groups are writable.
        pub writable_system: bool,
        pub pid_namespace: PidNamespace,
        pub cgroup: Cgroup,
        pub oom_score_adjust: i32,
        /// Empty: output is thrown away.
        pub log: String,
        pub stdin: bool,
        pub stdin_once: bool,
    }

    pub struct PidNamespace {
        /// The host's.
        pub host: bool,
        /// The pod's, if it shares one.
        pub pod: bool,
        /// That of another container of this pod.
        pub container: String,
    }

    pub struct Process {
        pub arguments: Vec<String>,
        pub environment: Vec<String>,
        pub directory: String,
        pub user: User,
        /// The bounding set, bit by number.
        pub capabilities: u64,
        pub ambient_capabilities: u64,
        pub no_new_privileges: bool,
        /// Programs of `sock_filter`s, installed in this order.
        pub seccomp: Vec<Vec<u8>>,
        pub terminal: bool,
    }

    pub struct User {
        pub uid: Option<u32>,
        pub gid: Option<u32>,
        /// `user`, `user:group`, either as name or number; used when `uid` is unset.
        pub name: String,
        pub groups: Vec<u32>,
        /// Memberships in the image's /etc/group do not count.
        pub only_these_groups: bool,
    }

    pub struct Mount {
        pub target: String,
        pub directory: bool,
        pub readonly: bool,
        pub recursive_readonly: bool,
        pub propagation: u8,
        pub no_exec: bool,
        pub no_suid: bool,
        pub no_device: bool,
        /// Layers of an image, lowest first: it is what is mounted, and no source comes with the request.
        pub layers: Vec<String>,
        /// The part of the image that is mounted; empty: all of it.
        pub sub_path: String,
    }

    pub struct Device {
        pub path: String,
        pub block: bool,
        pub major: u32,
        pub minor: u32,
        pub mode: u32,
        pub uid: u32,
        pub gid: u32,
    }

    pub struct Cgroup {
        /// `cgroup.procs` files to write the process into.
        pub procs: Vec<String>,
        /// Below /sys/fs/cgroup: name ("" for the whole tree) and the host's directory shown there.
        pub views: Vec<(String, String)>,
        /// The file with a line `oom_kill N`.
        pub oom: String,
        /// `cgroup.kill`, where the kernel has it.
        pub kill: String,
    }

    pub struct Signal {
        pub container: String,
        pub signal: i32,
        /// Every process in its control group, not only the first.
        pub all: bool,
    }

    pub struct Exec {
        pub container: String,
        /// Chosen by the server, unique in its connection.
        pub exec: u64,
        pub process: Process,
    }

    pub struct SignalExec {
        pub exec: u64,
        pub signal: i32,
    }

    pub struct Attach {
        pub container: String,
        pub stdin: bool,
        /// Chosen by the server like the number of an exec. Said as that of an exec that ended, with code -1, when the
        /// client was too slow for the output and gets no more of it.
        pub attach: u64,
    }

    pub struct Connect {
        pub port: u16,
    }
}

/// Values of `Mount::propagation`.
pub mod propagation {
    pub const PRIVATE: u8 = 0;
    pub const HOST_TO_CONTAINER: u8 = 1;
    pub const BIDIRECTIONAL: u8 = 2;
}
