//! The sandbox of a pod as CRI wants it. Upstream: `kuberuntime_sandbox.go` (generatePodSandboxConfig).

use super::{Facts, dns, kernel_name, resources, security};
use crate::plan::admit::dotted;
use crate::runtime::{
    cri::{GRACE_SECONDS, POD_NAME, POD_NAMESPACE, POD_UID},
    message,
};
use api::{
    Object,
    core::v1::{Pod, PodSpec},
};
use message::{
    Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, PodSandboxConfig,
    PodSandboxMetadata, PortMapping, Protocol, SecurityProfile,
};

pub fn config(pod: &Pod, attempt: u32, facts: &Facts) -> PodSandboxConfig {
    let spec = pod.spec.clone().unwrap_or_default();
    let mut labels: std::collections::HashMap<String, String> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.insert(POD_NAME.to_owned(), pod.name().to_owned());
    labels.insert(POD_NAMESPACE.to_owned(), pod.namespace().to_owned());
    labels.insert(POD_UID.to_owned(), pod.uid().to_owned());
    let mut annotations: std::collections::HashMap<String, String> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    if let Some(seconds) = spec.termination_grace_period_seconds {
        annotations.insert(GRACE_SECONDS.to_owned(), seconds.to_string());
    }
    let host_network = spec.host_network == Some(true);
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        hostname: if host_network { String::new() } else { kernel_name(pod, facts) },
        log_directory: super::text(&facts.pod_log_dir(pod)),
        dns_config: Some(dns::config(pod, facts)),
        port_mappings: ports(&spec),
        labels,
        annotations,
        linux: Some(linux(pod, &spec, facts)),
    }
}

fn linux(pod: &Pod, spec: &PodSpec, facts: &Facts) -> LinuxPodSandboxConfig {
    let own = spec.security_context.as_ref();
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let privileged = |it: &api::core::v1::Container| {
        it.security_context.as_ref().is_some_and(|it| it.privileged == Some(true))
    };
    let sysctls = own.and_then(|it| it.sysctls.as_ref()).into_iter().flatten();
    LinuxPodSandboxConfig {
        cgroup_parent: resources::cgroup_parent(pod, facts),
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(security::namespaces(pod)),
            run_as_user: own.and_then(|it| it.run_as_user).map(|value| Int64Value { value }),
            run_as_group: own.and_then(|it| it.run_as_group).map(|value| Int64Value { value }),
            supplemental_groups: security::groups(pod),
            supplemental_groups_policy: security::groups_policy(pod),
            privileged: all.into_iter().any(privileged),
            // The kind of profile whose number is 0: the runtime's default.
            seccomp: Some(SecurityProfile::default()),
            ..LinuxSandboxSecurityContext::default()
        }),
        sysctls: sysctls.map(|it| (dotted(&it.name), it.value.clone())).collect(),
        overhead: None,
        resources: Some(message::LinuxContainerResources {
            unified: facts
                .pod_processes_max
                .map(|most| ("pids.max".to_owned(), most.to_string()))
                .into_iter()
                .collect(),
            ..resources::of_pod(pod)
        }),
    }
}

fn ports(spec: &PodSpec) -> Vec<PortMapping> {
    let all = spec.containers.iter().flat_map(|it| it.ports.iter().flatten());
    let mapping = |it: &api::core::v1::ContainerPort| PortMapping {
        protocol: match it.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) | None => Protocol::Tcp,
        } as i32,
        container_port: it.container_port,
        host_port: it.host_port.unwrap_or(0),
        host_ip: it.host_ip.clone().unwrap_or_default(),
    };
    all.map(mapping).collect()
}
