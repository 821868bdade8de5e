//! What the node says of itself. Upstream: `nodestatus/setters.go`.

use super::machine;
use crate::{
    Config, figures,
    kubelet::Shared,
    runtime::{Condition, RuntimeError, message},
    upkeep::images,
};
use api::{
    core::v1::{
        DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
        NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo,
    },
    k8s::apimachinery::pkg::api::resource::Quantity,
    meta,
};
use std::{collections::BTreeMap, time::Duration};

/// An unchanged status is written again after this long. Upstream: `nodeStatusReportFrequency`.
const HEARTBEAT: Duration = Duration::from_secs(300);

pub(super) fn of(
    config: &Config,
    shared: &Shared,
    node: &Node,
    port: u16,
    runtime: &Result<Condition, RuntimeError>,
    images: Vec<message::Image>,
) -> NodeStatus {
    let machine = machine();
    let old = node.status.clone().unwrap_or_default();
    let disk = figures::disk(&shared.facts.kubelet_dir);
    let amounts = [
        ("cpu", machine.cpus.to_string()),
        ("memory", format!("{}Ki", machine.memory_bytes / 1024)),
        ("ephemeral-storage", format!("{}Ki", disk.bytes / 1024)),
        ("pods", config.limits.pods_max.to_string()),
        ("hugepages-1Gi", "0".to_owned()),
        ("hugepages-2Mi", "0".to_owned()),
    ];
    let mut capacity: BTreeMap<String, Quantity> =
        amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount))).into();
    let mut allocatable = config.limits.allocatable(&capacity, &config.upkeep.eviction.hard);
    // Extended resources are told by whoever has them.
    for (own, theirs) in [(&mut capacity, &old.capacity), (&mut allocatable, &old.allocatable)] {
        for (name, amount) in theirs.iter().flatten().filter(|(name, _)| name.contains('/')) {
            own.entry(name.clone()).or_insert_with(|| amount.clone());
        }
    }
    // What is there in full may be given away.
    for (name, amount) in &capacity {
        allocatable.entry(name.clone()).or_insert_with(|| amount.clone());
    }
    let version = match runtime {
        Ok(condition) => condition.version.clone(),
        Err(_) => old
            .node_info
            .as_ref()
            .map(|it| it.container_runtime_version.clone())
            .unwrap_or_default(),
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let address = |kind: &str, address: &str| NodeAddress {
        type_: kind.to_owned(),
        address: address.to_owned(),
    };
    let mut status = NodeStatus {
        addresses: Some(vec![
            address("InternalIP", &config.node_address),
            address("Hostname", &config.node_name),
        ]),
        allocatable: Some(allocatable),
        capacity: Some(capacity),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: architecture.to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: version,
            kernel_version: machine.kernel.clone(),
            kubelet_version: config.version.clone(),
            kube_proxy_version: String::new(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            ..NodeSystemInfo::default()
        }),
        volumes_in_use: in_use(shared),
        images: Some(images::told(images)),
        phase: old.phase.clone(),
        volumes_attached: old.volumes_attached.clone(),
        config: old.config.clone(),
        features: match runtime {
            Ok(it) => it.features.map(|it| NodeFeatures {
                supplemental_groups_policy: Some(it.supplemental_groups_policy),
            }),
            Err(_) => old.features.clone(),
        },
        runtime_handlers: match runtime {
            Ok(it) => Some(handlers(&it.handlers)).filter(|it| !it.is_empty()),
            Err(_) => old.runtime_handlers.clone(),
        },
        ..NodeStatus::default()
    };
    let problems: Vec<String> = match runtime {
        Ok(condition) => condition.problems.clone(),
        Err(error) => vec![format!("container runtime is down: {error}")],
    };
    let short = shared.pressure.now(shared.clock.now());
    let verdicts = [
        pressure(
            "MemoryPressure",
            short.memory,
            [
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ],
        ),
        pressure(
            "DiskPressure",
            short.disk,
            [
                "KubeletHasDiskPressure",
                "kubelet has disk pressure",
                "KubeletHasNoDiskPressure",
                "kubelet has no disk pressure",
            ],
        ),
        pressure(
            "PIDPressure",
            short.processes,
            [
                "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available",
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ],
        ),
        match problems.is_empty() {
            true => ("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned()),
            false => ("Ready", false, "KubeletNotReady", problems.join(", ")),
        },
    ];
    conditions(shared, &old, &mut status, verdicts);
    status
}

fn handlers(all: &[message::RuntimeHandler]) -> Vec<NodeRuntimeHandler> {
    let one = |it: &message::RuntimeHandler| NodeRuntimeHandler {
        name: Some(it.name.clone()),
        features: it.features.map(|it| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(it.recursive_read_only_mounts),
            user_namespaces: Some(it.user_namespaces),
        }),
    };
    all.iter().map(one).collect()
}

type Verdict = (&'static str, bool, &'static str, String);

fn pressure(kind: &'static str, present: bool, words: [&'static str; 4]) -> Verdict {
    let [bad, bad_message, good, good_message] = words;
    match present {
        true => (kind, true, bad, bad_message.to_owned()),
        false => (kind, false, good, good_message.to_owned()),
    }
}

/// Conditions of others stay; ours are written when they change, or as a heartbeat.
fn conditions(shared: &Shared, old: &NodeStatus, status: &mut NodeStatus, verdicts: [Verdict; 4]) {
    let now = shared.clock.now();
    let before = old.conditions.clone().unwrap_or_default();
    let others = before.iter().filter(|it| !verdicts.iter().any(|(kind, ..)| it.type_ == *kind));
    let mut all: Vec<NodeCondition> = others.cloned().collect();
    for (kind, holds, reason, message) in verdicts {
        let wanted = if holds { "True" } else { "False" };
        let known = before.iter().find(|it| it.type_ == kind);
        let same = known.filter(|it| it.status == wanted);
        let unchanged = same.filter(|it| {
            let beat = it.last_heartbeat_time.as_ref().map(meta::timestamp_of).unwrap_or_default();
            it.reason.as_deref() == Some(reason)
                && it.message.as_deref() == Some(&message)
                && now.since(beat) < HEARTBEAT
        });
        if let Some(known) = unchanged {
            all.push(known.clone());
            continue;
        }
        all.push(NodeCondition {
            type_: kind.to_owned(),
            status: wanted.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(meta::time(now)),
            last_transition_time: same
                .and_then(|it| it.last_transition_time.clone())
                .or_else(|| Some(meta::time(now))),
        });
    }
    status.conditions = Some(all);
}

/// `kubernetes.io/csi/<driver>^<handle>`, as upstream names volumes of drivers.
fn in_use(shared: &Shared) -> Option<Vec<String>> {
    let records = shared.volumes.ledger().all();
    let ours = records
        .iter()
        .filter(|it| it.staging.is_some() && !it.plugin.starts_with("kubernetes.io/"));
    let mut names: Vec<String> =
        ours.map(|it| format!("kubernetes.io/csi/{}^{}", it.plugin, it.handle)).collect();
    names.sort();
    names.dedup();
    Some(names).filter(|it| !it.is_empty())
}
