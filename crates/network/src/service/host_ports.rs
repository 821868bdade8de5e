//! Ports of the node that belong to pods of it.
//!
//! A host port is a node port with one endpoint, and answers on the loopback address too. Upstream: the portmap plugin
//! of CNI, which kubelets leave it to.

use super::ports::{Port, id, protocol};
use api::{
    Object,
    core::v1::{Container, ContainerPort, Pod},
};
use std::net::Ipv4Addr;
use world::{Touched, World};

pub(super) fn concerns(touched: &Touched) -> bool {
    let rows = [&touched.old, &touched.new].into_iter().flatten();
    let mut pods = rows.filter_map(|it| it.typed::<Pod>());
    touched.kind.kind == "Pod" && pods.any(|it| ports(&it).next().is_some())
}

/// Every host port of a pod that runs on this node and has an address of its own.
pub(super) fn of_world(world: &World, node: &str) -> Vec<Port> {
    world.indexed::<Pod>("node", node).flat_map(|it| of_pod(&it)).collect()
}

fn of_pod(pod: &Pod) -> Vec<Port> {
    let status = pod.status.as_ref();
    let address = status.and_then(|it| it.pod_ip.as_ref()).and_then(|it| it.parse().ok());
    let Some(address) = address.filter(|_: &Ipv4Addr| !api::core::pod::is_terminal(pod)) else {
        return Vec::new();
    };
    let one = |port: &ContainerPort| {
        let number = u16::try_from(port.host_port?).ok()?;
        let protocol = protocol(port.protocol.as_deref().unwrap_or("TCP"))?;
        let host = port.host_ip.as_deref().filter(|it| !matches!(*it, "" | "0.0.0.0"));
        let host: Option<Ipv4Addr> = match host {
            Some(host) => Some(host.parse().ok()?),
            None => None,
        };
        let parts = [pod.uid(), &number.to_string(), &protocol.to_string()];
        let shown = host.map(|it| it.to_string()).unwrap_or_default();
        Some(Port {
            id: id(&[parts[0], parts[1], parts[2], &shown]),
            protocol,
            address: Ipv4Addr::UNSPECIFIED,
            external: vec![host.unwrap_or(Ipv4Addr::LOCALHOST)],
            port: number,
            node_port: host.is_none().then_some(number),
            inside: Vec::new(),
            outside: vec![(address, u16::try_from(port.container_port).ok()?)],
            keeps_source: true,
            sticky_seconds: None,
        })
    };
    ports(pod).filter_map(one).collect()
}

/// A pod on the host's network has its ports anyway.
fn ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let spec = pod.spec.as_ref().filter(|it| it.host_network != Some(true));
    let sidecar = |it: &&Container| it.restart_policy.as_deref() == Some("Always");
    let all = spec.into_iter().flat_map(move |it| {
        it.containers.iter().chain(it.init_containers.iter().flatten().filter(sidecar))
    });
    all.flat_map(|it| it.ports.iter().flatten()).filter(|it| it.host_port.unwrap_or(0) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str, status: &str) -> Pod {
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p","namespace":"a","uid":"u"}},"spec":{spec},"status":{status}}}"#
        );
        api::codec::decode(text.as_bytes()).expect("a Pod").0
    }

    const PORTS: &str = r#"{"containers":[{"name":"c","ports":[
        {"containerPort":80,"hostPort":8080},{"containerPort":53,"hostPort":5353,"protocol":"UDP","hostIP":"192.0.2.1"},
        {"containerPort":81,"hostPort":8081,"hostIP":"127.0.0.1"},{"containerPort":82}]}]}"#;

    #[test]
    fn a_host_port_goes_to_its_pod_while_that_has_an_address() {
        let running = of_pod(&pod(PORTS, r#"{"phase":"Running","podIP":"10.0.0.2"}"#));
        let [any, one, own] = running.as_slice() else { panic!("{running:?}") };
        assert_eq!(
            (any.node_port, any.outside.as_slice()),
            (Some(8080), &[([10, 0, 0, 2].into(), 80)][..])
        );
        assert_eq!((one.node_port, one.protocol), (None, 17));
        assert_eq!(one.places().last(), Some((Ipv4Addr::new(192, 0, 2, 1), 5353)));
        assert_eq!(any.places().last(), Some((Ipv4Addr::LOCALHOST, 8080)));
        assert_eq!(own.places().last(), Some((Ipv4Addr::LOCALHOST, 8081)));
        assert_ne!(any.id, one.id);
        assert_eq!(of_pod(&pod(PORTS, r#"{"phase":"Pending"}"#)), []);
        assert_eq!(of_pod(&pod(PORTS, r#"{"phase":"Failed","podIP":"10.0.0.2"}"#)), []);
        let on_host = PORTS.replacen('{', r#"{"hostNetwork":true,"#, 1);
        assert_eq!(of_pod(&pod(&on_host, r#"{"phase":"Running","podIP":"192.0.2.1"}"#)), []);
    }
}
