//! Events about pods and their containers, with the field that says which container.

use api::{
    Object,
    core::v1::{Container, Pod},
};
use client::Client;
use world::Event;

/// About a container: `spec.containers{nginx}`.
pub(crate) fn about_container(
    client: &dyn Client,
    pod: &Pod,
    container: &Container,
    mut event: Event,
) {
    let init = pod.spec.iter().flat_map(|it| it.init_containers.iter().flatten());
    let list = match init.into_iter().any(|it| it.name == container.name) {
        true => "initContainers",
        false => "containers",
    };
    event.about.field_path = format!("spec.{list}{{{}}}", container.name);
    tracing::debug!(
        pod = pod.name(),
        container = container.name,
        event.reason,
        event.message,
        "event"
    );
    client.record(event);
}
