//! `networking.k8s.io/v1` ServiceCIDR: a range from which Services get their addresses.
//!
//! Upstream: `pkg/apis/networking/validation/validation.go`, ValidateServiceCIDR and Update.

use crate::{
    field::{Errors, quoted},
    k8s::{
        api::networking::v1::{ServiceCIDR, ServiceCIDRStatus},
        apimachinery::pkg::apis::meta::v1::Condition,
    },
    kind::{Column, Kind, Names, Scope, Subresource},
    meta::columns::{age, name, text},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The range that the server is started with.
pub const DEFAULT: &str = "kubernetes";
/// Keeps a range until no Service has an address of it.
pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
pub const READY: &str = "Ready";

const IMMUTABLE: &str = "field is immutable";

impl Kind for ServiceCIDR {
    const NAMES: Names =
        Names { plural: "servicecidrs", singular: "servicecidr", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/servicecidrs";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const COLUMNS: &'static [Column<ServiceCIDR>] =
        &[name(), text("CIDRs", "Its ranges.", |it, _| ranges(it).join(",").into()), age()];

    fn default(&mut self) {
        self.spec.get_or_insert_default();
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(ServiceCIDRStatus::default());
    }

    fn prepare_update(&mut self, old: &ServiceCIDR) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &ServiceCIDR) {
        self.spec.clone_from(&old.spec);
        let (meta, before) = (&mut self.metadata, &old.metadata);
        meta.labels.clone_from(&before.labels);
        meta.annotations.clone_from(&before.annotations);
        meta.finalizers.clone_from(&before.finalizers);
        meta.owner_references.clone_from(&before.owner_references);
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate_ranges(ranges(self), errors);
    }

    fn validate_update(&self, old: &ServiceCIDR, errors: &mut Errors) {
        let (new, old) = (ranges(self), ranges(old));
        let mut changed = |n: usize| {
            if new[n] != old[n] {
                errors.invalid(format!("spec.cidrs[{n}]"), quoted(&new[n]), IMMUTABLE);
            }
        };
        match (old.len(), new.len()) {
            (before, now) if before == now => (0..now).for_each(changed),
            // One of the other family may be added.
            (1, 2) => {
                changed(0);
                validate_ranges(new, errors);
            }
            (_, _) => {
                let shown = serde_json::to_string(new).expect("texts are plain data");
                errors.invalid("spec.cidrs", shown, IMMUTABLE);
            }
        }
    }
}

fn validate_ranges(ranges: &[String], errors: &mut Errors) {
    let path = "spec.cidrs";
    let shown = || serde_json::to_string(ranges).expect("texts are plain data");
    match ranges {
        [] => errors.required(path, "at least one CIDR required"),
        [_] | [_, _] => {
            let parsed: Vec<Option<Prefix>> = ranges.iter().map(|it| Prefix::parse(it)).collect();
            for (n, (text, prefix)) in ranges.iter().zip(&parsed).enumerate() {
                validate_range(&format!("{path}[{n}]"), text, *prefix, errors);
            }
            if let [Some(first), Some(second)] = parsed[..]
                && first.is_ipv4() == second.is_ipv4()
            {
                let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                errors.invalid(path, shown(), detail);
            }
        }
        [_, _, ..] => errors.invalid(path, shown(), "may only hold up to 2 values"),
    }
}

fn validate_range(path: &str, text: &str, prefix: Option<Prefix>, errors: &mut Errors) {
    let Some(prefix) = prefix else {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        return errors.invalid(path, quoted(text), detail);
    };
    let network = prefix.network().to_string();
    if network != prefix.to_string() {
        let detail = "must not have bits set beyond the prefix length";
        errors.invalid(path, quoted(text), detail);
    } else if network != text {
        errors.invalid(path, quoted(text), format!("must be in canonical form ({network:?})"));
    }
}

/// An address and how many of its bits name a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub address: IpAddr,
    pub bits: u8,
}

impl Prefix {
    pub fn parse(text: &str) -> Option<Prefix> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let is_plain = bits.bytes().all(|it| it.is_ascii_digit());
        let bits = bits.parse().ok().filter(|it| is_plain && *it <= most)?;
        Some(Prefix { address, bits })
    }

    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    /// The same with nothing behind its bits.
    pub fn network(self) -> Prefix {
        let address = match self.address {
            IpAddr::V4(it) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                Ipv4Addr::from(u32::from(it) & mask).into()
            }
            IpAddr::V6(it) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                Ipv6Addr::from(u128::from(it) & mask).into()
            }
        };
        Prefix { address, bits: self.bits }
    }

    /// Whether all of the other lies in it.
    pub fn covers(self, other: Prefix) -> bool {
        self.is_ipv4() == other.is_ipv4()
            && self.bits <= other.bits
            && Prefix { bits: self.bits, ..other }.network() == self.network()
    }

    pub fn contains(self, address: IpAddr) -> bool {
        self.covers(Prefix { address, bits: if address.is_ipv4() { 32 } else { 128 } })
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Its ranges as they are written.
pub fn ranges(of: &ServiceCIDR) -> &[String] {
    of.spec.as_ref().and_then(|it| it.cidrs.as_deref()).unwrap_or_default()
}

/// Its ranges.
pub fn prefixes(of: &ServiceCIDR) -> impl Iterator<Item = Prefix> {
    ranges(of).iter().filter_map(|it| Prefix::parse(it))
}

pub fn ready(of: &ServiceCIDR) -> Option<&Condition> {
    of.status.as_ref()?.conditions.iter().flatten().find(|it| it.type_ == READY)
}

/// Whether Services may get addresses of it.
pub fn is_ready(of: &ServiceCIDR) -> bool {
    of.metadata.deletion_timestamp.is_none() && ready(of).is_some_and(|it| it.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::json;

    fn cidr(ranges: &[&str]) -> ServiceCIDR {
        from_value(&json!({"metadata": {"name": "a"}, "spec": {"cidrs": ranges}})).unwrap()
    }

    #[track_caller]
    fn check(ranges: &[&str], expected: &str) {
        let mut errors = Errors::default();
        cidr(ranges).validate_create(&mut errors);
        assert_eq!(errors.message(), expected, "{ranges:?}");
    }

    #[test]
    fn holds_one_range_of_each_family() {
        check(&["10.0.0.0/16"], "");
        check(&["10.0.0.0/16", "2001:db8::/64"], "");
        check(&[], "spec.cidrs: Required value: at least one CIDR required");
        check(
            &["10.0.0.1/16"],
            r#"spec.cidrs[0]: Invalid value: "10.0.0.1/16": must not have bits set beyond the prefix length"#,
        );
        check(
            &["2001:DB8::/64"],
            r#"spec.cidrs[0]: Invalid value: "2001:DB8::/64": must be in canonical form ("2001:db8::/64")"#,
        );
        for wrong in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "x/8"] {
            check(
                &[wrong],
                &format!(
                    "spec.cidrs[0]: Invalid value: {wrong:?}: must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
                ),
            );
        }
        check(
            &["10.0.0.0/16", "10.1.0.0/16"],
            r#"spec.cidrs: Invalid value: ["10.0.0.0/16","10.1.0.0/16"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#,
        );
    }

    #[test]
    fn keeps_its_ranges() {
        let old = cidr(&["10.0.0.0/16"]);
        assert_eq!(row(&old), "a | 10.0.0.0/16 | <unknown>");
        let refused = |new: &[&str]| {
            let mut errors = Errors::default();
            cidr(new).validate_update(&old, &mut errors);
            errors.message()
        };
        assert_eq!(refused(&["10.0.0.0/16"]), "");
        assert_eq!(refused(&["10.0.0.0/16", "2001:db8::/64"]), "");
        assert_eq!(
            refused(&["10.1.0.0/16"]),
            r#"spec.cidrs[0]: Invalid value: "10.1.0.0/16": field is immutable"#
        );
        assert!(refused(&[]).ends_with("field is immutable"));
    }

    #[test]
    fn a_range_knows_what_lies_in_it() {
        let prefix = |text: &str| Prefix::parse(text).unwrap();
        let wide = prefix("10.0.0.0/8");
        assert!(wide.covers(prefix("10.1.0.0/16")) && wide.covers(wide));
        assert!(!prefix("10.1.0.0/16").covers(wide));
        assert!(wide.contains([10, 9, 9, 9].into()) && !wide.contains([11, 0, 0, 1].into()));
        assert!(prefix("0.0.0.0/0").contains([1, 2, 3, 4].into()));
        assert!(prefix("::/0").contains("2001:db8::1".parse().unwrap()));
        assert!(!prefix("::/0").contains([1, 2, 3, 4].into()));
    }
}
