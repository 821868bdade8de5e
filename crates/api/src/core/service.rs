//! `v1` Service: one name and address for the pods that a selector chooses.
//!
//! Upstream: `pkg/registry/core/service`, `pkg/apis/core/v1/defaults.go`.

mod print;
mod update;
mod validate;
mod warnings;

use crate::{
    field::Errors,
    k8s::{
        api::core::v1::{
            ClientIPConfig, Service, ServiceSpec, ServiceStatus, SessionAffinityConfig,
        },
        apimachinery::pkg::util::intstr::IntOrString,
    },
    kind::{Column, Kind, Names, Scope, Subresource},
    meta::{
        absent::{fill, list, omit_zero, text},
        names,
    },
};

/// `spec.clusterIP` of a service without an address: its name leads to the pods themselves.
pub const HEADLESS: &str = "None";

/// How long a client sticks to its pod: 3 hours.
const STICKY_SECONDS: i32 = 10_800;

impl Kind for Service {
    const NAMES: Names =
        Names { plural: "services", singular: "service", short: &["svc"], categories: &["all"] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/services/specs";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status, Subresource::Proxy];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<Service>] = print::COLUMNS;

    fn default(&mut self) {
        default_spec(self.spec.get_or_insert_default());
        let status = self.status.get_or_insert_default();
        let entrances = status.load_balancer.get_or_insert_default();
        if kind(self.spec.as_ref()) == "LoadBalancer" {
            let entrances = entrances.ingress.iter_mut().flatten();
            for entrance in entrances.filter(|it| !text(&it.ip).is_empty()) {
                entrance.ip_mode.get_or_insert_with(|| "VIP".to_owned());
            }
        }
    }

    fn prepare_create(&mut self) {
        let load_balancer = Some(Default::default());
        self.status = Some(ServiceStatus { load_balancer, conditions: None });
        let spec = self.spec.get_or_insert_default();
        if !text(&spec.cluster_ip).is_empty() && list(&spec.cluster_ips).is_empty() {
            spec.cluster_ips = Some(vec![text(&spec.cluster_ip).to_owned()]);
        }
        if has_address(spec) {
            default_families(spec);
        }
    }

    fn prepare_update(&mut self, old: &Service) {
        self.status.clone_from(&old.status);
        if let (Some(spec), Some(before)) = (&mut self.spec, &old.spec) {
            update::keep_allocated(spec, before);
            update::drop_outgrown(spec, before);
            let changed = text(&spec.cluster_ip) != text(&before.cluster_ip);
            if changed && spec.cluster_ips == before.cluster_ips {
                // The author changed the old field only: the new one follows.
                let one = spec.cluster_ip.clone().filter(|it| !it.is_empty());
                spec.cluster_ips = one.map(|it| vec![it]);
            }
        }
        if kind(self.spec.as_ref()) != "LoadBalancer" {
            self.status.get_or_insert_default().load_balancer = Some(Default::default());
        }
    }

    fn prepare_status(&mut self, old: &Service) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self, errors);
    }

    fn validate_update(&self, old: &Service, errors: &mut Errors) {
        validate::validate_update(self, old, errors);
    }

    fn validate_status(&self, _old: &Service, errors: &mut Errors) {
        validate::validate_status(self, errors);
    }

    fn warnings(&self, _old: Option<&Service>) -> Vec<String> {
        warnings::of(self)
    }

    /// A label, digits first or not: upstream relaxed it in 1.36.
    fn validate_name(name: &str, errors: &mut Errors) {
        names::dns_label("metadata.name", name, errors);
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("spec.clusterIP", cluster_ip(self).to_owned()),
            ("spec.type", kind(self.spec.as_ref()).to_owned()),
        ]
    }

    fn index_keys(&self) -> Vec<(&'static str, String)> {
        let spec = self.spec.iter();
        let own = spec.flat_map(|it| it.cluster_ips.iter().flatten().chain(&it.cluster_ip));
        let own = own.filter(|it| !it.is_empty() && *it != HEADLESS);
        let mut keys: Vec<_> = own.map(|it| ("address", it.clone())).collect();
        keys.dedup();
        keys
    }
}

/// Has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    cluster_ip(service) == HEADLESS
}

/// Is only another name for something outside.
pub fn is_external_name(service: &Service) -> bool {
    kind(service.spec.as_ref()) == "ExternalName"
}

/// The address in the cluster: empty before it is given one, `None` for a headless service.
pub fn cluster_ip(service: &Service) -> &str {
    service.spec.as_ref().map_or("", |it| text(&it.cluster_ip))
}

fn kind(spec: Option<&ServiceSpec>) -> &str {
    spec.map_or("", |it| text(&it.type_))
}

fn default_spec(spec: &mut ServiceSpec) {
    fill(&mut spec.session_affinity, "None");
    if text(&spec.session_affinity) == "None" {
        spec.session_affinity_config = None;
    }
    if text(&spec.session_affinity) == "ClientIP" {
        let config = spec.session_affinity_config.as_ref().and_then(|it| it.client_ip.as_ref());
        if config.and_then(|it| it.timeout_seconds).is_none() {
            let client_ip = Some(ClientIPConfig { timeout_seconds: Some(STICKY_SECONDS) });
            spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
        }
    }
    fill(&mut spec.type_, "ClusterIP");
    omit_zero(&mut spec.health_check_node_port);
    omit_zero(&mut spec.publish_not_ready_addresses);
    for port in spec.ports.iter_mut().flatten() {
        omit_zero(&mut port.node_port);
        fill(&mut port.protocol, "TCP");
        let missing = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::Int(_)) => false,
            Some(IntOrString::String(name)) => name.is_empty(),
        };
        if missing {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    if is_external(spec) {
        fill(&mut spec.external_traffic_policy, "Cluster");
    }
    if text(&spec.type_) != "ExternalName" {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
    }
    if text(&spec.type_) == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

/// One family, that of the address; both for a headless service that selects nothing.
fn default_families(spec: &mut ServiceSpec) {
    let families = list(&spec.cluster_ips).first().map_or("IPv4", |it| match it.contains(':') {
        true => "IPv6",
        false => "IPv4",
    });
    let open = text(&spec.cluster_ip) == HEADLESS && spec.selector.iter().flatten().count() == 0;
    let policy = if open { "RequireDualStack" } else { "SingleStack" };
    fill(&mut spec.ip_family_policy, policy);
    if list(&spec.ip_families).is_empty() {
        let mut all = vec![families.to_owned()];
        if text(&spec.ip_family_policy) == "RequireDualStack" && open {
            all.push("IPv6".to_owned());
        }
        spec.ip_families = Some(all);
    }
}

/// Can be reached from outside the cluster.
fn is_external(spec: &ServiceSpec) -> bool {
    match text(&spec.type_) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(&spec.external_ips).is_empty(),
        _ => false,
    }
}

fn has_address(spec: &ServiceSpec) -> bool {
    text(&spec.type_) != "ExternalName"
}

#[cfg(test)]
mod tests {
    use super::{print::ports, *};
    use crate::{codec, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        let mut service =
            codec::from_value(&json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        <Service as Kind>::default(&mut service);
        service
    }

    #[test]
    fn fills_in_what_the_author_left_out() {
        let plain = service(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
        assert_eq!(
            codec::to_value(&plain)["spec"],
            json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "selector": {"app": "web"},
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
        );
        let node_port = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
        assert_eq!(node_port.spec.unwrap().external_traffic_policy.as_deref(), Some("Cluster"));
    }

    #[test]
    fn an_update_keeps_what_was_allocated_and_drops_what_it_outgrew() {
        let old = service(json!({"type": "NodePort", "clusterIP": "10.0.0.9",
            "clusterIPs": ["10.0.0.9"], "ports": [{"port": 80, "nodePort": 30080}]}));
        let mut new = service(json!({"type": "NodePort", "ports": [{"port": 81}]}));
        new.prepare_update(&old);
        assert_eq!(cluster_ip(&new), "10.0.0.9");
        assert_eq!(new.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port, Some(30080));
        let mut named = old.clone();
        named.spec.as_mut().unwrap().type_ = Some("ExternalName".to_owned());
        named.prepare_update(&old);
        assert_eq!((cluster_ip(&named), ports(&named)), ("", "80/TCP".to_owned()));
    }

    #[test]
    fn prints_addresses_and_ports() {
        let headless = service(json!({"clusterIP": "None", "clusterIPs": ["None"],
            "selector": {"app": "web", "tier": "x"}, "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}));
        assert_eq!(
            row(&headless),
            "web | ClusterIP | None | <none> | 80/TCP,53/UDP | <unknown> | app=web,tier=x"
        );
        let waiting = service(json!({"type": "LoadBalancer", "clusterIPs": ["10.0.0.9"],
            "ports": [{"port": 80, "nodePort": 30080}]}));
        assert_eq!(
            row(&waiting),
            "web | LoadBalancer | 10.0.0.9 | <pending> | 80:30080/TCP | <unknown> | <none>"
        );
    }
}
