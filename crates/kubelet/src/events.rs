//! Events about pods and their containers, with the field that says which container.

use crate::plan::containers;
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
    let list = containers::find(pod, &container.name).map_or("containers", |it| it.0.field());
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
