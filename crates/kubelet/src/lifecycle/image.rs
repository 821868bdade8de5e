//! Makes sure that a container's image is on this machine. Upstream: `images/image_manager.go` (EnsureImageExists).

use super::Refused;
use crate::{
    events::about_container,
    kubelet::Shared,
    runtime::{Image, message},
    spec,
};
use api::core::v1::{Container, Pod};
use std::time::Duration;
use world::{Event, Note};

pub(crate) async fn ensure(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
) -> Result<Image, Refused> {
    let name = container.image.as_deref().unwrap_or_default();
    let say = |note: Note, reason: &'static str, message: String| {
        let event = match note {
            Note::Normal => Event::normal(pod, reason, message),
            Note::Warning => Event::warning(pod, reason, message),
        };
        about_container(&*shared.client, pod, container, event);
    };
    let refused = |reason: &'static str, message: String| {
        say(Note::Warning, "Failed", format!("Error: {reason}"));
        Refused { reason, message }
    };
    let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
    if policy != "Always" {
        let found = shared.runtime.image(name).await.map_err(|error| {
            let message = format!("Failed to inspect image {name:?}: {error}");
            say(Note::Warning, "InspectFailed", message.clone());
            refused("ImageInspectError", message)
        })?;
        if let Some(image) = found {
            let message = format!(
                "Container image {name:?} already present on machine and can be accessed by the pod"
            );
            say(Note::Normal, "Pulled", message);
            return Ok(image);
        }
        if policy == "Never" {
            let message =
                format!("Container image {name:?} is not present with pull policy of Never");
            say(Note::Warning, "ErrImageNeverPull", message.clone());
            return Err(refused("ErrImageNeverPull", message));
        }
    }
    say(Note::Normal, "Pulling", format!("Pulling image {name:?}"));
    let begun = shared.clock.now();
    let failed = |error: String| {
        say(Note::Warning, "Failed", format!("Failed to pull image {name:?}: {error}"));
        refused("ErrImagePull", error)
    };
    let request = message::PullImageRequest {
        image: Some(message::ImageSpec { image: name.to_owned(), ..Default::default() }),
        auth: None,
        sandbox_config: Some(spec::sandbox::config(pod, 0, &shared.facts)),
    };
    let reference = shared.runtime.pull_image(request).await;
    let reference = reference.map_err(|error| failed(error.message))?;
    let image = shared.runtime.image(&reference).await.map_err(|error| failed(error.message))?;
    let image = image.ok_or_else(|| failed(format!("{reference} is gone after it was pulled")))?;
    let took = seconds(shared.clock.now().since(begun));
    say(
        Note::Normal,
        "Pulled",
        format!(
            "Successfully pulled image {name:?} in {took} ({took} including waiting). Image size: {} bytes.",
            image.bytes
        ),
    );
    Ok(image)
}

/// `1.234s`, `12ms`: as Go prints a duration that was cut to milliseconds.
fn seconds(took: Duration) -> String {
    match took.as_millis() {
        millis if millis < 1000 => format!("{millis}ms"),
        _ => format!("{}s", (took.as_secs_f64() * 1000.0).trunc() / 1000.0),
    }
}
