//! A real NFS server, versions 3 and 4, in userspace on a host of a story: nfs-ganesha, with rpcbind.

use crate::{Host, Running, until};
use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Stopped with the value.
pub struct NfsServer {
    address: Ipv4Addr,
    share: PathBuf,
    _programs: [Running; 2],
}

impl NfsServer {
    /// Serves a directory of the host; `None`, and says so, where its programs are missing.
    pub fn start(host: &Host) -> Option<NfsServer> {
        let has = |program: &str| {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            found.is_ok_and(|it| it.status.success())
        };
        if !has("ganesha.nfsd") || !has("rpcbind") {
            println!("skipped: an NFS server needs nfs-ganesha, nfs-ganesha-vfs and rpcbind");
            return None;
        }
        let share = host.directory().join("share");
        fs::create_dir_all(&share).expect("a share");
        fs::set_permissions(&share, fs::Permissions::from_mode(0o777)).expect("a share of all");
        // Their directories are the machine's: each host has its own.
        host.ok(&["mount", "-t", "tmpfs", "run", "/run"]);
        host.ok(&["mkdir", "-p", "/run/rpcbind", "/run/ganesha", "/var/lib/nfs"]);
        host.ok(&["mount", "-t", "tmpfs", "state", "/var/lib/nfs"]);
        host.ok(&["mkdir", "-p", "/var/lib/nfs/ganesha"]);
        let binder = host.spawn("rpcbind", &["rpcbind", "-f"]);
        until("rpcbind answers", || {
            let there = host.within(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 111)));
            there.map(drop).map_err(|error| error.to_string())
        });
        let configuration = host.directory().join("ganesha.conf");
        fs::write(&configuration, text(&share)).expect("a configuration");
        let log = host.log("ganesha");
        let file = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        let (flags, pid) = ([file(&configuration), file(&log)], "/run/ganesha.pid");
        let words = ["ganesha.nfsd", "-F", "-f", &flags[0], "-L", &flags[1], "-p", pid];
        let server = host.spawn("ganesha.err", &words);
        until("the NFS server is initialized", || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.contains("NFS SERVER INITIALIZED") { Ok(()) } else { Err(said) }
        });
        Some(NfsServer { address: host.address(), share, _programs: [server, binder] })
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What it serves: the same path for its clients.
    pub fn share(&self) -> &Path {
        &self.share
    }
}

fn text(share: &Path) -> String {
    format!(
        "NFS_CORE_PARAM {{
  Protocols = 3, 4; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; MNT_Port = 20048;
}}
NFSV4 {{ Graceless = true; RecoveryBackend = fs; }}
EXPORT {{
  Export_Id = 1; Path = {0}; Pseudo = {0}; Access_Type = RW; Squash = No_Root_Squash;
  SecType = sys; Protocols = 3, 4; Transports = TCP; FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = EVENT; }}
",
        share.display()
    )
}
