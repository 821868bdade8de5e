//! Makes sure that a container's image is on this machine. Upstream: `images/image_manager.go` (EnsureImageExists).

use super::Refused;
use crate::{
    credentials,
    events::about_container,
    kubelet::Shared,
    runtime::{Image, PulledImage, RuntimeError, message},
    spec,
};
use api::core::v1::{Container, Pod};
use std::time::Duration;
use world::{Event, Note};

/// Images that are fetched at the same time; more would only share the same wire.
pub(crate) const PULLS_AT_ONCE: usize = 5;

/// What runtimes put before the cause when a registry cannot be asked. Upstream: `cri-api/pkg/errors`.
const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";
const SIGNATURE_VALIDATION_FAILED: &str = "SignatureValidationFailed";

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
    if let Err(why) = check_name(name) {
        let message = format!(
            "Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: {why}"
        );
        say(Note::Warning, "InspectFailed", message.clone());
        return Err(refused("InvalidImageName", message));
    }
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
    let (auths, missing) = credentials::of_pod(&shared.client.world(), pod, name);
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        shared.client.record(Event::warning(pod, "FailedToRetrieveImagePullSecret", message));
    }
    say(Note::Normal, "Pulling", format!("Pulling image {name:?}"));
    let begun = shared.clock.now();
    let failed = |error: &str| {
        say(Note::Warning, "Failed", format!("Failed to pull image {name:?}: {error}"));
        let (reason, message) = told(name, error);
        refused(reason, message)
    };
    // Closed only with the node.
    let turn = shared.pulls.acquire().await.map_err(|error| failed(&error.to_string()))?;
    let at_work = shared.clock.now();
    let pulled = pull(shared, pod, name, auths).await.map_err(|error| failed(&error))?;
    drop(turn);
    let image = shared.runtime.image(&pulled.reference).await;
    let image = image.map_err(|error| failed(&error.message))?;
    let image = image
        .ok_or_else(|| failed(&format!("{} is gone after it was pulled", pulled.reference)))?;
    if let Some(why) = pulled.imported_instead {
        let message = format!(
            "Container image {name:?} already present on machine: it was imported, and its registry does not give another ({why})"
        );
        say(Note::Normal, "Pulled", message);
        return Ok(image);
    }
    let now = shared.clock.now();
    say(
        Note::Normal,
        "Pulled",
        format!(
            "Successfully pulled image {name:?} in {} ({} including waiting). Image size: {} bytes.",
            seconds(now.since(at_work)),
            seconds(now.since(begun)),
            image.bytes
        ),
    );
    Ok(image)
}

/// With each login in turn; without one, as anybody.
async fn pull(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    auths: Vec<message::AuthConfig>,
) -> Result<PulledImage, String> {
    let request = |auth: Option<message::AuthConfig>| message::PullImageRequest {
        image: Some(message::ImageSpec { image: name.to_owned(), ..Default::default() }),
        auth,
        sandbox_config: Some(spec::sandbox::config(pod, 0, &shared.facts)),
    };
    if auths.is_empty() {
        return shared.runtime.pull_image(request(None)).await.map_err(|error| error.message);
    }
    let mut errors: Vec<String> = Vec::new();
    for auth in auths {
        match shared.runtime.pull_image(request(Some(auth))).await {
            Ok(pulled) => return Ok(pulled),
            Err(RuntimeError { message, .. }) if errors.contains(&message) => {}
            Err(RuntimeError { message, .. }) => errors.push(message),
        }
    }
    Err(match &mut errors[..] {
        [only] => std::mem::take(only),
        all => format!("[{}]", all.join(", ")),
    })
}

/// The reason of the API for what a runtime says. Upstream: evalCRIPullErr.
fn told(name: &str, error: &str) -> (&'static str, String) {
    for (reason, what) in [
        (REGISTRY_UNAVAILABLE, "the registry is unavailable"),
        (SIGNATURE_VALIDATION_FAILED, "the signature validation failed"),
    ] {
        if let Some(rest) = error.strip_prefix(reason) {
            return (reason, format!("image pull failed for {name} because {what}{rest}"));
        }
    }
    ("ErrImagePull", error.to_owned())
}

/// Whether this can be the name of an image; an id is one. Upstream: `util/parsers` (ParseImageName).
fn check_name(name: &str) -> Result<(), &'static str> {
    let (rest, digest) = name.split_once('@').map_or((name, None), |(rest, it)| (rest, Some(it)));
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        Some(_) | None => (rest, None),
    };
    let invalid = "invalid reference format";
    let is_hex = |it: &str| it.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    if name.len() == 64 && is_hex(name) {
        return Err("invalid repository name, cannot specify 64-byte hexadecimal strings");
    }
    if path == "sha256" && tag.is_some_and(|it| it.len() == 64 && is_hex(it)) {
        return Ok(());
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if let Some(tag) = tag
        && !((1..=128).contains(&tag.len())
            && tag.starts_with(word)
            && tag.chars().all(|c| word(c) || c == '.' || c == '-'))
    {
        return Err(invalid);
    }
    if let Some(digest) = digest {
        let (kind, hex) = digest.split_once(':').ok_or(invalid)?;
        if kind.is_empty() || hex.len() < 32 || !is_hex(hex) {
            return Err(invalid);
        }
    }
    let is_host = |it: &str| {
        (it.contains(['.', ':']) || it == "localhost")
            && it.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
    };
    let path = match path.split_once('/') {
        Some((host, rest)) if is_host(host) => rest,
        Some(_) | None => path,
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = |part: &str| {
        part.starts_with(plain)
            && part.ends_with(plain)
            && part.split(plain).all(|joint| {
                matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|c| c == b'-')
            })
    };
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Err("repository name must be lowercase");
    }
    if path.split('/').all(fits) { Ok(()) } else { Err(invalid) }
}

/// `1.234s`, `12ms`: as Go prints a duration that was cut to milliseconds.
fn seconds(took: Duration) -> String {
    match took.as_millis() {
        millis if millis < 1000 => format!("{millis}ms"),
        _ => format!("{}s", (took.as_secs_f64() * 1000.0).trunc() / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_is_none() {
        let digest = format!("a@sha256:{}", "0f".repeat(32));
        let id = format!("sha256:{}", "0f".repeat(32));
        for good in ["nginx", "localhost:5000/x:1", "a/b__c-d--e.f:V_1", "r.io/x", &digest, &id] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "INVALID", "a//b", "a b", "x:", "x:a b", "../x", "a@b", "-x", "x/"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name(&"0f".repeat(32)).is_err());
    }

    #[test]
    fn what_a_runtime_says_of_its_registry_is_a_reason_of_its_own() {
        assert_eq!(told("x:1", "not found"), ("ErrImagePull", "not found".to_owned()));
        assert_eq!(
            told("x:1", "RegistryUnavailable: it is down"),
            (
                "RegistryUnavailable",
                "image pull failed for x:1 because the registry is unavailable: it is down"
                    .to_owned()
            )
        );
    }
}
