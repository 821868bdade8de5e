//! What a Service must be, and what may not change in it.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, validateService and ValidateServiceUpdate.

use super::{
    HEADLESS, has_address, is_external,
    warnings::{HINTS, MODE},
};
use crate::{
    Object,
    core::endpoints,
    field::{Errors, quoted},
    k8s::{
        api::core::v1::{Service, ServicePort, ServiceSpec},
        apimachinery::pkg::util::intstr::IntOrString,
    },
    meta::{
        absent::{list, text},
        addresses, names,
    },
};
use std::{collections::BTreeSet, net::IpAddr};

/// From where a load balancer may be reached, as an annotation.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn validate(service: &Service, errors: &mut Errors) {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    if let (Some(mode), Some(hints)) = (service.annotation(MODE), service.annotation(HINTS))
        && mode != hints
    {
        let detail = format!("must match annotations[{HINTS}] when both are specified");
        errors.invalid(format!("metadata.annotations[{MODE}]"), quoted(mode), detail);
    }
    let headless = list(&spec.cluster_ips) == [HEADLESS];
    let ports = list(&spec.ports);
    if ports.is_empty() && !headless && has_address(spec) {
        errors.required("spec.ports", "");
    }
    let kind = text(&spec.type_);
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.invalid("spec.clusterIPs[0]", quoted(HEADLESS), detail);
        }
        "ExternalName" => validate_external_name(spec, errors),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (n, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{n}]");
        validate_port(&path, port, ports.len() > 1, errors);
        let name = text(&port.name);
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(format!("{path}.name"), quoted(name));
        }
    }
    if let Some(selector) = &spec.selector {
        names::labels("spec.selector", selector, errors);
    }
    validate_affinity(spec, errors);
    if has_address(spec) {
        validate_addresses(spec, headless, errors);
    }
    for (n, ip) in list(&spec.external_ips).iter().enumerate() {
        endpoints::validate_ip(&format!("spec.externalIPs[{n}]"), ip, errors);
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    match kind {
        "" => errors.required("spec.type", ""),
        kind if kinds.contains(&kind) => {}
        kind => errors.not_supported("spec.type", kind, &kinds),
    }
    validate_duplicates(spec, errors);
    validate_balancer(service, spec, errors);
    validate_policies(spec, errors);
}

/// What only services with a load balancer say.
fn validate_balancer(service: &Service, spec: &ServiceSpec, errors: &mut Errors) {
    let balanced = text(&spec.type_) == "LoadBalancer";
    let detail = "may only be used when `type` is 'LoadBalancer'";
    let (ranges, path) = (list(&spec.load_balancer_source_ranges), "spec.LoadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        errors.forbidden(path, detail);
    }
    for (n, range) in ranges.iter().enumerate() {
        addresses::validate_range(format!("{path}[{n}]"), range.trim(), errors);
    }
    if let (Some(ranges), true) = (service.annotation(SOURCE_RANGES), ranges.is_empty()) {
        let path = format!("metadata.annotations[{SOURCE_RANGES}]");
        if !balanced {
            errors.forbidden(&path, detail);
        }
        for range in ranges.trim().split(',').filter(|_| !ranges.trim().is_empty()) {
            addresses::validate_range(&path, range.trim(), errors);
        }
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !balanced {
        errors.forbidden("spec.allocateLoadBalancerNodePorts", detail);
    }
    match &spec.load_balancer_class {
        None => {}
        Some(class) if balanced => names::qualified_name("spec.loadBalancerClass", class, errors),
        Some(_) => errors.forbidden("spec.loadBalancerClass", detail),
    }
}

fn validate_external_name(spec: &ServiceSpec, errors: &mut Errors) {
    let fields = [
        ("clusterIPs", !list(&spec.cluster_ips).is_empty()),
        ("ipFamilies", !list(&spec.ip_families).is_empty()),
        ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
    ];
    for (field, _) in fields.into_iter().filter(|it| it.1) {
        errors.forbidden(format!("spec.{field}"), "may not be set for ExternalName services");
    }
    let name = text(&spec.external_name);
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.required("spec.externalName", ""),
        name => names::dns_subdomain("spec.externalName", name, errors),
    }
}

fn validate_port(path: &str, port: &ServicePort, named: bool, errors: &mut Errors) {
    match text(&port.name) {
        "" if named => errors.required(format!("{path}.name"), ""),
        "" => {}
        name => names::dns_label(format!("{path}.name"), name, errors),
    }
    names::port(format!("{path}.port"), port.port, errors);
    match text(&port.protocol) {
        "" => errors.required(format!("{path}.protocol"), ""),
        protocol if PROTOCOLS.contains(&protocol) => {}
        protocol => errors.not_supported(format!("{path}.protocol"), protocol, &PROTOCOLS),
    }
    match &port.target_port {
        Some(IntOrString::Int(number)) => {
            names::port(format!("{path}.targetPort"), *number, errors);
        }
        Some(IntOrString::String(name)) => {
            names::port_name(format!("{path}.targetPort"), name, errors);
        }
        None => {}
    }
    if let Some(protocol) = &port.app_protocol {
        names::qualified_name(format!("{path}.appProtocol"), protocol, errors);
    }
}

fn validate_affinity(spec: &ServiceSpec, errors: &mut Errors) {
    match text(&spec.session_affinity) {
        "" => errors.required("spec.sessionAffinity", ""),
        "None" => {}
        "ClientIP" => {
            let config = spec.session_affinity_config.as_ref();
            let seconds = config.and_then(|it| it.client_ip.as_ref()?.timeout_seconds);
            if let Some(seconds) = seconds.filter(|it| !(1..=86400).contains(it)) {
                let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
                errors.invalid(path, seconds, "must be greater than 0 and less than 86400");
            }
        }
        other => errors.not_supported("spec.sessionAffinity", other, &["ClientIP", "None"]),
    }
}

fn shown(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|it| quoted(it)).collect();
    format!("[{}]", quoted.join(","))
}

fn validate_addresses(spec: &ServiceSpec, headless: bool, errors: &mut Errors) {
    let (one, all) = (text(&spec.cluster_ip), list(&spec.cluster_ips));
    let path = "spec.clusterIPs";
    match (one, all.first()) {
        ("", Some(_)) => {
            errors.invalid(path, shown(all), "must be empty when `clusterIP` is not specified");
        }
        ("", None) => {}
        (_, None) => errors.required(path, ""),
        (one, Some(first)) if one != first => {
            errors.invalid(path, shown(all), "first value must match `clusterIP`");
        }
        (_, Some(_)) => {}
    }
    let families = list(&spec.ip_families);
    let mut seen = BTreeSet::new();
    for (n, family) in families.iter().enumerate() {
        let path = format!("spec.ipFamilies[{n}]");
        let known = ["IPv4", "IPv6"];
        if !known.contains(&family.as_str()) {
            errors.not_supported(&path, family, &known);
        }
        if !seen.insert(family) {
            errors.duplicate(path, quoted(family));
        }
    }
    let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if let Some(policy) = spec.ip_family_policy.as_deref().filter(|it| !known.contains(it)) {
        errors.not_supported("spec.ipFamilyPolicy", policy, &known);
    }
    let before = errors.0.len();
    for (n, ip) in all.iter().enumerate() {
        if n > 0 || ip != HEADLESS {
            addresses::validate(format!("{path}[{n}]"), ip, errors);
        } else if all.len() > 1 {
            errors.invalid(path, shown(all), "'None' must be the first and only value");
        }
    }
    if all.len() > 2 {
        errors.invalid(path, shown(all), "may only hold up to 2 values");
    }
    if errors.0.len() > before || headless {
        return;
    }
    if all.len() > 1 && all.iter().filter(|it| it.contains(':')).count() != 1 {
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid(path, shown(all), detail);
    }
    for (n, (ip, family)) in all.iter().zip(families).enumerate() {
        let six = ip.parse::<IpAddr>().is_ok_and(|it| it.is_ipv6());
        if six != (family == "IPv6") {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{n}]`");
            errors.invalid(format!("{path}[{n}]"), quoted(ip), detail);
        }
    }
}

fn validate_duplicates(spec: &ServiceSpec, errors: &mut Errors) {
    let (mut nodes, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (n, port) in list(&spec.ports).iter().enumerate() {
        let path = format!("spec.ports[{n}]");
        let protocol = text(&port.protocol);
        if let Some(number) = port.node_port.filter(|it| *it != 0) {
            if text(&spec.type_) == "ClusterIP" {
                let detail = "may not be used when `type` is 'ClusterIP'";
                errors.forbidden(format!("{path}.nodePort"), detail);
            }
            if !nodes.insert((protocol, number)) {
                errors.duplicate(format!("{path}.nodePort"), number);
            }
        }
        if !seen.insert((protocol, port.port)) {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                quoted(protocol),
                port.port
            );
            errors.duplicate(path, shown);
        }
    }
}

fn validate_policies(spec: &ServiceSpec, errors: &mut Errors) {
    let external = text(&spec.external_traffic_policy);
    let path = "spec.externalTrafficPolicy";
    let known = ["Cluster", "Local"];
    match (is_external(spec), external) {
        (false, "") => {}
        (false, policy) => {
            errors.invalid(
                path,
                quoted(policy),
                "may only be set for externally-accessible services",
            );
        }
        (true, "") => errors.required(path, ""),
        (true, policy) if known.contains(&policy) => {}
        (true, policy) => errors.not_supported(path, policy, &known),
    }
    let checked = text(&spec.type_) == "LoadBalancer" && external == "Local";
    let port = spec.health_check_node_port.unwrap_or(0);
    if !checked && port != 0 {
        let detail =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid("spec.healthCheckNodePort", port, detail);
    }
    let path = "spec.internalTrafficPolicy";
    if let Some(policy) = spec.internal_traffic_policy.as_deref().filter(|it| !known.contains(it)) {
        errors.not_supported(path, policy, &known);
    }
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if let Some(policy) = spec.traffic_distribution.as_deref().filter(|it| !known.contains(it)) {
        errors.not_supported("spec.trafficDistribution", policy, &known);
    }
}

pub(super) fn validate_update(service: &Service, old: &Service, errors: &mut Errors) {
    let (Some(spec), Some(before)) = (&service.spec, &old.spec) else { return };
    let balanced = |it: &ServiceSpec| text(&it.type_) == "LoadBalancer";
    if balanced(spec) && balanced(before) && spec.load_balancer_class != before.load_balancer_class
    {
        let shown = spec.load_balancer_class.as_deref().map_or_else(|| "null".to_owned(), quoted);
        errors.invalid("spec.loadBalancerClass", shown, "may not change once set");
    }
    let checked = |it: &ServiceSpec| balanced(it) && text(&it.external_traffic_policy) == "Local";
    if checked(spec)
        && checked(before)
        && spec.health_check_node_port != before.health_check_node_port
    {
        errors.forbidden("spec.healthCheckNodePort", "field is immutable");
    }
    if has_address(spec) && has_address(before) {
        validate_addresses_update(spec, before, errors);
    }
}

fn validate_addresses_update(spec: &ServiceSpec, before: &ServiceSpec, errors: &mut Errors) {
    let (now, then) = (list(&spec.cluster_ips), list(&before.cluster_ips));
    let headless = (now == [HEADLESS], then == [HEADLESS]);
    if headless == (true, true) {
        return;
    }
    let single = text(&spec.ip_family_policy) == "SingleStack";
    let released = |what: &str, errors: &mut Errors| {
        let policy = spec.ip_family_policy.as_deref().map_or_else(|| "null".to_owned(), quoted);
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.invalid("spec.ipFamilyPolicy", policy, detail);
    };
    if now.is_empty() && !then.is_empty() {
        errors.invalid("spec.clusterIPs[0]", "null", "primary clusterIP can not be unset");
    }
    let compared = if now.len() == then.len() { then.len() } else { 1 };
    for (n, (ip, old)) in now.iter().zip(then).take(compared).enumerate() {
        if ip != old {
            errors.invalid(format!("spec.clusterIPs[{n}]"), shown(now), "may not change once set");
        }
    }
    if then.len() > now.len() && now.len() == 1 && !single {
        released("clusterIP", errors);
    }
    if headless != (false, false) {
        return;
    }
    let (families, old) = (list(&spec.ip_families), list(&before.ip_families));
    let path = "spec.ipFamilies[0]";
    if families.len() < old.len() && now.is_empty() {
        errors.invalid(path, shown(families), "primary ipFamily can not be unset");
    }
    let same = families.len() == old.len();
    let compared = if same { old.len() } else { 1 };
    for _ in families.iter().zip(old).take(compared).filter(|(it, old)| it != old) {
        // Of one more or one less, upstream shows the addresses.
        let value = if same { families } else { now };
        errors.invalid(path, shown(value), "may not change once set");
    }
    if families.len() < old.len() && families.len() == 1 && !single {
        released("ipFamily", errors);
    }
}

/// Where a load balancer says that it can be reached.
pub(super) fn validate_status(service: &Service, errors: &mut Errors) {
    let balancer = service.status.as_ref().and_then(|it| it.load_balancer.as_ref());
    let entrances = balancer.map(|it| list(&it.ingress)).unwrap_or_default();
    let path = "status.loadBalancer.ingress";
    let balanced = service.spec.as_ref().is_some_and(|it| text(&it.type_) == "LoadBalancer");
    if !balanced && !entrances.is_empty() {
        errors.forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    for (n, it) in entrances.iter().enumerate() {
        let path = format!("{path}[{n}]");
        let (ip, host) = (text(&it.ip), text(&it.hostname));
        if !ip.is_empty() {
            addresses::validate(format!("{path}.ip"), ip, errors);
        }
        let at = format!("{path}.ipMode");
        let known = ["Proxy", "VIP"];
        match it.ip_mode.as_deref() {
            None if !ip.is_empty() => errors.required(at, "must be specified when `ip` is set"),
            Some(_) if ip.is_empty() => {
                errors.forbidden(at, "may not be specified when `ip` is not set");
            }
            Some(mode) if !known.contains(&mode) => errors.not_supported(at, mode, &known),
            None | Some(_) => {}
        }
        if !host.is_empty() {
            names::dns_subdomain(format!("{path}.hostname"), host, errors);
            if addresses::sloppy(host).is_some() {
                let detail = "must be a DNS name, not an IP address";
                errors.invalid(format!("{path}.hostname"), quoted(host), detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, codec::from_value};
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        let metadata = json!({"name": "web", "namespace": "ns"});
        let mut service = from_value(&json!({"metadata": metadata, "spec": spec})).unwrap();
        <Service as Kind>::default(&mut service);
        service.prepare_create();
        service
    }

    #[track_caller]
    fn check(spec: Value, expected: &str) {
        let mut errors = Errors::default();
        service(spec).validate(&mut errors);
        assert_eq!(errors.message(), expected);
    }

    #[test]
    fn a_service_has_ports_unless_it_is_only_a_name() {
        check(json!({"ports": [{"port": 80}]}), "");
        check(json!({}), "spec.ports: Required value");
        check(json!({"clusterIP": "None"}), "");
        check(json!({"type": "ExternalName"}), "spec.externalName: Required value");
        check(json!({"type": "ExternalName", "externalName": "example.com."}), "");
        check(
            json!({"ports": [{"port": 0}]}),
            "[spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, \
             spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive]",
        );
        check(
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}, {"port": 82}]}),
            "[spec.ports[1].name: Duplicate value: \"a\", spec.ports[2].name: Required value]",
        );
        check(
            json!({"type": "Local", "ports": [{"port": 80}]}),
            "spec.type: Unsupported value: \"Local\": supported values: \"ClusterIP\", \"ExternalName\", \
             \"LoadBalancer\", \"NodePort\"",
        );
        check(
            json!({"clusterIP": "ten", "ports": [{"port": 80}]}),
            "spec.clusterIPs[0]: Invalid value: \"ten\": must be a valid IP address, \
             (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }

    #[test]
    fn a_load_balancer_has_words_of_its_own() {
        let ports = json!([{"port": 80}]);
        let only = "may only be used when `type` is 'LoadBalancer'";
        check(
            json!({"ports": ports, "loadBalancerClass": "a/b", "loadBalancerSourceRanges": ["x"]}),
            &format!(
                "[spec.LoadBalancerSourceRanges: Forbidden: {only}, \
                 spec.LoadBalancerSourceRanges[0]: Invalid value: \"x\": must be a valid CIDR value, \
                 (e.g. 10.9.8.0/24 or 2001:db8::/64), spec.loadBalancerClass: Forbidden: {only}]"
            ),
        );
        check(
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}),
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\
             \"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
        );
        let mut balanced = service(json!({"type": "LoadBalancer", "ports": ports}));
        balanced.status = serde_json::from_value(
            json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"hostname": "1.2.3.4"}]}}),
        )
        .unwrap();
        let mut errors = Errors::default();
        balanced.validate_status(&balanced, &mut errors);
        assert_eq!(
            errors.message(),
            "[status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set, \
             status.loadBalancer.ingress[1].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address]"
        );
        let mut other = balanced.clone();
        other.spec.as_mut().unwrap().load_balancer_class = Some("a/b".to_owned());
        let mut errors = Errors::default();
        other.validate_update(&balanced, &mut errors);
        assert_eq!(
            errors.message(),
            "spec.loadBalancerClass: Invalid value: \"a/b\": may not change once set"
        );
    }

    #[test]
    fn an_address_is_for_life() {
        let of = |ip: &str| {
            service(json!({"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}))
        };
        let mut errors = Errors::default();
        of("10.0.0.2").validate_update(&of("10.0.0.1"), &mut errors);
        assert_eq!(
            errors.message(),
            "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"
        );
    }
}
