//! Whether this node takes a pod that names it.
//!
//! Upstream: `pkg/kubelet/lifecycle/predicate.go`, `sysctl/allowlist.go`, `scheduler.AdmissionCheck` (1.36).

use super::Verdict;
use api::{
    Object,
    core::{
        node::{allocatable, is_chosen_by},
        pod::{Amounts, node_name, requests, tolerates},
        v1::{Node, Pod, PodSpec},
    },
    meta::Exact,
};

/// Namespaced and without influence on other pods. Upstream: `safe_sysctls.go`; every kernel that we run on has them.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// What this node can do besides, as its runtime says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    pub app_armor: bool,
}

/// `others`: the pods that the node has taken and that have not ended.
pub fn admit<'a>(
    pod: &Pod,
    node: &Node,
    others: impl Iterator<Item = &'a Pod>,
    abilities: Abilities,
) -> Result<(), Verdict> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let label = pod.metadata.labels.as_ref().and_then(|it| it.get("kubernetes.io/os"));
    if label.is_some_and(|it| it != "linux") {
        let why = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(Verdict::rejected("PodOSSelectorNodeLabelDoesNotMatch", why));
    }
    if spec.os.as_ref().is_some_and(|it| it.name != "linux") {
        let why = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Verdict::rejected("PodOSNotSupported", why));
    }
    let others: Vec<&Pod> = others.collect();
    fits(pod, spec, node, &others)?;
    chosen(pod, spec, node, &others)?;
    sysctls(spec)?;
    app_armor(pod, spec, abilities)
}

fn fits(pod: &Pod, spec: &PodSpec, node: &Node, others: &[&Pod]) -> Result<(), Verdict> {
    let has = allocatable(node);
    let lacks = |resource: &str, requested: i64, used: i64, capacity: i64| {
        let why = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        let reason = match resource {
            "cpu" => "OutOfcpu",
            "memory" => "OutOfmemory",
            "ephemeral-storage" => "OutOfephemeral-storage",
            "pods" => "OutOfpods",
            _ => "OutOfExtendedResources",
        };
        Err(Verdict::rejected(reason, why))
    };
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let most = has.get("pods").map_or(i64::MAX, |it| it.units());
    if count + 1 > most {
        return lacks("pods", 1, count, most);
    }
    let mut used = Amounts::new();
    for other in others.iter().filter(|it| it.uid() != pod.uid()) {
        for (name, amount) in other.spec.as_ref().map(requests).unwrap_or_default() {
            let sum = used.entry(name).or_default();
            *sum = *sum + amount;
        }
    }
    for (name, wanted) in requests(spec) {
        let of = |amounts: &Amounts| amounts.get(&name).copied().unwrap_or_default();
        // Extended resources that the node does not know are somebody else's.
        if wanted == Exact::ZERO || (name.contains('/') && !has.contains_key(&name)) {
            continue;
        }
        if wanted > of(&has) - of(&used) {
            let number = |it: Exact| if name == "cpu" { it.milli() } else { it.units() };
            return lacks(&name, number(wanted), number(of(&used)), number(of(&has)));
        }
    }
    Ok(())
}

fn chosen(pod: &Pod, spec: &PodSpec, node: &Node, others: &[&Pod]) -> Result<(), Verdict> {
    let failed = |name: &'static str, why: &str| {
        Err(Verdict::rejected(name, format!("Predicate {name} failed: {why}")))
    };
    if !is_chosen_by(node, spec) {
        return failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    if node_name(pod) != node.name() {
        return failed("NodeName", "node(s) didn't match the requested node name");
    }
    let wanted = host_ports(spec);
    let mut taken = others.iter().filter_map(|it| it.spec.as_ref()).flat_map(host_ports);
    if taken.any(|it| wanted.iter().any(|other| clash(&it, other))) {
        return failed("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    let taints = node.spec.as_ref().and_then(|it| it.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let mut evicting = taints.iter().filter(|it| it.effect == "NoExecute");
    if evicting.any(|taint| !tolerations.iter().any(|it| tolerates(it, taint))) {
        return failed("TaintToleration", "node(s) had taints that the pod didn't tolerate");
    }
    Ok(())
}

/// (address, protocol, port)
type HostPort = (String, String, i32);

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|it| super::is_sidecar(it));
    let all = spec.containers.iter().chain(sidecars);
    let text = |it: &Option<String>, default: &str| match it.as_deref() {
        None | Some("") => default.to_owned(),
        Some(it) => it.to_owned(),
    };
    all.flat_map(|it| it.ports.iter().flatten())
        .filter_map(|it| {
            let port = it.host_port.filter(|it| *it > 0)?;
            Some((text(&it.host_ip, "0.0.0.0"), text(&it.protocol, "TCP"), port))
        })
        .collect()
}

fn clash(a: &HostPort, b: &HostPort) -> bool {
    let any = "0.0.0.0";
    (a.1 == b.1 && a.2 == b.2) && (a.0 == b.0 || a.0 == any || b.0 == any)
}

fn sysctls(spec: &PodSpec) -> Result<(), Verdict> {
    let security = spec.security_context.as_ref();
    for it in security.and_then(|it| it.sysctls.as_ref()).into_iter().flatten() {
        let name = dotted(&it.name);
        let shared = match name.split('.').next() {
            Some("net") if spec.host_network == Some(true) => Some("Net"),
            Some("kernel") if spec.host_ipc == Some(true) => Some("IPC"),
            Some(_) | None => None,
        };
        let forbidden = match shared {
            _ if !SAFE_SYSCTLS.contains(&name.as_str()) => format!("{name:?} not allowlisted"),
            Some(namespace) => format!("{name:?} not allowed with host {namespace} enabled"),
            None => continue,
        };
        let why = format!("forbidden sysctl: {forbidden}");
        return Err(Verdict::rejected("SysctlForbidden", why));
    }
    Ok(())
}

/// `net/ipv4/conf/eth0.1/x` → `net.ipv4.conf.eth0/1.x`: whichever of the two separators comes first is the separator.
pub fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => {
            let swap = |it| match it {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            name.chars().map(swap).collect()
        }
        Some(_) | None => name.to_owned(),
    }
}

fn app_armor(pod: &Pod, spec: &PodSpec, abilities: Abilities) -> Result<(), Verdict> {
    if abilities.app_armor {
        return Ok(());
    }
    let of_pod = spec.security_context.as_ref().and_then(|it| it.app_armor_profile.as_ref());
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let own = all.filter_map(|it| it.security_context.as_ref()?.app_armor_profile.as_ref());
    let asks = own.chain(of_pod).any(|it| it.type_ != "Unconfined");
    let annotated = pod.metadata.annotations.iter().flatten().any(|(key, value)| {
        key.starts_with("container.apparmor.security.beta.kubernetes.io/") && value != "unconfined"
    });
    match asks || annotated {
        true => Err(Verdict::rejected(
            "AppArmor",
            "Cannot enforce AppArmor: AppArmor is not enabled on the host",
        )),
        false => Ok(()),
    }
}
