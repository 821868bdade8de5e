//! A service as `kubectl get` shows it.

use super::kind;
use crate::{
    k8s::api::core::v1::Service,
    kind::Column,
    meta::{
        Selector,
        absent::{list, text},
        columns::{self, NONE, age, name, or, wide},
    },
};
use std::collections::BTreeSet;

pub(super) const COLUMNS: &[Column<Service>] = &[
    name(),
    columns::text("Type", "How far it reaches.", |service, _| kind(service.spec.as_ref()).into()),
    columns::text("Cluster-IP", "Its address in the cluster.", |service, _| {
        let ips = service.spec.as_ref().map(|it| list(&it.cluster_ips)).unwrap_or_default();
        ips.first().map_or(NONE, String::as_str).into()
    }),
    columns::text("External-IP", "Its addresses for the world.", |service, _| {
        external_ip(service).into()
    }),
    columns::text("Port(s)", "Its ports, and those on every node.", |service, _| {
        or(&ports(service), NONE).into()
    }),
    age(),
    wide("Selector", "The labels of its pods.", |service, _| {
        let selector = service.spec.as_ref().and_then(|it| it.selector.as_ref());
        let selector = selector.map(|it| Selector::of_map(it).to_string()).unwrap_or_default();
        or(&selector, NONE).into()
    }),
];

fn external_ip(service: &Service) -> String {
    let Some(spec) = &service.spec else { return NONE.to_owned() };
    let listed = list(&spec.external_ips).join(",");
    match text(&spec.type_) {
        "ClusterIP" | "NodePort" => or(&listed, NONE).to_owned(),
        "LoadBalancer" => {
            let balancer = service.status.as_ref().and_then(|it| it.load_balancer.as_ref());
            let entrances = balancer.map(|it| list(&it.ingress)).unwrap_or_default().iter();
            let names = entrances.map(|it| or(text(&it.ip), text(&it.hostname)));
            let names: BTreeSet<&str> = names.filter(|it| !it.is_empty()).collect();
            let shown = names.into_iter().collect::<Vec<_>>().join(",");
            let both: Vec<&str> =
                [shown.as_str(), listed.as_str()].into_iter().filter(|it| !it.is_empty()).collect();
            or(&both.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text(&spec.external_name).to_owned(),
        _ => columns::UNKNOWN.to_owned(),
    }
}

pub(super) fn ports(service: &Service) -> String {
    let ports = service.spec.as_ref().map(|it| list(&it.ports)).unwrap_or_default().iter();
    let shown = ports.map(|it| match it.node_port.unwrap_or(0) {
        0 => format!("{}/{}", it.port, text(&it.protocol)),
        node_port => format!("{}:{node_port}/{}", it.port, text(&it.protocol)),
    });
    shown.collect::<Vec<_>>().join(",")
}
