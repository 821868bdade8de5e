//! `networking.k8s.io/v1` IPAddress: an address that somebody has, by whom. Services' are written with the Service.
//!
//! Upstream: `pkg/apis/networking/validation/validation.go`, ValidateIPAddress and Update.

use crate::{
    field::{Errors, quoted},
    k8s::api::networking::v1::{IPAddress, ParentReference},
    kind::{Column, Kind, Names, Object, Scope},
    meta::{
        absent::{same, text as plain},
        columns::{age, name, text},
        names,
    },
};
use std::net::IpAddr;

/// Whose addresses are given out and taken back with Services.
pub const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// The value of [`MANAGED_BY`] of Services' addresses.
pub const OF_SERVICES: &str = "ipallocator.k8s.io";

impl Kind for IPAddress {
    const NAMES: Names =
        Names { plural: "ipaddresses", singular: "ipaddress", short: &["ip"], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/ipaddresses";
    const COLUMNS: &'static [Column<IPAddress>] =
        &[name(), text("ParentRef", "Who has the address.", |it, _| parent(it).into()), age()];

    fn validate_name(name: &str, errors: &mut Errors) {
        match name.parse::<IpAddr>() {
            Ok(address) if address.to_string() == name => {}
            Ok(address) => {
                let canonical = format!("must be in canonical form ({:?})", address.to_string());
                errors.invalid("metadata.name", quoted(name), canonical);
            }
            Err(_) => {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.invalid("metadata.name", quoted(name), detail);
            }
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let ParentReference { group, name, namespace, resource } = &self.spec.parent_ref;
        let path = |field: &str| format!("spec.parentRef.{field}");
        if !plain(group).is_empty() {
            names::dns_subdomain(path("group"), plain(group), errors);
        }
        for (field, value) in [("resource", resource), ("name", name)] {
            match value.as_str() {
                "" => errors.required(path(field), ""),
                value => names::path_segment(path(field), value, errors),
            }
        }
        if !plain(namespace).is_empty() {
            names::path_segment(path("namespace"), plain(namespace), errors);
        }
    }

    fn validate_update(&self, old: &IPAddress, errors: &mut Errors) {
        let (parent, before) = (&self.spec.parent_ref, &old.spec.parent_ref);
        if !same(parent, before) {
            let shown = serde_json::to_string(parent).expect("API objects are plain data");
            errors.invalid("spec.parentRef", shown, "field is immutable");
        }
    }
}

/// `services/default/kubernetes`
fn parent(address: &IPAddress) -> String {
    let ParentReference { group, name, namespace, resource } = &address.spec.parent_ref;
    let mut text = match plain(group) {
        "" => resource.to_lowercase(),
        group => format!("{resource}.{group}").to_lowercase(),
    };
    for part in [plain(namespace), name].into_iter().filter(|it| !it.is_empty()) {
        text.push('/');
        text.push_str(part);
    }
    text
}

/// Whether it was given out with a Service.
pub fn is_of_services(address: &IPAddress) -> bool {
    address.label(MANAGED_BY) == Some(OF_SERVICES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn address(parent: Value) -> IPAddress {
        from_value(&json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": parent}}))
            .unwrap()
    }

    #[test]
    fn belongs_to_somebody_for_good() {
        let own =
            address(json!({"resource": "services", "namespace": "default", "name": "kubernetes"}));
        assert_eq!(row(&own), "10.0.0.1 | services/default/kubernetes | <unknown>");
        let other = address(json!({"group": "a.example", "resource": "Things", "name": "x"}));
        assert_eq!(row(&other), "10.0.0.1 | things.a.example/x | <unknown>");
        let mut errors = Errors::default();
        other.validate_update(&own, &mut errors);
        assert!(errors.message().ends_with("field is immutable"));
        let mut errors = Errors::default();
        address(json!({"resource": "", "name": "a/b"})).validate(&mut errors);
        assert_eq!(
            errors.message(),
            r#"[spec.parentRef.resource: Required value, spec.parentRef.name: Invalid value: "a/b": may not contain '/']"#
        );
    }

    #[test]
    fn is_called_by_the_address_as_it_is_written_for_short() {
        let check = |name: &str| {
            let mut errors = Errors::default();
            IPAddress::validate_name(name, &mut errors);
            errors.message()
        };
        for fine in ["255.255.255.255", "fe80::42:1dff:fe84:f9e2"] {
            assert_eq!(check(fine), "", "{fine}");
        }
        assert_eq!(
            check("2001:DB8::1"),
            r#"metadata.name: Invalid value: "2001:DB8::1": must be in canonical form ("2001:db8::1")"#
        );
        assert!(check("10.0.0.01").contains("must be a valid IP address"));
    }
}
