//! Flags that say how packets between pods of different nodes are carried.

use clap::{Args, ValueEnum};
use network::PodNetwork;

/// Of the server: its nodes are told.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct PodNetworkFlags {
    /// How pods of different nodes reach each other: in envelopes, wherever nodes are, or by routes between nodes on
    /// one segment
    #[arg(long, value_enum, default_value_t = Kind::Vxlan)]
    pod_network: Kind,
    /// Number of the pod network among those that share machines
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    vxlan_vni: u32,
    /// UDP port of the envelopes, on every node
    #[arg(long, default_value_t = 8472)]
    vxlan_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Vxlan,
    HostRoutes,
}

impl PodNetworkFlags {
    pub(crate) fn pod_network(&self) -> PodNetwork {
        match self.pod_network {
            Kind::Vxlan => PodNetwork::Vxlan { vni: self.vxlan_vni, port: self.vxlan_port },
            Kind::HostRoutes => PodNetwork::HostRoutes,
        }
    }
}

/// `vxlan 1 8472` or `host-routes`: as nodes read it.
pub(crate) fn write(network: PodNetwork) -> String {
    match network {
        PodNetwork::Vxlan { vni, port } => format!("vxlan {vni} {port}"),
        PodNetwork::HostRoutes => "host-routes".to_owned(),
    }
}

/// `None`: nothing that this version knows.
pub(crate) fn read(text: &str) -> Option<PodNetwork> {
    match text.split(' ').collect::<Vec<_>>()[..] {
        ["vxlan", vni, port] => {
            Some(PodNetwork::Vxlan { vni: vni.parse().ok()?, port: port.parse().ok()? })
        }
        ["host-routes"] => Some(PodNetwork::HostRoutes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_read_what_the_server_wrote() {
        for network in [PodNetwork::Vxlan { vni: 7, port: 4789 }, PodNetwork::HostRoutes] {
            assert_eq!(read(&write(network)), Some(network));
        }
        assert_eq!(read("vxlan"), None);
    }
}
