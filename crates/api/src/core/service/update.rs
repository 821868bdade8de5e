//! What an update keeps of the old service without being told, and what it drops.
//!
//! Upstream: `pkg/registry/core/service/strategy.go` (dropTypeDependentFields),
//! `storage/alloc.go` (patchAllocatedValues).

use super::{has_address, is_external};
use crate::{
    k8s::api::core::v1::ServiceSpec,
    meta::absent::{list, text},
};
use std::collections::BTreeSet;

fn has_node_ports(spec: &ServiceSpec) -> bool {
    matches!(text(&spec.type_), "NodePort" | "LoadBalancer")
}

fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    list(&spec.ports).iter().filter_map(|it| it.node_port).filter(|it| *it != 0).collect()
}

/// An update that does not mention what the server allocated keeps it.
pub(super) fn keep_allocated(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if has_address(old) && has_address(spec) {
        if text(&spec.cluster_ip).is_empty() {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        if list(&spec.cluster_ips).is_empty() {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
        if list(&spec.ip_families).is_empty() {
            spec.ip_families.clone_from(&old.ip_families);
        }
        if spec.ip_family_policy.is_none() {
            spec.ip_family_policy.clone_from(&old.ip_family_policy);
        }
    }
    if has_node_ports(old) && has_node_ports(spec) {
        let used: BTreeSet<i32> =
            node_ports(old).intersection(&node_ports(spec)).copied().collect();
        for port in spec.ports.iter_mut().flatten() {
            if port.node_port.unwrap_or(0) == 0 {
                let before = list(&old.ports).iter().find(|it| it.name == port.name);
                let number = before.and_then(|it| it.node_port).filter(|it| !used.contains(it));
                port.node_port = number.or(port.node_port);
            }
        }
    }
    if spec.health_check_node_port.unwrap_or(0) == 0
        && text(&spec.external_traffic_policy) == "Local"
        && text(&spec.type_) == "LoadBalancer"
    {
        spec.health_check_node_port = old.health_check_node_port;
    }
}

/// What only the old type needed and the author did not touch goes with that type.
pub(super) fn drop_outgrown(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if has_address(old) && !has_address(spec) {
        if spec.cluster_ip == old.cluster_ip && spec.cluster_ips == old.cluster_ips {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        if spec.ip_families == old.ip_families {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == old.ip_family_policy {
            spec.ip_family_policy = None;
        }
    }
    let kept_ports = node_ports(old).is_superset(&node_ports(spec));
    if has_node_ports(old) && !has_node_ports(spec) && kept_ports {
        for port in spec.ports.iter_mut().flatten() {
            port.node_port = None;
        }
    }
    let balanced = |it: &ServiceSpec| text(&it.type_) == "LoadBalancer";
    if balanced(old) && !balanced(spec) {
        if spec.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
        if spec.load_balancer_class == old.load_balancer_class {
            spec.load_balancer_class = None;
        }
        if spec.health_check_node_port == old.health_check_node_port {
            spec.health_check_node_port = None;
        }
    }
    let same_policy = spec.external_traffic_policy == old.external_traffic_policy;
    if is_external(old) && !is_external(spec) && same_policy {
        spec.external_traffic_policy = None;
    }
}
