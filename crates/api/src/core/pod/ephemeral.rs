//! An ephemeral container is a container in all but its target.

use crate::k8s::api::core::v1::{Container, EphemeralContainer};

/// The same as a container.
pub fn as_container(it: &EphemeralContainer) -> Container {
    Container {
        args: it.args.clone(),
        command: it.command.clone(),
        env: it.env.clone(),
        env_from: it.env_from.clone(),
        image: it.image.clone(),
        image_pull_policy: it.image_pull_policy.clone(),
        lifecycle: it.lifecycle.clone(),
        liveness_probe: it.liveness_probe.clone(),
        name: it.name.clone(),
        ports: it.ports.clone(),
        readiness_probe: it.readiness_probe.clone(),
        resize_policy: it.resize_policy.clone(),
        resources: it.resources.clone(),
        restart_policy: it.restart_policy.clone(),
        restart_policy_rules: it.restart_policy_rules.clone(),
        security_context: it.security_context.clone(),
        startup_probe: it.startup_probe.clone(),
        stdin: it.stdin,
        stdin_once: it.stdin_once,
        termination_message_path: it.termination_message_path.clone(),
        termination_message_policy: it.termination_message_policy.clone(),
        tty: it.tty,
        volume_devices: it.volume_devices.clone(),
        volume_mounts: it.volume_mounts.clone(),
        working_dir: it.working_dir.clone(),
    }
}

/// The container's defaults for an ephemeral one. `default` may not change what an ephemeral container has not.
pub(super) fn with_container(it: &mut EphemeralContainer, default: impl FnOnce(&mut Container)) {
    let mut container = as_container(it);
    default(&mut container);
    it.env = container.env;
    it.resources = container.resources;
    it.image_pull_policy = container.image_pull_policy;
    it.termination_message_path = container.termination_message_path;
    it.termination_message_policy = container.termination_message_policy;
    it.security_context = container.security_context;
}
