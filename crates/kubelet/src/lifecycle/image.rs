//! Makes sure that a container's image is on this machine. Upstream: `images/image_manager.go` (EnsureImageExists).

use super::Refused;
use crate::{
    credentials::{self, Credential},
    events::about_container,
    kubelet::Shared,
    plan::Ensured,
    pull_records::PullSecret,
    runtime::{Image, PulledImage, RuntimeError, message},
    spec::{self, container::image_of},
};
use api::core::v1::{Container, Pod};
use std::time::Duration;
use world::{Event, Note};

/// Images that are fetched at the same time; more would only share the same wire.
pub(crate) const PULLS_AT_ONCE: usize = 5;

/// What runtimes put before the cause when a registry cannot be asked. Upstream: `cri-api/pkg/errors`.
const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";
const SIGNATURE_VALIDATION_FAILED: &str = "SignatureValidationFailed";

/// An image that could not be had, by the name that the pod gives it.
pub(crate) struct Unfetched {
    pub(crate) image: String,
    pub(crate) refused: Refused,
}

/// The container's image, and the images that it mounts.
pub(crate) async fn ensure(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
) -> Result<Ensured, Unfetched> {
    let refused = |image: &str, refused: Refused| {
        let event = Event::warning(pod, "Failed", format!("Error: {}", refused.reason));
        about_container(&*shared.client, pod, container, event);
        Unfetched { image: image.to_owned(), refused }
    };
    let mut ensured = Ensured::default();
    for mount in container.volume_mounts.iter().flatten() {
        let Some(source) = image_of(pod, &mount.name) else { continue };
        let name = source.reference.as_deref().unwrap_or_default();
        let policy = source.pull_policy.as_deref();
        let wanted = Wanted { pod, of: None, name, policy };
        let image = wanted.ensure(shared).await.map_err(|it| refused(name, it))?;
        ensured.volumes.insert(mount.name.clone(), image.id);
    }
    let name = container.image.as_deref().unwrap_or_default();
    let policy = container.image_pull_policy.as_deref();
    let wanted = Wanted { pod, of: Some(container), name, policy };
    ensured.image = wanted.ensure(shared).await.map_err(|it| refused(name, it))?;
    Ok(ensured)
}

/// One image of a pod.
struct Wanted<'a> {
    pod: &'a Pod,
    /// The container that runs it; none: it is a volume, and events are about the pod.
    of: Option<&'a Container>,
    name: &'a str,
    policy: Option<&'a str>,
}

impl Wanted<'_> {
    fn say(&self, shared: &Shared, note: Note, reason: &'static str, message: String) {
        let event = match note {
            Note::Normal => Event::normal(self.pod, reason, message),
            Note::Warning => Event::warning(self.pod, reason, message),
        };
        match self.of {
            Some(container) => about_container(&*shared.client, self.pod, container, event),
            None => shared.client.record(event),
        }
    }

    async fn ensure(&self, shared: &Shared) -> Result<Image, Refused> {
        let name = self.name;
        let say = |note, reason, message| self.say(shared, note, reason, message);
        if let Err(why) = check_name(name) {
            let message = format!(
                "Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: {why}"
            );
            say(Note::Warning, "InspectFailed", message.clone());
            return Err(Refused { reason: "InvalidImageName", message });
        }
        let policy = self.policy.unwrap_or("IfNotPresent");
        let (logins, missing) = credentials::of_pod(&shared.client.world(), self.pod, name);
        if policy != "Always" {
            let found = shared.runtime.image(name).await.map_err(|error| {
                let message = format!("Failed to inspect image {name:?}: {error}");
                say(Note::Warning, "InspectFailed", message.clone());
                Refused { reason: "ImageInspectError", message }
            })?;
            let secrets: Vec<_> = logins.iter().filter_map(|it| it.secret.clone()).collect();
            // One that the pod has no right to is as if it were not here.
            let usable = found.filter(|it| shared.pull_records.may_use(name, &it.id, &secrets));
            if let Some(image) = usable {
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
                return Err(Refused { reason: "ErrImageNeverPull", message });
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            let event = Event::warning(self.pod, "FailedToRetrieveImagePullSecret", message);
            shared.client.record(event);
        }
        self.pull(shared, logins).await.map_err(|error| {
            say(Note::Warning, "Failed", format!("Failed to pull image {name:?}: {error}"));
            let (reason, message) = told(name, &error);
            Refused { reason, message }
        })
    }

    /// Fetches it, and remembers by whose right.
    async fn pull(&self, shared: &Shared, logins: Vec<Credential>) -> Result<Image, String> {
        let name = self.name;
        let say = |message| self.say(shared, Note::Normal, "Pulled", message);
        self.say(shared, Note::Normal, "Pulling", format!("Pulling image {name:?}"));
        let begun = shared.clock.now();
        // Closed only with the node.
        let turn = shared.pulls.acquire().await.map_err(|error| error.to_string())?;
        let at_work = shared.clock.now();
        let records = Intent::begin(shared, name)?;
        let (pulled, secret) = match pull(shared, self.pod, name, logins).await {
            Ok(pulled) => pulled,
            Err(Unpulled { message, is_over }) => {
                if is_over {
                    records.failed();
                }
                return Err(message);
            }
        };
        drop(turn);
        let image = shared.runtime.image(&pulled.reference).await;
        let image = image.map_err(|error| error.message)?;
        let image =
            image.ok_or_else(|| format!("{} is gone after it was pulled", pulled.reference))?;
        if let Some(why) = pulled.imported_instead {
            records.failed();
            say(format!(
                "Container image {name:?} already present on machine: it was imported, and its registry does not give another ({why})"
            ));
            return Ok(image);
        }
        records.pulled(&image.id, secret.as_ref());
        let now = shared.clock.now();
        say(format!(
            "Successfully pulled image {name:?} in {} ({} including waiting). Image size: {} bytes.",
            seconds(now.since(at_work)),
            seconds(now.since(begun)),
            image.bytes
        ));
        Ok(image)
    }
}

/// A pull under way, as far as it was written down. Dropped without a word it has an end that nobody knows: the runtime
/// may have the image, or go on fetching it.
struct Intent<'a> {
    shared: &'a Shared,
    image: &'a str,
    is_told: bool,
}

impl Intent<'_> {
    fn begin<'a>(shared: &'a Shared, image: &'a str) -> Result<Intent<'a>, String> {
        shared.pull_records.begin(image).map_err(|error| {
            format!("Failed to record image pull intent for container image {image:?}: {error}")
        })?;
        Ok(Intent { shared, image, is_told: false })
    }

    fn pulled(mut self, id: &str, secret: Option<&PullSecret>) {
        self.is_told = true;
        if let Err(error) = self.shared.pull_records.pulled(self.image, id, secret) {
            // The intent stays: whoever wants the image proves a right to it.
            tracing::warn!(image = self.image, %error, "record a pulled image");
        }
    }

    /// Nothing was pulled.
    fn failed(mut self) {
        self.is_told = true;
        if let Err(error) = self.shared.pull_records.failed(self.image) {
            tracing::warn!(image = self.image, %error, "record that an image was not pulled");
        }
    }
}

impl Drop for Intent<'_> {
    fn drop(&mut self) {
        if !self.is_told
            && let Err(error) = self.shared.pull_records.lost(self.image)
        {
            tracing::warn!(image = self.image, %error, "record that an image may have been pulled");
        }
    }
}

/// Why an image could not be fetched.
struct Unpulled {
    message: String,
    /// The runtime is not fetching it any more.
    is_over: bool,
}

/// With each login in turn; without one, as anybody. The secret whose login it was, if it was one.
async fn pull(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    logins: Vec<Credential>,
) -> Result<(PulledImage, Option<PullSecret>), Unpulled> {
    let request = |auth: Option<message::AuthConfig>| message::PullImageRequest {
        image: Some(message::ImageSpec { image: name.to_owned(), ..Default::default() }),
        auth,
        sandbox_config: Some(spec::sandbox::config(pod, 0, &shared.facts)),
    };
    if logins.is_empty() {
        let pulled = shared.runtime.pull_image(request(None)).await;
        let unpulled = |it: RuntimeError| Unpulled { message: it.message, is_over: !it.is_late };
        return pulled.map(|it| (it, None)).map_err(unpulled);
    }
    let (mut errors, mut is_over) = (Vec::<String>::new(), true);
    for login in logins {
        match shared.runtime.pull_image(request(Some(credentials::message(&login)))).await {
            Ok(pulled) => return Ok((pulled, login.secret)),
            Err(RuntimeError { message, is_late, .. }) => {
                is_over &= !is_late;
                if !errors.contains(&message) {
                    errors.push(message);
                }
            }
        }
    }
    let message = match &mut errors[..] {
        [only] => std::mem::take(only),
        all => format!("[{}]", all.join(", ")),
    };
    Err(Unpulled { message, is_over })
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
