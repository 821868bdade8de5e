//! `discovery.k8s.io/v1` EndpointSlice: some of the addresses behind a service.
//!
//! Upstream: `pkg/apis/discovery/validation/validation.go`, `pkg/registry/discovery/endpointslice`.

use crate::{
    Object,
    core::endpoints,
    field::{Errors, quoted},
    k8s::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    kind::{Column, Kind, Names, Scope, Subresource},
    meta::{
        absent::{fill, list, same, text as plain},
        addresses,
        columns::{UNSET, age, name, text},
        names,
    },
};
use std::net::IpAddr;

/// On each slice: its service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// On each slice: who writes it.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// Limits of one slice.
const ENDPOINTS_MOST: usize = 1000;
const ADDRESSES_MOST: usize = 100;
const PORTS_MOST: usize = 20_000;
/// Zones, and nodes, that one endpoint is meant for.
const HINTS_MOST: usize = 8;
/// So many are printed, the others counted.
const SHOWN: usize = 3;

impl Kind for EndpointSlice {
    const NAMES: Names =
        Names { plural: "endpointslices", singular: "endpointslice", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/endpointslices";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column<EndpointSlice>] = &[
        name(),
        text("AddressType", "IPv4, IPv6 or FQDN.", |slice, _| slice.address_type.as_str().into()),
        text("Ports", "The ports of every endpoint.", |slice, _| {
            let number = |it: &EndpointPort| match it.port {
                Some(port) => port.to_string(),
                None => it.name.clone().unwrap_or_else(|| "*".to_owned()),
            };
            some(list(&slice.ports).iter().map(number).collect()).into()
        }),
        text("Endpoints", "The addresses.", |slice, _| {
            let addresses = list(&slice.endpoints).iter().flat_map(|it| it.addresses.clone());
            some(addresses.collect()).into()
        }),
        age(),
    ];

    fn default(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            fill(&mut port.protocol, "TCP");
        }
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
        forget_topology(self);
    }

    fn prepare_update(&mut self, old: &EndpointSlice) {
        let changed = self.address_type != old.address_type
            || !same(&self.endpoints, &old.endpoints)
            || !same(&self.ports, &old.ports)
            || !same(&self.metadata.labels, &old.metadata.labels);
        let generation = old.metadata.generation.unwrap_or(1) + i64::from(changed);
        self.metadata.generation = Some(generation);
        if !same(&self.endpoints, &old.endpoints) {
            forget_topology(self);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let types = ["FQDN", "IPv4", "IPv6"];
        match self.address_type.as_str() {
            "" => errors.required("addressType", ""),
            kind if types.contains(&kind) => {}
            kind => errors.not_supported("addressType", kind, &types),
        }
        validate_ports(list(&self.ports), errors);
        let endpoints = list(&self.endpoints);
        if endpoints.len() > ENDPOINTS_MOST {
            errors.too_many("endpoints", endpoints.len(), ENDPOINTS_MOST);
            return;
        }
        for (n, it) in endpoints.iter().enumerate() {
            validate_endpoint(&format!("endpoints[{n}]"), it, &self.address_type, errors);
        }
    }

    fn validate_update(&self, old: &EndpointSlice, errors: &mut Errors) {
        if self.address_type != old.address_type {
            errors.invalid("addressType", quoted(&self.address_type), "field is immutable");
        }
    }

    fn warnings(&self, old: Option<&EndpointSlice>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() && self.address_type == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        let own = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
        if self.label(MANAGED_BY_LABEL).is_some_and(|it| own.contains(&it)) {
            return warnings;
        }
        for (n, endpoint) in list(&self.endpoints).iter().enumerate() {
            for (m, address) in endpoint.addresses.iter().enumerate() {
                let path = format!("endpoints[{n}].addresses[{m}]");
                warnings.extend(addresses::warning(path, address));
            }
        }
        warnings
    }

    fn index_keys(&self) -> Vec<(&'static str, String)> {
        let service = self.label(SERVICE_LABEL).filter(|it| !it.is_empty());
        service.map(|it| ("service", format!("{}/{it}", self.namespace()))).into_iter().collect()
    }
}

/// What this version of the API never took: nobody can write it.
fn forget_topology(slice: &mut EndpointSlice) {
    slice.endpoints.iter_mut().flatten().for_each(|it| it.deprecated_topology = None);
}

fn some(all: Vec<String>) -> String {
    match all.len() {
        0 => UNSET.to_owned(),
        count if count > SHOWN => {
            format!("{} + {} more...", all[..SHOWN].join(","), count - SHOWN)
        }
        _ => all.join(","),
    }
}

fn validate_ports(ports: &[EndpointPort], errors: &mut Errors) {
    if ports.len() > PORTS_MOST {
        errors.too_many("ports", ports.len(), PORTS_MOST);
        return;
    }
    let mut seen = Vec::new();
    for (n, port) in ports.iter().enumerate() {
        let path = format!("ports[{n}]");
        let name = plain(&port.name);
        if !name.is_empty() {
            names::dns_label(format!("{path}.name"), name, errors);
        }
        if seen.contains(&name) {
            errors.duplicate(format!("{path}.name"), quoted(name));
        }
        seen.push(name);
        let protocols = ["SCTP", "TCP", "UDP"];
        match port.protocol.as_deref() {
            None => errors.required(format!("{path}.protocol"), ""),
            Some(it) if protocols.contains(&it) => {}
            Some(it) => errors.not_supported(format!("{path}.protocol"), it, &protocols),
        }
        if let Some(protocol) = &port.app_protocol {
            names::qualified_name(format!("{path}.appProtocol"), protocol, errors);
        }
    }
}

fn validate_endpoint(path: &str, endpoint: &Endpoint, kind: &str, errors: &mut Errors) {
    let at = format!("{path}.addresses");
    match endpoint.addresses.len() {
        0 => errors.required(&at, "must contain at least 1 address"),
        count if count > ADDRESSES_MOST => errors.too_many(&at, count, ADDRESSES_MOST),
        _ => {}
    }
    for (n, address) in endpoint.addresses.iter().enumerate() {
        let path = format!("{at}[{n}]");
        if kind == "FQDN" {
            names::full_domain(path, address, errors);
            continue;
        }
        if let (Some(ip), "IPv6") = (addresses::sloppy(address), kind)
            && ip.is_ipv6()
            && ip.to_string() != *address
        {
            let detail = format!("must be in canonical form ({})", quoted(&ip.to_string()));
            errors.invalid(path, quoted(address), detail);
            continue;
        }
        let ip = address.parse::<IpAddr>();
        if ip.is_ok_and(|it| it.is_ipv4() != (kind == "IPv4")) {
            errors.invalid(&at, quoted(address), format!("must be an {kind} address"));
        }
        endpoints::validate_ip(&path, address, errors);
    }
    if let Some(node) = &endpoint.node_name {
        names::dns_subdomain(format!("{path}.nodeName"), node, errors);
    }
    if let Some(host) = &endpoint.hostname {
        names::dns_label(format!("{path}.hostname"), host, errors);
    }
    let Some(hints) = &endpoint.hints else { return };
    let zones: Vec<&str> = list(&hints.for_zones).iter().map(|it| it.name.as_str()).collect();
    let nodes: Vec<&str> = list(&hints.for_nodes).iter().map(|it| it.name.as_str()).collect();
    for (field, all) in [("forZones", &zones), ("forNodes", &nodes)] {
        let path = format!("{path}.hints.{field}");
        if all.len() > HINTS_MOST {
            errors.too_many(path, all.len(), HINTS_MOST);
            return;
        }
        for (n, name) in all.iter().enumerate() {
            let path = format!("{path}[{n}].name");
            if all[..n].contains(name) {
                errors.duplicate(&path, quoted(name));
            }
            match field {
                "forZones" => names::label_value(path, name, errors),
                _ => names::dns_subdomain(path, name, errors),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn slice(addresses: Value) -> EndpointSlice {
        let metadata = json!({"name": "s", "namespace": "ns", "labels": {SERVICE_LABEL: "web"}});
        let mut slice = from_value(&json!({"metadata": metadata, "addressType": "IPv4",
            "endpoints": [{"addresses": addresses}], "ports": [{"port": 80}]}))
        .unwrap();
        <EndpointSlice as Kind>::default(&mut slice);
        slice
    }

    #[test]
    fn holds_addresses_of_one_service_and_one_family() {
        let good = slice(json!(["10.0.0.1"]));
        assert_eq!(row(&good), "s | IPv4 | 80 | 10.0.0.1 | <unknown>");
        assert_eq!(good.index_keys(), [("service", "ns/web".to_owned())]);
        let wrong = |addresses: Value| {
            let mut errors = Errors::default();
            slice(addresses).validate(&mut errors);
            errors.message()
        };
        assert_eq!(wrong(json!(["10.0.0.1"])), "");
        assert_eq!(
            wrong(json!([])),
            "endpoints[0].addresses: Required value: must contain at least 1 address"
        );
        assert_eq!(
            wrong(json!(["fd00::1"])),
            "endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address"
        );
    }
}
