//! The containers of a pod by name, whichever list of the spec they stand in.

use api::core::v1::{Container, EphemeralContainer, Pod};
use std::borrow::Cow;

/// The lists of a spec, and how events call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Init,
    Regular,
    Ephemeral,
}

impl List {
    /// The field of the spec.
    pub fn field(self) -> &'static str {
        match self {
            List::Init => "initContainers",
            List::Regular => "containers",
            List::Ephemeral => "ephemeralContainers",
        }
    }
}

/// The container of this name, and where it stands.
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<(List, Cow<'a, Container>)> {
    let spec = pod.spec.as_ref()?;
    let of = |list: &'a [Container]| list.iter().find(|it| it.name == name);
    if let Some(found) = of(&spec.containers) {
        return Some((List::Regular, Cow::Borrowed(found)));
    }
    if let Some(found) = of(spec.init_containers.as_deref().unwrap_or_default()) {
        return Some((List::Init, Cow::Borrowed(found)));
    }
    let ephemeral = spec.ephemeral_containers.as_deref().unwrap_or_default();
    let found = ephemeral.iter().find(|it| it.name == name)?;
    Some((List::Ephemeral, Cow::Owned(as_container(found))))
}

/// The container of this name.
pub fn named<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    find(pod, name).map(|(_, it)| it)
}

/// An ephemeral container is a container in all but its target.
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
