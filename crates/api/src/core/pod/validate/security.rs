//! As whom a pod and its containers run.

use crate::{
    core::volume_source::descending,
    field::{Errors, quoted},
    k8s::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext},
    meta::{absent::list, names},
};

/// Largest user and group id.
const ID_MOST: i64 = i32::MAX as i64;

/// Longest name of an AppArmor profile: a path, in bytes.
const PROFILE_MOST: usize = 4095;

/// Upstream: `SysctlMaxLength`.
const SYSCTL_LENGTH_MAX: usize = 253;

/// Segments between dots or slashes, each of small letters, digits and, inside, `-` and `_`.
fn is_sysctl(name: &str) -> bool {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let segment = |it: &str| {
        let bytes = it.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.iter().all(|it| it.is_some_and(|it| plain(*it)))
            && bytes.iter().all(|it| plain(*it) || matches!(it, b'-' | b'_'))
    };
    name.len() <= SYSCTL_LENGTH_MAX && name.split(['.', '/']).all(segment)
}

/// Those of `kernel.` that belong to the IPC namespace. Upstream: `component-helpers/node/util/sysctl/namespace.go`.
fn is_of_ipc(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("kernel") else { return false };
    let rest = rest.trim_start_matches(['.', '/']);
    rest == "sem" || rest.starts_with("shm") || rest.starts_with("msg")
}

pub(super) fn validate_pod(path: &str, spec: &PodSpec, errors: &mut Errors) {
    let at = format!("{path}.securityContext");
    let host = |it: Option<bool>| it == Some(true);
    if let Some(context) = &spec.security_context {
        id(&at, "fsGroup", context.fs_group, errors);
        id(&at, "runAsUser", context.run_as_user, errors);
        id(&at, "runAsGroup", context.run_as_group, errors);
        for (n, group) in list(&context.supplemental_groups).iter().enumerate() {
            id(&at, &format!("supplementalGroups[{n}]"), Some(*group), errors);
        }
        if host(spec.share_process_namespace) && host(spec.host_pid) {
            let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
            errors.invalid(format!("{at}.shareProcessNamespace"), "true", detail);
        }
        let mut seen = Vec::new();
        for (n, it) in list(&context.sysctls).iter().enumerate() {
            let path = format!("{at}.sysctls[{n}].name");
            if it.name.is_empty() {
                errors.required(path, "");
            } else if !is_sysctl(&it.name) {
                let segment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
                let detail = format!(
                    "must have at most {SYSCTL_LENGTH_MAX} characters and match regex ^({segment}[\\./])*{segment}$"
                );
                errors.invalid(path, quoted(&it.name), detail);
            } else if seen.contains(&&it.name) {
                errors.duplicate(path, quoted(&it.name));
            }
            let first = it.name.split(['.', '/']).next();
            let shared =
                [("net", "hostNetwork", spec.host_network), ("kernel", "hostIPC", spec.host_ipc)];
            for (namespace, field, is_shared) in shared {
                let of_ipc = namespace == "kernel" && !is_of_ipc(&it.name);
                if first == Some(namespace) && host(is_shared) && !of_ipc {
                    let path = format!("{at}.sysctls[{n}].name");
                    let detail = format!("may not be specified when '{field}' is true");
                    errors.invalid(path, quoted(&it.name), detail);
                }
            }
            seen.push(&it.name);
        }
        let policies = ["Always", "OnRootMismatch"];
        if let Some(policy) = &context.fs_group_change_policy
            && !policies.contains(&policy.as_str())
        {
            errors.not_supported(format!("{at}.fsGroupChangePolicy"), policy, &policies);
        }
        seccomp(&at, context.seccomp_profile.as_ref(), errors);
        app_armor(&at, context.app_armor_profile.as_ref(), errors);
        let policies = ["Merge", "Strict"];
        if let Some(policy) = &context.supplemental_groups_policy
            && !policies.contains(&policy.as_str())
        {
            errors.not_supported(format!("{at}.supplementalGroupsPolicy"), policy, &policies);
        }
        let policies = ["Recursive"];
        if let Some(policy) = &context.se_linux_change_policy
            && !policies.contains(&policy.as_str())
        {
            errors.not_supported(format!("{at}.seLinuxChangePolicy"), policy, &policies);
        }
    }
    if spec.host_users == Some(false) {
        let fields = [
            ("hostNetwork", host(spec.host_network)),
            ("HostPID", host(spec.host_pid)),
            ("HostIPC", host(spec.host_ipc)),
        ];
        for (field, _) in fields.into_iter().filter(|it| it.1) {
            errors.forbidden(format!("{path}.{field}"), "when `hostUsers` is false");
        }
        let init = list(&spec.init_containers);
        for (field, all) in [("initContainers", init), ("containers", &spec.containers[..])] {
            let devices =
                all.iter().enumerate().filter(|it| !list(&it.1.volume_devices).is_empty());
            for (n, _) in devices {
                let path = format!("{path}.{field}[{n}].volumeDevices");
                errors.forbidden(path, "when `hostUsers` is false");
            }
        }
    }
}

pub(super) fn validate_container(
    path: &str,
    context: &SecurityContext,
    host_users: bool,
    errors: &mut Errors,
) {
    id(path, "runAsUser", context.run_as_user, errors);
    id(path, "runAsGroup", context.run_as_group, errors);
    if let Some(mount) = context.proc_mount.as_deref() {
        let known = ["Default", "Unmasked"];
        if !known.contains(&mount) {
            errors.not_supported(format!("{path}.procMount"), mount, &known);
        }
        if host_users && mount == "Unmasked" {
            let detail = "`hostUsers` must be false to use `Unmasked`";
            errors.invalid(format!("{path}.procMount"), quoted(mount), detail);
        }
    }
    seccomp(path, context.seccomp_profile.as_ref(), errors);
    if context.allow_privilege_escalation == Some(false) {
        let shown = || serde_json::to_string(context).expect("API objects are plain data");
        let cannot = "cannot set `allowPrivilegeEscalation` to false and";
        if context.privileged == Some(true) {
            errors.invalid(path, shown(), format!("{cannot} `privileged` to true"));
        }
        let added = context.capabilities.as_ref().map(|it| list(&it.add)).unwrap_or_default();
        if added.iter().any(|it| it == "CAP_SYS_ADMIN") {
            errors.invalid(path, shown(), format!("{cannot} `capabilities.Add` CAP_SYS_ADMIN"));
        }
    }
    app_armor(path, context.app_armor_profile.as_ref(), errors);
}

fn id(path: &str, field: &str, id: Option<i64>, errors: &mut Errors) {
    if let Some(id) = id {
        names::in_range(format!("{path}.{field}"), id, 0, ID_MOST, errors);
    }
}

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp(path: &str, profile: Option<&SeccompProfile>, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    let path = format!("{path}.seccompProfile");
    match profile.type_.as_str() {
        "" => {
            errors.required(format!("{path}.type"), "type is required when seccompProfile is set")
        }
        kind if PROFILES.contains(&kind) => {}
        kind => errors.not_supported(format!("{path}.type"), kind, &PROFILES),
    }
    let at = format!("{path}.localhostProfile");
    match (profile.type_ == "Localhost", &profile.localhost_profile) {
        (true, None) => errors.required(at, "must be set when seccomp type is Localhost"),
        (true, Some(file)) => descending(at, file, errors),
        (false, Some(_)) => {
            let shown = serde_json::to_string(profile).expect("API objects are plain data");
            errors.invalid(at, shown, "can only be set when seccomp type is Localhost");
        }
        (false, None) => {}
    }
}

fn app_armor(path: &str, profile: Option<&AppArmorProfile>, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    let path = format!("{path}.appArmorProfile");
    match profile.type_.as_str() {
        "" => {
            errors.required(format!("{path}.type"), "type is required when appArmorProfile is set")
        }
        kind if PROFILES.contains(&kind) => {}
        kind => errors.not_supported(format!("{path}.type"), kind, &PROFILES),
    }
    let at = format!("{path}.localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", name) => {
            let name = name.unwrap_or_default();
            if name.trim() != name {
                errors.invalid(&at, quoted(name), "must not be padded with whitespace");
            } else if name.is_empty() {
                errors.required(&at, "must be set when AppArmor type is Localhost");
            }
            if name.len() > PROFILE_MOST {
                errors.too_long(at, PROFILE_MOST);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.invalid(at, quoted(name), "can only be set when AppArmor type is Localhost");
        }
        (_, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sysctls_are_segments_between_dots_or_slashes() {
        for good in ["kernel.shmmax", "net/ipv4/tcp_rmem", "a", "safe-and-unsafe"] {
            assert!(is_sysctl(good), "{good}");
        }
        for bad in ["foo-", "bar..", "", ".a", "A.b", "a b"] {
            assert!(!is_sysctl(bad), "{bad}");
        }
    }

    #[test]
    fn a_name_shorter_than_its_namespace_is_judged_like_others() {
        for (name, ipc) in
            [("kernel.sem", true), ("kernel", false), ("foo-", false), ("\u{e9}", false)]
        {
            assert_eq!(is_of_ipc(name), ipc, "{name}");
        }
    }
}
