//! `/etc/hosts` of a pod. Upstream: `kubelet_pods.go` (managedHostsFileContent).

use api::core::v1::{HostAlias, Pod};

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
const LOCAL: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// The file; with the host's network it is the host's file with a header and the pod's aliases.
pub fn content(pod: &Pod, address: &str, name: &str, domain: &str, of_host: &str) -> String {
    let spec = pod.spec.as_ref();
    let aliases = aliases(spec.and_then(|it| it.host_aliases.as_deref()).unwrap_or_default());
    if spec.is_some_and(|it| it.host_network == Some(true)) {
        return format!("{HEADER_HOST_NETWORK}{of_host}{aliases}");
    }
    let own = match (address, domain) {
        ("", _) => String::new(),
        (address, "") => format!("{address}\t{name}\n"),
        (address, domain) => format!("{address}\t{name}.{domain}\t{name}\n"),
    };
    format!("{HEADER}{LOCAL}{own}{aliases}")
}

fn aliases(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    text
}
