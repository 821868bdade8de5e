//! Who a container runs as, and what it may do.
//!
//! Upstream: `pkg/securitycontext/util.go`, `kuberuntime/security_context.go`. Deviation: without a seccomp profile of
//! its own, a container gets the runtime's default one (upstream: only with `--seccomp-default`).

use super::Facts;
use crate::runtime::{Image, message};
use api::core::v1::{Container, Pod, SeccompProfile};
use message::{
    Capability, Int64Value, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption,
    SecurityProfile, SupplementalGroupsPolicy, security_profile::ProfileType,
};

/// Upstream: `defaultMaskedPaths`, `defaultReadonlyPaths`.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where seccomp profiles of `Localhost` lie, below the kubelet's directory.
const SECCOMP_DIR: &str = "seccomp";

pub fn of_container(
    pod: &Pod,
    container: &Container,
    image: &Image,
    facts: &Facts,
) -> Result<LinuxContainerSecurityContext, String> {
    let of_pod = pod.spec.as_ref().and_then(|it| it.security_context.as_ref());
    let own = container.security_context.as_ref();
    let user = own.and_then(|it| it.run_as_user).or(of_pod.and_then(|it| it.run_as_user));
    let group = own.and_then(|it| it.run_as_group).or(of_pod.and_then(|it| it.run_as_group));
    let non_root =
        own.and_then(|it| it.run_as_non_root).or(of_pod.and_then(|it| it.run_as_non_root));
    if non_root == Some(true) {
        check_non_root(pod, container, user, image)?;
    }
    let privileged = own.is_some_and(|it| it.privileged == Some(true));
    let unmasked = own.and_then(|it| it.proc_mount.as_deref()) == Some("Unmasked");
    let list = |paths: &[&str]| paths.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let mut masked = list(&MASKED);
    masked.extend(facts.masked_paths.iter().cloned());
    let capabilities = own.and_then(|it| it.capabilities.as_ref()).map(|it| Capability {
        add_capabilities: it.add.clone().unwrap_or_default(),
        drop_capabilities: it.drop.clone().unwrap_or_default(),
        ..Capability::default()
    });
    let profile = own
        .and_then(|it| it.seccomp_profile.as_ref())
        .or(of_pod.and_then(|it| it.seccomp_profile.as_ref()));
    let escalation = own.and_then(|it| it.allow_privilege_escalation);
    Ok(LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(namespaces(pod)),
        run_as_user: user.or(image.uid).map(|value| Int64Value { value }),
        run_as_username: if user.is_none() { image.username.clone() } else { String::new() },
        run_as_group: group.map(|value| Int64Value { value }),
        readonly_rootfs: own.is_some_and(|it| it.read_only_root_filesystem == Some(true)),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: escalation == Some(false),
        masked_paths: if unmasked { Vec::new() } else { masked },
        readonly_paths: if unmasked { Vec::new() } else { list(&READ_ONLY) },
        seccomp: Some(seccomp(profile, facts)),
        ..LinuxContainerSecurityContext::default()
    })
}

pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod.spec.as_ref();
    let mode = |of_node: Option<bool>, else_mode: NamespaceMode| {
        (if of_node == Some(true) { NamespaceMode::Node } else { else_mode }) as i32
    };
    let shared = spec.is_some_and(|it| it.share_process_namespace == Some(true));
    let pid = if shared { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption {
        network: mode(spec.and_then(|it| it.host_network), NamespaceMode::Pod),
        pid: mode(spec.and_then(|it| it.host_pid), pid),
        ipc: mode(spec.and_then(|it| it.host_ipc), NamespaceMode::Pod),
        ..NamespaceOption::default()
    }
}

/// How many users and groups a pod has that does not share the host's.
pub const USERS: u32 = 65536;

/// The pod's users are those of the host from `first` on.
pub fn map_users(
    sandbox: &mut message::PodSandboxConfig,
    container: Option<&mut message::ContainerConfig>,
    first: u32,
) {
    let range = message::IdMapping { host_id: first, container_id: 0, length: USERS };
    let users = message::UserNamespace {
        mode: NamespaceMode::Pod as i32,
        uids: vec![range],
        gids: vec![range],
    };
    let sandbox = sandbox.linux.as_mut().and_then(|it| it.security_context.as_mut());
    let container = container.and_then(|it| it.linux.as_mut()?.security_context.as_mut());
    let of_sandbox = sandbox.and_then(|it| it.namespace_options.as_mut());
    let of_container = container.and_then(|it| it.namespace_options.as_mut());
    for options in of_sandbox.into_iter().chain(of_container) {
        options.userns_options = Some(users.clone());
    }
}

/// fsGroup first, as upstream.
pub fn groups(pod: &Pod) -> Vec<i64> {
    let security = pod.spec.as_ref().and_then(|it| it.security_context.as_ref());
    let groups = security.and_then(|it| it.supplemental_groups.clone()).unwrap_or_default();
    security.and_then(|it| it.fs_group).into_iter().chain(groups).collect()
}

pub fn groups_policy(pod: &Pod) -> i32 {
    let security = pod.spec.as_ref().and_then(|it| it.security_context.as_ref());
    match security.and_then(|it| it.supplemental_groups_policy.as_deref()) {
        Some("Strict") => SupplementalGroupsPolicy::Strict as i32,
        _ => SupplementalGroupsPolicy::Merge as i32,
    }
}

fn seccomp(profile: Option<&SeccompProfile>, facts: &Facts) -> SecurityProfile {
    let of = |kind: ProfileType, localhost_ref: String| SecurityProfile {
        profile_type: kind as i32,
        localhost_ref,
    };
    match profile.map(|it| (it.type_.as_str(), it.localhost_profile.as_deref())) {
        Some(("Unconfined", _)) => of(ProfileType::Unconfined, String::new()),
        Some(("Localhost", Some(path))) => {
            let path = facts.kubelet_dir.join(SECCOMP_DIR).join(path);
            of(ProfileType::Localhost, super::text(&path))
        }
        Some(_) | None => of(ProfileType::RuntimeDefault, String::new()),
    }
}

/// Upstream: `verifyRunAsNonRoot`.
fn check_non_root(
    pod: &Pod,
    container: &Container,
    user: Option<i64>,
    image: &Image,
) -> Result<(), String> {
    let of = format!("(pod: \"{}\", container: {})", crate::plan::describe(pod), container.name);
    match (user, image.uid, image.username.as_str()) {
        (Some(0), ..) => Err(format!("container's runAsUser breaks non-root policy {of}")),
        (Some(_), ..) => Ok(()),
        (None, Some(0), _) | (None, None, "") => {
            Err(format!("container has runAsNonRoot and image will run as root {of}"))
        }
        (None, Some(_), _) => Ok(()),
        (None, None, name) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {of}"
        )),
    }
}
