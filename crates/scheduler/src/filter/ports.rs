//! Host ports that another pod of the node has. Upstream: `plugins/nodeports`.

use super::Refused;
use crate::pod::Place;
use api::core::v1::PodSpec;

pub(super) fn filter(place: &Place<'_>) -> Result<(), Refused> {
    let wanted = host_ports(&place.request.spec);
    let taken = place.pods.iter().filter_map(|it| it.spec.as_ref()).flat_map(host_ports);
    let mut taken = taken.filter(|it| wanted.iter().any(|other| clash(it, other)));
    match taken.next() {
        None => Ok(()),
        Some(_) => {
            Err(Refused::for_now("node(s) didn't have free ports for the requested pod ports"))
        }
    }
}

/// (address, protocol, port)
type HostPort = (String, String, i32);

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let ports = spec.containers.iter().flat_map(|it| it.ports.iter().flatten());
    let text = |it: &Option<String>, default: &str| match it.as_deref() {
        None | Some("") => default.to_owned(),
        Some(it) => it.to_owned(),
    };
    let host = ports.filter_map(|it| {
        let port = it.host_port.filter(|it| *it > 0)?;
        Some((text(&it.host_ip, "0.0.0.0"), text(&it.protocol, "TCP"), port))
    });
    host.collect()
}

fn clash(a: &HostPort, b: &HostPort) -> bool {
    let any = "0.0.0.0";
    (a.1 == b.1 && a.2 == b.2) && (a.0 == b.0 || a.0 == any || b.0 == any)
}
