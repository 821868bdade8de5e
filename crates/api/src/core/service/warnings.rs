//! What is allowed in a Service and yet ignored, odd or on its way out.
//!
//! Upstream: `pkg/api/service/warnings.go` (1.36).

use super::{HEADLESS, cluster_ip, is_external_name, kind};
use crate::{
    Object,
    k8s::api::core::v1::Service,
    meta::{
        absent::{list, text},
        addresses,
    },
};

pub(super) const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
pub(super) const MODE: &str = "service.kubernetes.io/topology-mode";

pub(super) fn of(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let headless = kind(Some(spec)) == "ClusterIP" && cluster_ip(service) == HEADLESS;
    let named = is_external_name(service);
    let external = list(&spec.external_ips);
    let mut warnings = Vec::new();
    let mut tell = |says: bool, what: &str| {
        if says {
            warnings.push(what.to_owned());
        }
    };
    let old = format!("annotation {HINTS} is deprecated, please use {MODE} instead");
    tell(service.annotation(HINTS).is_some(), &old);
    let own = list(&spec.cluster_ips).iter().enumerate().filter(|it| it.1 != HEADLESS);
    for (n, ip) in own.filter(|_| !named) {
        let odd = addresses::warning(format!("spec.clusterIPs[{n}]"), ip);
        tell(odd.is_some(), &odd.unwrap_or_default());
    }
    if headless {
        let balancer = !text(&spec.load_balancer_ip).is_empty();
        tell(balancer, "spec.loadBalancerIP is ignored for headless services");
        tell(!external.is_empty(), "spec.externalIPs is ignored for headless services");
        let sticky = text(&spec.session_affinity) != "None";
        tell(sticky, "spec.SessionAffinity is ignored for headless services");
    }
    for (n, ip) in external.iter().enumerate() {
        let odd = addresses::warning(format!("spec.externalIPs[{n}]"), ip);
        tell(odd.is_some(), &odd.unwrap_or_default());
    }
    tell(
        !external.is_empty() && !headless && !named,
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
    );
    let odd = addresses::warning("spec.loadBalancerIP", text(&spec.load_balancer_ip));
    tell(odd.is_some(), &odd.unwrap_or_default());
    for (n, range) in list(&spec.load_balancer_source_ranges).iter().enumerate() {
        for odd in addresses::range_warnings(format!("spec.loadBalancerSourceRanges[{n}]"), range) {
            tell(true, &odd);
        }
    }
    tell(
        named && !external.is_empty(),
        "spec.externalIPs is ignored when spec.type is \"ExternalName\"",
    );
    tell(
        !named && !text(&spec.external_name).is_empty(),
        "spec.externalName is ignored when spec.type is not \"ExternalName\"",
    );
    tell(
        text(&spec.traffic_distribution) == "PreferClose",
        "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
    );
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, codec};
    use serde_json::{Value, json};

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        let mut service =
            codec::from_value(&json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        <Service as Kind>::default(&mut service);
        assert_eq!(of(&service), expected);
    }

    #[test]
    fn warns_of_what_is_ignored_and_what_is_odd() {
        check(json!({"ports": [{"port": 80}]}), &[]);
        check(
            json!({"clusterIP": "None", "sessionAffinity": "ClientIP", "externalIPs": ["1.2.3.4"]}),
            &[
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
            ],
        );
        check(
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.1.0.0/8"],
                "externalName": "x", "clusterIPs": ["FD00::1"]}),
            &[
                "spec.clusterIPs[0]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
                "spec.loadBalancerSourceRanges[0]: CIDR value \"10.1.0.0/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.1.0.0/32\"?)",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ],
        );
        check(
            json!({"type": "ExternalName", "externalName": "x.y", "trafficDistribution": "PreferClose"}),
            &["spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""],
        );
    }
}
