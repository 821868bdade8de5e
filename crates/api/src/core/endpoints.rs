//! `v1` Endpoints: the addresses behind a service, as one list.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, validateEndpointSubsets.

use crate::{
    Object,
    field::{Errors, quoted},
    k8s::api::core::v1::{EndpointAddress, EndpointPort, Endpoints},
    kind::{Column, Kind, Names, Scope, Subresource},
    meta::{
        absent::{fill, list, text},
        addresses,
        columns::{self, NONE, age, name},
        names,
    },
};
use std::net::{IpAddr, SocketAddr};

/// On Endpoints: who writes them.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

impl Kind for Endpoints {
    const NAMES: Names =
        Names { plural: "endpoints", singular: "endpoints", short: &["ep"], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/services/endpoints";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<Endpoints>] = &[
        name(),
        columns::text("Endpoints", "Addresses and ports that are ready.", |endpoints, _| {
            shown(endpoints).into()
        }),
        age(),
    ];

    fn default(&mut self) {
        let subsets = self.subsets.iter_mut().flatten();
        for port in subsets.filter_map(|it| it.ports.as_mut()).flatten() {
            fill(&mut port.protocol, "TCP");
        }
    }

    fn validate(&self, errors: &mut Errors) {
        for (n, subset) in list(&self.subsets).iter().enumerate() {
            let path = format!("subsets[{n}]");
            let (ready, waiting) = (list(&subset.addresses), list(&subset.not_ready_addresses));
            if ready.is_empty() && waiting.is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for (field, addresses) in [("addresses", ready), ("notReadyAddresses", waiting)] {
                for (n, it) in addresses.iter().enumerate() {
                    validate_address(&format!("{path}.{field}[{n}]"), it, errors);
                }
            }
            let ports = list(&subset.ports);
            for (n, it) in ports.iter().enumerate() {
                validate_port(&format!("{path}.ports[{n}]"), it, ports.len() > 1, errors);
            }
        }
    }

    fn warnings(&self, _old: Option<&Endpoints>) -> Vec<String> {
        warnings(self)
    }
}

fn warnings(endpoints: &Endpoints) -> Vec<String> {
    // Its own controller writes them as they should be.
    if endpoints.label(MANAGED_BY) == Some("endpoint-controller") {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    for (n, subset) in list(&endpoints.subsets).iter().enumerate() {
        let both =
            [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)];
        for (field, all) in both {
            for (m, it) in list(all).iter().enumerate() {
                let path = format!("subsets[{n}].{field}[{m}].ip");
                warnings.extend(addresses::warning(path, &it.ip));
            }
        }
    }
    warnings
}

fn validate_address(path: &str, address: &EndpointAddress, errors: &mut Errors) {
    if !text(&address.hostname).is_empty() {
        names::dns_label(format!("{path}.hostname"), text(&address.hostname), errors);
    }
    if let Some(node) = &address.node_name {
        names::dns_subdomain(format!("{path}.nodeName"), node, errors);
    }
    validate_ip(&format!("{path}.ip"), &address.ip, errors);
}

fn validate_port(path: &str, port: &EndpointPort, named: bool, errors: &mut Errors) {
    match text(&port.name) {
        "" if named => errors.required(format!("{path}.name"), ""),
        "" => {}
        name => names::dns_label(format!("{path}.name"), name, errors),
    }
    names::port(format!("{path}.port"), port.port, errors);
    let protocols = ["SCTP", "TCP", "UDP"];
    if !protocols.contains(&text(&port.protocol)) {
        errors.not_supported(format!("{path}.protocol"), text(&port.protocol), &protocols);
    }
    if let Some(protocol) = &port.app_protocol {
        names::qualified_name(format!("{path}.appProtocol"), protocol, errors);
    }
}

/// An address that traffic can be sent to: no loopback, nothing of one link only.
pub(crate) fn validate_ip(path: &str, text: &str, errors: &mut Errors) {
    let before = errors.0.len();
    addresses::validate(path, text, errors);
    let Some(ip) = addresses::sloppy(text).filter(|_| errors.0.len() == before) else { return };
    let (link, multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => {
            (ip.segments()[0] & 0xffc0 == 0xfe80, ip.segments()[0] & 0xff0f == 0xff02)
        }
    };
    let checks = [
        (ip.is_unspecified(), format!("may not be unspecified ({text})")),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (
            multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
    ];
    for (_, detail) in checks.into_iter().filter(|it| it.0) {
        errors.invalid(path, quoted(text), detail);
    }
}

/// So many addresses are printed, the others counted.
const SHOWN: usize = 3;

fn shown(endpoints: &Endpoints) -> String {
    let subsets = list(&endpoints.subsets);
    if subsets.is_empty() {
        return NONE.to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = list(&subset.addresses).iter().map(|it| it.ip.as_str());
        if list(&subset.ports).is_empty() {
            all.extend(addresses.clone().map(str::to_owned));
        }
        for port in list(&subset.ports) {
            all.extend(addresses.clone().map(|ip| joined(ip, port.port)));
        }
    }
    let some = all[..all.len().min(SHOWN)].join(",");
    match all.len().saturating_sub(SHOWN) {
        0 => some,
        more => format!("{some} + {more} more..."),
    }
}

/// `10.0.0.1:80`, `[::1]:80`
fn joined(ip: &str, port: i32) -> String {
    match (ip.parse(), u16::try_from(port)) {
        (Ok(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
        _ => format!("{ip}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::json;

    #[test]
    fn prints_three_and_counts_the_rest() {
        let address = |n: usize| json!({"ip": format!("10.0.0.{n}")});
        let of = |count: usize| -> Endpoints {
            let addresses: Vec<_> = (1..=count).map(address).collect();
            let subset = json!({"addresses": addresses, "ports": [{"port": 80}]});
            from_value(&json!({"metadata": {"name": "e"}, "subsets": [subset]})).unwrap()
        };
        assert_eq!(row(&of(1)), "e | 10.0.0.1:80 | <unknown>");
        assert_eq!(row(&of(5)), "e | 10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more... | <unknown>");
    }

    #[test]
    fn tells_others_how_addresses_should_look() {
        let mut odd: Endpoints = from_value(&json!({"metadata": {"name": "e"},
            "subsets": [{"addresses": [{"ip": "FD00::1"}], "notReadyAddresses": [{"ip": "10.0.0.1"}]}]}))
        .unwrap();
        assert_eq!(
            odd.warnings(None),
            [
                "subsets[0].addresses[0].ip: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")"
            ]
        );
        let own = [(MANAGED_BY.to_owned(), "endpoint-controller".to_owned())];
        odd.metadata.labels = Some(own.into());
        assert!(odd.warnings(None).is_empty());
    }

    #[test]
    fn refuses_addresses_that_lead_nowhere() {
        for ip in [
            "010.0.0.1",
            "::ffff:10.0.0.1",
            "127.0.0.1",
            "0.0.0.0",
            "169.254.1.1",
            "224.0.0.1",
            "::1",
            "fe80::1",
            "x",
        ] {
            let mut errors = Errors::default();
            validate_ip("ip", ip, &mut errors);
            assert_eq!(errors.0.len(), 1, "{ip}");
        }
    }
}
