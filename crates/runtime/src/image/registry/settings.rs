//! What an administrator says about a registry: mirrors, plain HTTP, an authority of its own.

use serde::Deserialize;
use std::path::PathBuf;

/// One registry, by the host that images name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registry {
    /// `https://mirror.lan` or `http://10.0.0.7:5000`: asked first, in this order; then the registry itself.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Without TLS. Registries on this machine (`localhost`, `127.0.0.0/8`, `[::1]`) need no word for it.
    #[serde(default)]
    pub plain_http: bool,
    /// PEM file of authorities to trust besides the machine's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Whether a host, with or without a port, is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = host.strip_prefix('[').and_then(|rest| rest.split_once(']').map(|it| it.0));
    let name = name.unwrap_or_else(|| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let address = name.parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|it| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_names() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:5000", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["registry.lan", "10.0.0.1:5000", "localhost.evil.com", "[::2]:1", "128.0.0.1"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
