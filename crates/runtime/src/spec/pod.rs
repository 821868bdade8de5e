//! What a pod has before its first container: namespaces, a name, and files in /etc.

use crate::{
    error::{Attempt, Result},
    sandbox::Sandbox,
};
use rpc::cri::NamespaceMode;
use shim::protocol::{Setup, VERSION};
use std::fs;

/// The pod's namespaces, as its shim shall make them.
pub(crate) fn setup(sandbox: &Sandbox, cgroup_procs: Vec<String>) -> Result<Setup> {
    let ids = super::users::ids(&sandbox.namespaces())?;
    let mut sysctls: Vec<(String, String)> = Vec::new();
    if !sandbox.host_network() {
        // Inside the pod's own network, ports and ping need no privilege.
        sysctls.push(("net.ipv4.ip_unprivileged_port_start".into(), "0".into()));
        let last = ids.as_ref().map_or(0x7fff_ffff, |it| it.count - 1);
        sysctls.push(("net.ipv4.ping_group_range".into(), format!("0 {last}")));
    }
    let wanted = sandbox.config.linux.iter().flat_map(|linux| &linux.sysctls);
    sysctls.extend(wanted.map(|(name, value)| (name.clone(), value.clone())));
    Ok(Setup {
        version: VERSION,
        directory: sandbox.directory.to_string_lossy().into_owned(),
        hostname: hostname(sandbox),
        host_network: sandbox.host_network(),
        host_ipc: sandbox.host_ipc(),
        share_pid: sandbox.namespaces().pid() == NamespaceMode::Pod,
        sysctls,
        cgroup_procs,
        ids,
    })
}

pub(super) fn hostname(sandbox: &Sandbox) -> String {
    if !sandbox.config.hostname.is_empty() {
        return sandbox.config.hostname.clone();
    }
    if sandbox.host_network() {
        return rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    // A host name has at most 63 bytes.
    let name = sandbox.config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    name.chars().take(63).collect()
}

/// The files that every container of the pod sees in /etc.
pub(crate) fn write_files(sandbox: &Sandbox) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = sandbox.directory.join(name);
        fs::write(&path, text).attempt(|| format!("write {}", path.display()))
    };
    let hostname = hostname(sandbox);
    let addresses = sandbox.hold().addresses.clone();
    let mut hosts =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for address in addresses {
        hosts.push_str(&format!("{address}\t{hostname}\n"));
    }
    write("hosts", hosts)?;
    write("hostname", format!("{hostname}\n"))?;
    write("resolv.conf", resolv_conf(sandbox))
}

fn resolv_conf(sandbox: &Sandbox) -> String {
    let Some(dns) = &sandbox.config.dns_config else {
        return fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}
